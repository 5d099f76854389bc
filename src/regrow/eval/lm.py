"""A decoder with its tokenizer as a language model over text: log-likelihoods and continuations.

Legend: R rows of a batch, T time, D model, V vocabulary, N scored positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import tokenizers
import torch
from torch import Tensor

from regrow.core.errors import RunError
from regrow.eval.task import Score
from regrow.io.tokenizer import Tokenizer
from regrow.model.chunked import chunk_size
from regrow.model.decoder import Decoder
from regrow.model.generate import pad_left, stream

Tokens = tuple[int, ...]

# On a CPU a batch should stay in the outer cache (2048 measured best of 2048 to 16384).
_CPU_BATCH = 2048
_GPU_BATCH = 32_768
_GENERATE_ROWS = 32
_STOP_EVERY = 16  # steps between looks at what has been written


@dataclass(frozen=True, slots=True)
class _Row:
    """One forward pass: its input, and the continuations that are scored at its end."""

    inputs: Tokens
    targets: list[tuple[int, Tokens]]


class LanguageModel:
    """Log-likelihoods and greedy continuations of text under a decoder.

    Conventions are those of lm-eval, so that figures can be compared: a tokenizer that puts tokens
    in front of every text puts them in front of every context; an empty context is the
    beginning-of-text token, or the end-of-text token where there is none; the spaces that end a
    context belong to its continuation; the continuation's tokens are those of the whole text
    beyond as many as the context alone has. What does not fit into the model's positions is cut
    from the left, and counted in :attr:`cut`.

    Args:
        model: the decoder, on the device and in the dtype to use.
        tokenizer: its tokenizer.
        batch_tokens: positions of a batch, padding included; chosen by the device when not given.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, batch_tokens: int | None = None
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        on_cpu = model.embed.weight.device.type == "cpu"
        self.batch_tokens = batch_tokens or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.window = model.config.max_positions
        self.cut = 0
        """Requests so far whose text did not fit whole."""
        self.count_tokens = token_counter(tokenizer)
        self._opening = opening_ids(tokenizer)

    @property
    def prefix(self) -> int:
        """The token that stands for an empty context."""
        bos = self.tokenizer.bos_id
        return bos if bos is not None else self.tokenizer.end

    def encode(self, text: str) -> Tokens:
        """Ids of ``text`` as a context: with what the tokenizer puts in front."""
        return (*self._opening, *self.tokenizer.encode(text))

    def encode_pair(self, context: str, continuation: str) -> tuple[Tokens, Tokens]:
        """Ids of a context and of its continuation; the context is never empty."""
        if not context:
            ids = tuple(self.tokenizer.encode(continuation))
            return ((self.prefix,), ids) if ids[:1] != (self.prefix,) else (ids[:1], ids[1:])
        bare = context.rstrip()
        if not bare:
            return self.encode_pair("", context + continuation)
        before = self.encode(bare)
        return before, self.encode(context + continuation)[len(before) :]

    def log_likelihood(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Each continuation after its context.

        Args:
            pairs: (context, continuation); the space between them belongs to the continuation.

        Raises:
            RunError: the model gives something that is no number.
        """
        encoded = [self.encode_pair(*pair) for pair in pairs]
        sizes = [len(continuation.encode()) for _, continuation in pairs]
        return [
            Score(total, greedy, len(ids), size)
            for (total, greedy), (_, ids), size in zip(
                self.score_ids(encoded), encoded, sizes, strict=True
            )
        ]

    def passages(self, texts: Sequence[str]) -> list[Score]:
        """Each whole text after an empty context.

        A text longer than the model's positions is read in windows that do not overlap; each
        begins after one token of context, the last after as much as fits.
        """
        requests: list[tuple[Tokens, Tokens]] = []
        owners: list[int] = []
        lengths = []
        for index, text in enumerate(texts):
            ids = (self.prefix, *self.tokenizer.encode(text))
            lengths.append(len(ids) - 1)
            for start in range(1, len(ids), self.window):
                end = min(start + self.window, len(ids))
                requests.append((ids[max(0, end - self.window - 1) : start], ids[start:end]))
                owners.append(index)
        totals, greedy = [0.0] * len(texts), [True] * len(texts)
        for owner, (total, best) in zip(owners, self.score_ids(requests), strict=True):
            totals[owner] += total
            greedy[owner] = greedy[owner] and best
        return [
            Score(totals[i], greedy[i], lengths[i], len(text.encode()))
            for i, text in enumerate(texts)
        ]

    def score_ids(self, requests: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, bool]]:
        """Sum of log-probabilities in nats and whether all are the largest, for each request.

        Args:
            requests: ids of (context, continuation), the context not empty. Requests of equal
                input (options of one token) are computed once; the longest come first, so that
                what does not fit into memory fails at once.
        """
        rows = self._rows(requests)
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        for batch in self._batches(rows):
            for index, total, greedy in self._score(batch):
                if not math.isfinite(total):
                    raise RunError(
                        f"the model gives a log-likelihood of {total}; its weights are damaged, "
                        "or its dtype overflows"
                    )
                found[index] = total, greedy
        return found

    def _rows(self, requests: Sequence[tuple[Tokens, Tokens]]) -> list[_Row]:
        rows: dict[Tokens, _Row] = {}
        for index, (context, continuation) in enumerate(requests):
            whole = context + continuation
            if len(whole) > self.window + 1:
                self.cut += 1
                whole = whole[-self.window - 1 :]
            if not continuation:
                continue
            inputs = whole[:-1]
            row = rows.setdefault(inputs, _Row(inputs, []))
            row.targets.append((index, continuation[-len(inputs) :]))
        return sorted(rows.values(), key=lambda row: -len(row.inputs))

    def _batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        start = 0
        while start < len(rows):
            count = max(1, self.batch_tokens // len(rows[start].inputs))
            yield rows[start : start + count]
            start += count

    @torch.no_grad()
    def _score(self, rows: list[_Row]) -> Iterable[tuple[int, float, bool]]:
        device = self.model.embed.weight.device
        longest = len(rows[0].inputs)
        # Padding stands on the right, where a causal model cannot see it.
        padded = [[*row.inputs, *[0] * (longest - len(row.inputs))] for row in rows]
        hidden = self.model.hidden(torch.tensor(padded, device=device))  # (R, T, D)
        places: list[int] = []
        targets: list[int] = []
        owners: list[tuple[int, int]] = []
        for number, row in enumerate(rows):
            end = len(row.inputs)
            for index, wanted in row.targets:
                owners.append((index, len(wanted)))
                places.extend(number * longest + end - len(wanted) + i for i in range(len(wanted)))
                targets.extend(wanted)
        scored = hidden.reshape(-1, hidden.shape[-1])[torch.tensor(places, device=device)]
        logs, best = self._logs(scored, torch.tensor(targets, device=device))
        at = 0
        for index, count in owners:
            part = slice(at, at + count)
            at += count
            yield index, float(logs[part].sum()), bool(best[part].all())

    def _logs(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (N,) of each target, fp64, and whether none is larger, chunk by chunk."""
        chunk = chunk_size(self.model.config.vocab_size, hidden.device)
        logs, best = [], []
        for start in range(0, len(targets), chunk):
            wanted = targets[start : start + chunk]
            logits = self.model.head(hidden[start : start + chunk]).float()
            picked = logits.gather(-1, wanted[:, None]).squeeze(-1)
            logs.append((picked - logits.logsumexp(-1)).double().cpu())
            best.append((logits.argmax(-1) == wanted).cpu())
        return torch.cat(logs), torch.cat(best)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        keep_prompt: bool = True,
    ) -> list[str]:
        """Greedy continuations.

        Args:
            prompts: texts; one that does not fit is cut from the left, and counted.
            max_new_tokens: at most so many are made.
            stop: a continuation ends before the first of these.
            keep_prompt: where prompt and new tokens do not fit together, fewer tokens are made;
                without it the prompt is cut.
        """
        room = self.window - 1 if keep_prompt else max(1, self.window - max_new_tokens)
        encoded = []
        for prompt in prompts:
            ids = self.encode(prompt) or (self.prefix,)
            self.cut += len(ids) > room
            encoded.append(ids[-room:])
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
        for start in range(0, len(order), _GENERATE_ROWS):
            batch = order[start : start + _GENERATE_ROWS]
            limits = [min(max_new_tokens, self.window - len(encoded[i])) for i in batch]
            made = self._continue([encoded[i] for i in batch], limits, stop)
            for index, text in zip(batch, made, strict=True):
                texts[index] = text
        return texts

    def _continue(self, prompts: list[Tokens], limits: list[int], stop: Sequence[str]) -> list[str]:
        """Texts that follow prompts, of so many tokens at most; ends when each has met a stop."""
        device = self.model.embed.weight.device
        tokens, valid = (part.to(device) for part in pad_left(prompts))
        ids: list[list[int]] = [[] for _ in prompts]
        eos = self.tokenizer.eos_id
        steps = stream(self.model, tokens, max(limits), eos_id=eos, valid=valid)
        for step, column in enumerate(steps, 1):
            for row, token, limit in zip(ids, column.tolist(), limits, strict=True):
                if len(row) < limit:
                    row.append(token)
            if stop and step % _STOP_EVERY == 0 and all(self._ended(row, stop) for row in ids):
                break
        return [self._text(row, stop) for row in ids]

    def _ended(self, ids: list[int], stop: Sequence[str]) -> bool:
        text = self.tokenizer.decode(ids)
        return self.tokenizer.eos_id in ids or any(mark in text for mark in stop)

    def _text(self, ids: list[int], stop: Sequence[str]) -> str:
        eos = self.tokenizer.eos_id
        text = self.tokenizer.decode(ids[: ids.index(eos)] if eos in ids else ids)
        ends = [place for mark in stop if (place := text.find(mark)) >= 0]
        return text[: min(ends)] if ends else text


def token_counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    """A function that gives the tokens of a text as a prompt."""
    opening = len(opening_ids(tokenizer))
    return lambda text: opening + len(tokenizer.encode(text))


def opening_ids(tokenizer: Tokenizer) -> Tokens:
    """Ids that the tokenizer's own post-processor puts in front of every text."""
    content = dict(tokenizer.files())["tokenizer.json"]
    inner = tokenizers.Tokenizer.from_buffer(content)
    with_all = inner.encode("a", add_special_tokens=True)
    count = 0
    for special in with_all.special_tokens_mask:
        if not special:
            break
        count += 1
    return tuple(with_all.ids[:count])
