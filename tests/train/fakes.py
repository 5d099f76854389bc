"""Small stand-ins, so that tests of the loop depend on no other room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.config import Config
from regrow.core.run import Run
from regrow.train.objective import Loss
from regrow.train.phases import ResolvedPhase
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings

VOCAB, SEQUENCE = 23, 6


class Tokens(NamedTuple):
    """A batch."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None = None


class FakeLoader:
    """Sample k is random tokens of a generator seeded with k; some targets are left out."""

    def __init__(self, holes: bool = True, delay: float = 0.0) -> None:
        self.holes, self.delay = holes, delay

    def batch(self, first: int, count: int) -> Tokens:
        time.sleep(self.delay)
        rows = []
        for k in range(first, first + count):
            generator = torch.Generator().manual_seed(k)
            rows.append(torch.randint(0, VOCAB, (SEQUENCE + 1,), generator=generator))
            if self.holes:
                # Sample k has k % SEQUENCE targets fewer: micro-batches weigh differently.
                rows[-1] = torch.cat((rows[-1], torch.tensor([k % SEQUENCE])))
        table = torch.stack(rows)
        tokens, targets = table[:, :SEQUENCE], (table[:, :SEQUENCE] * 7 + 3) % VOCAB
        if self.holes:
            position = torch.arange(SEQUENCE)[None, :]
            targets = targets.masked_fill(position < table[:, -1:], -100)
        return Tokens(tokens, targets)

    def ledger(self, samples: int) -> dict[str, dict[str, float]]:
        return {"fake": {"tokens": samples * SEQUENCE, "epochs": samples / 100}}


class TinyModel(nn.Module):
    """An embedding, a gain, dropout and a linear."""

    def __init__(self, seed: int = 0, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, width)
        self.gain = nn.Parameter(torch.ones(width))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCAB)
        with torch.no_grad():
            for parameter in (self.embed.weight, self.head.weight):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            self.head.bias.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.drop(torch.tanh(self.embed(tokens)) * self.gain))


class Predict:
    """Cross-entropy of a TinyModel, with a metric."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def loss(self, batch: Tokens) -> Loss:
        logits = self.model(batch.tokens).flatten(0, 1).float()
        targets = batch.targets.flatten()
        total = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
        weight = (targets != -100).sum()
        right = ((logits.argmax(-1) == targets) & (targets != -100)).sum()
        return Loss(total, weight, {"accuracy": right})

    def trainable(self) -> nn.Module:
        return self.model


class PlainConfig(Config):
    """Settings of a run of these tests."""

    name: str = "test"
    """Anything."""


def make_run(path: Path) -> Run:
    """A claimed, silent run folder; whoever held it before in this process lets go."""
    release_runs(path)
    run = Run.claim(path, "test", PlainConfig(), quiet=True)
    _CLAIMED[path] = run
    return run


_CLAIMED: dict[Path, Run] = {}


def release_runs(*paths: Path) -> None:
    """Let go of run folders; of all without an argument."""
    for path in paths or tuple(_CLAIMED):
        if path in _CLAIMED:
            _CLAIMED.pop(path).release()


def make_settings(steps: int = 12, **changes: Any) -> Settings:
    """A cosine over ``steps`` steps of 8 samples, two phases."""
    batch = int(changes.pop("batch_samples", 8))
    tokens = batch * SEQUENCE
    half = max(1, steps // 2)
    phases: Sequence[ResolvedPhase] = (
        ResolvedPhase("first", {"fake": 1.0}, 0, half, tokens),
        ResolvedPhase("second", {"fake": 1.0}, half, steps - half, tokens),
    )
    given: dict[str, Any] = {
        "schedule": Schedule("cosine", 0.02, steps * tokens, warmup_tokens=2 * tokens),
        "steps": steps,
        "batch_samples": batch,
        "micro_batch": 4,
        "sequence": SEQUENCE,
        "phases": tuple(phases),
        "precision": "fp32",
        "log_every_steps": 3,
    }
    return Settings(**(given | changes))


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics records without what depends on the clock."""
    from regrow.train.trainer import TIME_FIELDS

    return [{k: v for k, v in record.items() if k not in TIME_FIELDS} for record in records]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two states are the same bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
