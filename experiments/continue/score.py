"""What a model is measured by: loss of each kind of text, of answers alone, and four-way choice.

Legend: B pairs, T time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from regrow.data.shards import ShardSet
from regrow.io.tokenizer import Tokenizer
from regrow.model.decoder import Decoder
from regrow.model.folder import load
from regrow.train.held_out import held_out

from .prepare import QA, Size, english  # noqa: TID252
from .questions import Choice, Pair, choices  # noqa: TID252

_BATCH = 32
_CHOICE_SEED = 0


def score(
    export: Path, data: Path, asked: dict[str, list[Pair]], size: Size
) -> dict[str, dict[str, Any]]:
    """Figures of a model on the validation and the test split.

    Returns:
        Split to ``en, languages, code, qa_text, mean`` (nats per token), ``qa_answer`` (of the
        answer's tokens alone), ``choice`` (share right), ``items``, and ``losses`` by source.
    """
    model = load(export).eval()
    tokenizer = Tokenizer.load(data / "tokenizer")
    made = {}
    for split in ("validation", "test"):
        general = {k: v for k, v in ShardSet.open(data, split).items() if k != QA}
        losses = held_out(model, general, None, size.sequence, 16, size.score_tokens)["losses"]
        text, answer = pair_losses(model, tokenizer, asked[split])
        items = choices(asked[split], _CHOICE_SEED)
        entry = {
            "en": english(losses),
            "languages": losses["languages"],
            "code": losses["code"],
            "qa_text": text,
        }
        made[split] = {
            **entry,
            "mean": sum(entry.values()) / len(entry),
            "qa_answer": answer,
            "choice": chosen(model, tokenizer, items),
            "items": len(items),
            "losses": losses,
        }
    return made


def pair_losses(model: Decoder, tokenizer: Tokenizer, found: Sequence[Pair]) -> tuple[float, float]:
    """Nats per token of whole pairs, and of their answers; each pair stands alone."""
    rows = [(tokenizer.encode(p.question), tokenizer.encode(f" {p.answer}")) for p in found]
    end = tokenizer.encode("\n")
    whole = answers = 0.0
    count = answered = 0
    sequences = [[*q, *a, *end] for q, a in rows]
    for (q, a), nats in zip(rows, token_losses(model, sequences, tokenizer.end), strict=True):
        whole += float(nats.sum())
        count += len(nats)
        answers += float(nats[len(q) : len(q) + len(a)].sum())
        answered += len(a)
    return whole / count, answers / answered


def chosen(model: Decoder, tokenizer: Tokenizer, items: Sequence[Choice]) -> float:
    """Share of the items whose right answer is the likeliest by nats per token."""
    starts, sequences = [], []
    for item in items:
        question = tokenizer.encode(item.question)
        starts += [len(question)] * len(item.options)
        sequences += [[*question, *tokenizer.encode(f" {option}")] for option in item.options]
    means = [
        float(nats[start:].mean())
        for start, nats in zip(starts, token_losses(model, sequences, tokenizer.end), strict=True)
    ]
    options = len(items[0].options)
    right = sum(
        min(range(options), key=means[i * options : (i + 1) * options].__getitem__) == item.right
        for i, item in enumerate(items)
    )
    return right / len(items)


@torch.no_grad()
def token_losses(
    model: Decoder, sequences: Sequence[list[int]], end: int
) -> Iterator[torch.Tensor]:
    """Nats of each token of each sequence, the first given the end-of-text id; in order."""
    for start in range(0, len(sequences), _BATCH):
        part = sequences[start : start + _BATCH]
        longest = max(map(len, part))
        tokens = torch.full((len(part), longest + 1), end)  # (B, T + 1); what follows is not seen
        for row, ids in enumerate(part):
            tokens[row, 1 : len(ids) + 1] = torch.tensor(ids)
        logits = model(tokens[:, :-1])
        nats = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")  # (B, T)
        for row, ids in enumerate(part):
            yield nats[row, : len(ids)].double()
