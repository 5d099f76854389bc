from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.train.held_out import held_out
from tests.train.fakes import VOCAB, Tokens


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, VOCAB)

    def cross_entropy(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        logits = self.linear(hidden)
        total = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
        return total, int((targets != -100).sum())


class Scored(nn.Module):
    """The two members that held_out needs of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(VOCAB, 8)
        self.head = Head()
        self.modes: list[bool] = []

    def hidden(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        self.modes.append(self.training or torch.is_grad_enabled())
        return self.embed(tokens)


def _windows(shard: Any, sequence: int, batch: int, max_tokens: int) -> Iterator[Tokens]:
    yield from shard[: max_tokens // (sequence * batch)]


def _shard(seed: int, count: int) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        table = torch.randint(0, VOCAB, (2, 6), generator=generator)
        targets = table[:, 1:].clone()
        targets[0, seed] = -100
        made.append(Tokens(table[:, :-1], targets))
    return made


def test_figures_by_hand() -> None:
    model = Scored()
    shards = {"a": _shard(1, 3), "b": _shard(2, 9)}
    token_bytes = np.arange(VOCAB, dtype=np.int32) % 5
    found = held_out(model, shards, token_bytes, 5, 2, 60, _windows)
    nats, tokens, size = {}, {}, {}
    for name, count in (("a", 3), ("b", 6)):  # b stops after 60 tokens
        nats[name] = tokens[name] = size[name] = 0
        for window in shards[name][:count]:
            p = torch.softmax(model.head.linear(model.embed(window.tokens)).double(), -1)
            for row, column in (window.targets != -100).nonzero().tolist():
                target = int(window.targets[row, column])
                nats[name] -= math.log(p[row, column, target].item())
                tokens[name] += 1
                size[name] += target % 5
    assert found["tokens"] == sum(tokens.values())
    assert found["loss"] == pytest.approx(sum(nats.values()) / sum(tokens.values()), rel=1e-6)
    bits = {n: nats[n] / math.log(2) / size[n] for n in nats}
    bits["all"] = sum(nats.values()) / math.log(2) / sum(size.values())
    assert found["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert found["losses"] == pytest.approx({n: nats[n] / tokens[n] for n in nats}, rel=1e-6)


def test_without_a_tokenizer_there_are_no_bits() -> None:
    found = held_out(Scored(), {"a": _shard(1, 2)}, None, 5, 2, 1000, _windows)
    assert "bits_per_byte" not in found


def test_the_mode_is_restored_and_no_graph_is_built() -> None:
    model = Scored().train()
    held_out(model, {"a": _shard(1, 2)}, None, 5, 2, 1000, _windows)
    assert model.training
    assert not any(model.modes)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        held_out(Scored(), {"a": []}, None, 5, 2, 1000, _windows)
