"""What the loop has to know, and what is special to a kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from regrow.train.batches import Batches
from regrow.train.guard import GuardRules
from regrow.train.phases import ResolvedPhase
from regrow.train.schedule import Schedule


@dataclass(frozen=True, slots=True)
class ModelKind:
    """What is special to a kind of model.

    Args:
        export: writes the trained module to a folder that others can read.
        sample: gives a few examples of what the module makes, for the run's page.
    """

    export: Callable[[nn.Module, Path], Any]
    sample: Callable[[nn.Module], list[dict[str, Any]]] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop has to know; a stage makes it from its config.

    Args:
        schedule: learning rate by consumed tokens.
        steps: optimiser steps in all.
        batch_samples: samples of a global batch.
        micro_batch: samples in memory at once; divides ``batch_samples``.
        ramp: smaller batches to begin with: samples of one, and how many steps have it, in order.
        sequence: tokens of a sample; 1 where a sample is no text.
        phases: names of the blends, by step; for the log.
        grad_clip: largest gradient norm; 0 for no limit.
        guard: which steps are not taken.
        seed: of dropout and the like.
        flops_per_token: forward and backward, for the utilisation.
        flops_per_token_causal: the same with half of attention's products; 0 if unknown.
        peak_flops: of the device; 0 if unknown.
        eval_every_tokens: 0 for only at the end.
        save_every_tokens: 0 for only at the end.
        keep: checkpoints that stay.
        log_every_steps: steps that a record averages over.
        label: what progress shows.
        unit: what is counted as a token.
    """

    schedule: Schedule
    steps: int
    batch_samples: int
    micro_batch: int
    sequence: int = 1
    ramp: tuple[tuple[int, int], ...] = ()
    phases: tuple[ResolvedPhase, ...] = ()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | Literal["auto"] = "auto"
    grad_clip: float = 1.0
    guard: GuardRules = field(default_factory=GuardRules)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    seed: int = 0
    flops_per_token: float = 0.0
    flops_per_token_causal: float = 0.0
    peak_flops: float = 0.0
    eval_every_tokens: int = 0
    save_every_tokens: int = 0
    keep: int = 2
    log_every_steps: int = 10
    label: str = "train"
    unit: str = "tok"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} must be at least 1")
        for samples in (*(samples for samples, _ in self.ramp), self.batch_samples):
            if samples % self.micro_batch:
                raise ValueError(
                    f"batch_samples {samples} is no multiple of micro_batch {self.micro_batch}"
                )
        if sum(steps for _, steps in self.ramp) >= self.steps:
            raise ValueError(f"the ramp leaves none of {self.steps} steps")

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step; with a ramp, of those behind it."""
        return self.batch_samples * self.sequence

    @property
    def batches(self) -> Batches:
        """The samples of each step."""
        rest = self.steps - sum(steps for _, steps in self.ramp)
        return Batches((*self.ramp, (self.batch_samples, rest)))
