"""Text in, text out: a decoder with its tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regrow.core.errors import InputError
from regrow.core.seed import derive
from regrow.io import hf
from regrow.io.chat import ChatTemplate, PromptEncoder
from regrow.io.text_stream import Detokenizer, StopScanner
from regrow.io.tokenizer import Tokenizer
from regrow.model.decoder import Decoder
from regrow.model.generate import pad_left, stream
from regrow.model.generate_config import check_ids

Reason = Literal["stop", "eos", "length"]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote after a prompt.

    Args:
        text: without the prompt, the stop string and special tokens.
        reason: why it ended: a stop string, an end token, or ``max_new_tokens``.
        prompt_tokens: ids that were read.
        new_tokens: ids that were made, the last ones (of a stop string, the end token) included.
    """

    text: str
    reason: Reason
    prompt_tokens: int
    new_tokens: int


class _Row:
    """One text in the making."""

    def __init__(self, tokenizer: Tokenizer, stops: Iterable[str], ends: frozenset[int]) -> None:
        self.reason: Reason | None = None
        self.pieces: list[str] = []
        self.new_tokens = 0
        self._ends = ends
        self._text = Detokenizer(tokenizer.decode)
        self._stops = StopScanner(stops)

    def push(self, token_id: int) -> str:
        """The text that can be shown now that ``token_id`` was made."""
        self.new_tokens += 1
        if token_id in self._ends:
            return self.finish("eos")
        return self._scan(self._text.push(token_id))

    def finish(self, reason: Reason) -> str:
        """The rest of the text, which ends for ``reason``."""
        rest = self._scan(self._text.finish())
        if self.reason is not None:  # the rest held a stop string
            return rest
        self.reason = reason
        return rest + self._keep(self._stops.finish())

    def _scan(self, text: str) -> str:
        shown, stopped = self._stops.push(text)
        if stopped:
            self.reason = "stop"
        return self._keep(shown)

    def _keep(self, text: str) -> str:
        self.pieces.append(text)
        return text


class Writer:
    """A decoder that reads and writes text.

    Args:
        model: the decoder.
        encoder: its tokenizer, and its chat template where there is one.
        end_ids: ids that end a text beside those that the model's config and the tokenizer name.
    """

    def __init__(self, model: Decoder, encoder: PromptEncoder, end_ids: Iterable[int] = ()) -> None:
        self.model = model
        self.encoder = encoder
        config = model.config
        named = (config.eos_id, *config.extra_eos_ids, encoder.tokenizer.eos_id, *end_ids)
        self.end_ids = frozenset(i for i in named if i is not None and i < config.vocab_size)

    def complete(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int = 64,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: Callable[[int, str], None] | None = None,
        on_end: Callable[[int, Completion], None] | None = None,
        batch_tokens: int = 16_384,
    ) -> list[Completion]:
        """Continuations of prompts, decoded together.

        Each prompt draws from a stream of its own, made from the seed and the prompt (and from
        how many equal ones stand before it), so its text does not depend on the other prompts.

        Args:
            prompts: texts, or ids as ``encoder`` gives them.
            max_new_tokens: at most this many are added to each.
            temperature: 0 for greedy decoding.
            top_k: see :func:`regrow.model.generate.sample`.
            top_p: see :func:`regrow.model.generate.sample`.
            stop: strings that end a text, also where they begin inside a token.
            seed: of the draws.
            on_text: called with a prompt's index and each piece of its text; never half a
                character, never the beginning of a stop string.
            on_end: called with a prompt's index and its completion, when its batch is done.
            batch_tokens: tokens, padding included, of the prompts that are decoded at once; a
                single one may exceed it.

        Returns:
            One completion a prompt, in their order.

        Raises:
            InputError: an empty prompt, or ids that the model does not have.
            ValueError: see :func:`regrow.model.generate.stream`.
        """
        ids = [self.encoder.encode(p) if isinstance(p, str) else list(p) for p in prompts]
        check_ids(self.model.config, ids)
        seeds = list(_seeds(seed, ids))
        made: dict[int, Completion] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in batches([len(row) for row in ids], max_new_tokens, batch_tokens):
                rows = [_Row(self.encoder.tokenizer, stop, self.end_ids) for _ in batch]
                generators = [torch.Generator().manual_seed(seeds[index]) for index in batch]
                tokens, valid = pad_left([ids[index] for index in batch])
                device = self.model.embed.weight.device
                steps = stream(
                    self.model,
                    tokens.to(device),
                    max_new_tokens,
                    temperature,
                    top_k,
                    top_p,
                    sorted(self.end_ids),
                    generators,
                    None if bool(valid.all()) else valid.to(device),
                )
                with closing(steps):
                    _follow(steps, batch, rows, on_text or _ignore)
                for index, row in zip(batch, rows, strict=True):
                    made[index] = Completion(
                        "".join(row.pieces), row.reason or "length", len(ids[index]), row.new_tokens
                    )
                    if on_end is not None:
                        on_end(index, made[index])
        finally:
            self.model.train(was_training)
        return [made[index] for index in range(len(ids))]


def _ignore(index: int, text: str) -> None:
    pass


def _follow(
    steps: Iterator[torch.Tensor],
    batch: Sequence[int],
    rows: Sequence[_Row],
    on_text: Callable[[int, str], None],
) -> None:
    """Turn ids into text until every row has ended."""

    def show(index: int, text: str) -> None:
        if text:
            on_text(index, text)

    for ids in steps:
        for index, row, token_id in zip(batch, rows, ids.tolist(), strict=True):
            if row.reason is None:
                show(index, row.push(token_id))
        if all(row.reason is not None for row in rows):
            return
    for index, row in zip(batch, rows, strict=True):
        if row.reason is None:
            show(index, row.finish("length"))


def _seeds(seed: int, prompts: Sequence[Sequence[int]]) -> Iterator[int]:
    seen: Counter[str] = Counter()
    for ids in prompts:
        text = ",".join(map(str, ids))
        yield derive(seed, "complete", seen[text], text)
        seen[text] += 1


def batches(lengths: Sequence[int], max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Which prompts are decoded together: neighbours in length, within a budget of tokens.

    Args:
        lengths: tokens of each prompt.
        max_new_tokens: that each may grow by.
        batch_tokens: rows times (longest prompt + new tokens) of a batch, at most; a prompt that
            exceeds it alone is a batch of its own.

    Returns:
        Indices, each once; equal lengths keep their order.
    """
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if made:
            width = lengths[made[-1][0]] + max_new_tokens  # the first is the longest
            if (len(made[-1]) + 1) * width <= batch_tokens:
                made[-1].append(index)
                continue
        made.append([index])
    return made


def load_encoder(folder: Path) -> PromptEncoder:
    """The tokenizer and chat template in a model's folder.

    Raises:
        InputError: there is no tokenizer, or one of the files is broken.
    """
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"{folder}: has no tokenizer.json, which turns text into the model's tokens; copy the "
            "files of its tokenizer there"
        )
    return PromptEncoder(Tokenizer.load(folder), ChatTemplate.load(folder))


def extra_end_ids(folder: Path) -> tuple[int, ...]:
    """End tokens that only a folder's ``generation_config.json`` names, as chat models do.

    Raises:
        InputError: the file is broken.
    """
    path = folder / hf.GENERATION_CONFIG
    if not path.exists():
        return ()
    value = hf.read_json_object(path).get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0)
