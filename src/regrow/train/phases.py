"""Data phases: where each blend begins and ends, known before step 0, always between two steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regrow.core.errors import ConfigError
from regrow.train.batches import Batches
from regrow.train.config import PhaseConfig, UntilConfig
from regrow.train.schedule import Schedule


@dataclass(frozen=True, slots=True)
class ResolvedPhase:
    """One blend with its place in the run.

    Args:
        name: as configured.
        weights: source to its share; the shares sum to 1.
        first_step: the first optimiser step on this blend, counted from 0.
        steps: how many.
        batch_tokens: tokens of one step; of a run with a batch ramp, of those behind it.
        span: with a batch ramp, tokens consumed before this phase, and tokens of it.
    """

    name: str
    weights: dict[str, float]
    first_step: int
    steps: int
    batch_tokens: int
    span: tuple[int, int] | None = None

    @property
    def first_token(self) -> int:
        """Tokens consumed before this phase."""
        return self.span[0] if self.span else self.first_step * self.batch_tokens

    @property
    def tokens(self) -> int:
        """Tokens consumed in this phase."""
        return self.span[1] if self.span else self.steps * self.batch_tokens

    def as_json(self) -> dict[str, Any]:
        """The phase as a JSON-able object."""
        record = asdict(self) | {"first_token": self.first_token}
        if record.pop("span"):
            record["tokens"] = self.tokens
        return record


def resolve_phases(
    phases: Sequence[PhaseConfig], schedule: Schedule, batches: Batches
) -> tuple[ResolvedPhase, ...]:
    """Fix the steps at which the blends change.

    A phase that ends at a number or a fraction of tokens ends with the first step that brings the
    consumed tokens there. One that ends at a fraction of the learning rate ends before the first
    step whose rate is at or below it.

    Args:
        phases: in order; all but the last say until when.
        schedule: the run's learning rate.
        batches: tokens of each optimiser step of the run.

    Raises:
        ConfigError: a phase is never reached, has no step, or has no end; all problems listed.
    """
    steps = batches.steps
    ends: list[int] = []
    problems: list[str] = []
    for index, phase in enumerate(phases):
        where = f"data.phases.{index} ({phase.name})"
        if index == len(phases) - 1:
            if phase.until is not None:
                problems.append(f"{where}: the last phase ends with the run; leave out until")
            ends.append(steps)
            continue
        if phase.until is None:
            problems.append(f"{where}: until is missing; only the last phase goes without")
            continue
        try:
            end = _end_step(phase.until, schedule, batches)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        before = ends[-1] if ends else 0
        if end <= before:
            problems.append(
                f"{where}: ends before step {end}, but begins with step {before}; it has no step"
            )
        elif end >= steps:
            problems.append(
                f"{where}: ends after {end} steps of {_sizes(batches)} tokens, but the run has "
                f"{steps}; the next phase is never reached"
            )
        ends.append(end)
    if problems:
        raise ConfigError("the data phases cannot be run", problems)
    starts = [0, *ends[:-1]]
    return tuple(
        ResolvedPhase(
            phase.name,
            _shares(phase.weights),
            start,
            end - start,
            batches.last,
            _span(batches, start, end) if batches.ramped else None,
        )
        for phase, start, end in zip(phases, starts, ends, strict=True)
    )


def _span(batches: Batches, start: int, end: int) -> tuple[int, int]:
    first = batches.before(start)
    return first, batches.before(end) - first


def _sizes(batches: Batches) -> str:
    return " or ".join(str(size) for size, _ in batches.stages)


def _end_step(until: UntilConfig, schedule: Schedule, batches: Batches) -> int:
    """The first step that belongs to the next phase."""
    if until.tokens is not None:
        return batches.steps_to(until.tokens)
    if until.fraction is not None:
        # A share of the run such as 0.7 is seldom exact in binary: do not let 1e-12 cost a step.
        return batches.steps_to(until.fraction * schedule.tokens, slack=1e-9)
    assert until.lr_fraction is not None  # the config has exactly one
    crossing = schedule.tokens_at_lr_fraction(until.lr_fraction)
    # A step has the rate at the tokens behind it; the closed form may be a rounding error off.
    step = max(0, batches.steps_to(crossing) - 1)
    limit = until.lr_fraction * schedule.lr

    def low(step: int) -> bool:
        return schedule.lr_at(batches.before(step + 1)) <= limit * (1 + 1e-12)

    while not low(step):
        step += 1
    while step > 0 and low(step - 1) and batches.before(step) >= schedule.warmup_tokens:
        step -= 1
    return step


def _shares(weights: dict[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
