"""Training of one arm with the house's loop, driven in short stretches so that a curriculum can
look at the model in between.

The loop counts samples here (``sequence=1``): sequences of one arm differ in length, and the
learning rate should not depend on the curriculum.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.config import Config
from regrow.core.run import Run
from regrow.eval.recall import IGNORED
from regrow.model.decoder import Decoder
from regrow.train.objective import Loss
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings, Trainer

WARMUP_STEPS = 50
MIN_RATIO = 0.1
CHECK_STEPS = 25
SOLVED = 0.9
DONE, DONE_CHECKS = 0.999, 4


class Batch(NamedTuple):
    """What the objective reads."""

    tokens: Tensor
    targets: Tensor


class Source(Protocol):
    """Batches by (stream seed, first sample, count, difficulty)."""

    def batch(self, seed: int, first: int, count: int, size: int) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum.

    Args:
        sizes: difficulties, one a step in rotation; the last is the hardest.
        until: share of all steps at which the stage ends at the latest.
    """

    sizes: tuple[int, ...]
    until: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an arm is trained; the same for every model.

    Args:
        stages: the curriculum; a stage ends as soon as its hardest size is solved (accuracy 0.9).
        steps: optimiser steps in all.
        batch: sequences of a step.
    """

    stages: tuple[Stage, ...]
    steps: int
    batch: int


class _Arm(Config):
    """Settings of the run folder that the loop works in."""

    name: str
    """Of the arm."""


class _Loader:
    """The stream of one seed; what it gives depends on the stage that is set from outside."""

    def __init__(self, source: Source, seed: int, batch: int, stage: Stage) -> None:
        self.source, self.seed, self.size, self.stage = source, seed, batch, stage

    def batch(self, first: int, count: int) -> Batch:
        """One global batch."""
        sizes = self.stage.sizes
        return self.source.batch(self.seed, first, count, sizes[first // self.size % len(sizes)])

    def ledger(self, samples: int) -> dict[str, dict[str, float]]:
        """Nothing is stored, so there are no epochs."""
        return {"drawn": {"tokens": samples, "epochs": 0.0}}


class Answers:
    """Cross-entropy over the counted targets alone: logits of other places are never made."""

    def __init__(self, model: Decoder) -> None:
        self.model = model

    def loss(self, batch: Batch) -> Loss:
        """Summed over the answers."""
        logits, targets = answer_logits(self.model, batch)
        return Loss(F.cross_entropy(logits, targets, reduction="sum"), targets.numel())

    def trainable(self) -> nn.Module:
        """The decoder."""
        return self.model


def answer_logits(model: Decoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N, vocabulary) and ids (N,) of the N targets that count."""
    counted = batch.targets != IGNORED
    return model.head(model.hidden(batch.tokens)[counted]), batch.targets[counted]


@torch.no_grad()
def accuracy(model: Decoder, batch: Batch) -> float:
    """Share of the answers that are the most likely token."""
    logits, targets = answer_logits(model, batch)
    return float((logits.argmax(-1) == targets).float().mean())


class Trained(NamedTuple):
    """What training took."""

    seconds: float
    steps: int
    """Fewer than the recipe's where the hardest test was solved before."""
    stage_steps: list[int]
    """Step at which each stage began."""


def train(
    name: str,
    model: Decoder,
    source: Source,
    recipe: Recipe,
    lr: float,
    seed: int,
    watch: Callable[[int], float] | None = None,
    check_sequences: int = 64,
) -> Trained:
    """Train ``model`` in a temporary run folder.

    Args:
        name: of the arm.
        model: fresh.
        source: of batches.
        recipe: steps and curriculum.
        lr: peak learning rate.
        seed: of the stream.
        watch: accuracy on what the arm is for after so many steps, asked every 25 steps. Where it
            has been 0.999 four times on end, training stops: such an arm has seen less than those
            that it is compared to.
        check_sequences: held-out sequences that decide whether a stage is solved.
    """
    batch = recipe.batch
    loader = _Loader(source, seed, batch, recipe.stages[0])
    settings = Settings(
        schedule=Schedule(
            "cosine",
            lr,
            recipe.steps * batch,
            min_ratio=MIN_RATIO,
            warmup_tokens=min(WARMUP_STEPS, recipe.steps // 4) * batch,
        ),
        steps=recipe.steps,
        batch_samples=batch,
        micro_batch=batch,
        precision="fp32",
        threads=torch.get_num_threads(),
        seed=seed,
        log_every_steps=CHECK_STEPS,
    )
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.claim(Path(folder) / "run", "experiment", _Arm(name=name), quiet=True)
        try:
            trainer = Trainer(Answers(model), loader, settings, run)
            starts = _stretches(trainer, loader, recipe, model, watch, check_sequences)
        finally:
            run.release()
    return Trained(time.process_time() - began, trainer.step, starts)


def _stretches(
    trainer: Trainer,
    loader: _Loader,
    recipe: Recipe,
    model: Decoder,
    watch: Callable[[int], float] | None,
    check_sequences: int,
) -> list[int]:
    starts = [0]
    done = 0
    while trainer.step < recipe.steps and done < DONE_CHECKS:
        trainer.train(until_step=trainer.step + CHECK_STEPS)
        if watch is not None:
            done = done + 1 if watch(trainer.step) >= DONE else 0
        stage = recipe.stages[len(starts) - 1]
        if len(starts) == len(recipe.stages):
            continue
        if trainer.step >= stage.until * recipe.steps or _solved(
            model, loader, stage.sizes, check_sequences
        ):
            loader.stage = recipe.stages[len(starts)]
            starts.append(trainer.step)
    return starts


def _solved(model: Decoder, loader: _Loader, sizes: Sequence[int], count: int) -> bool:
    # Numbers that no training reaches: nothing is checked on what was learnt.
    held_out = loader.source.batch(loader.seed, 1 << 40, count, sizes[-1])
    return accuracy(model, held_out) >= SOLVED
