"""How large the batch of each optimiser step is: always the same, or rising in stages.

Everything that counts steps asks here, so a ramp changes nothing but the numbers: schedules and
phases are functions of consumed tokens, and sample k is the same whatever step it falls into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batches:
    """Sizes of all global batches of a run, in tokens or in samples.

    Args:
        stages: size of a batch and how many steps have it, in order; the last is what the run
            stays with, and goes on beyond its steps when a place behind the end is asked for.
    """

    stages: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, total: int, last: int, ramp: Sequence[tuple[int, int]] = ()) -> Batches:
        """As many whole batches as ``total`` has room for.

        A stage of the ramp ends with the first step that brings what was consumed to the end of
        its part, and the next part begins where it was meant to begin: overshoots do not add up.

        Args:
            total: tokens of the run, rounded down to whole steps.
            last: size of the batches behind the ramp.
            ramp: size of a batch and tokens that are consumed with it, in order.

        Raises:
            ValueError: a stage has no step, or nothing is left for the batches behind the ramp.
        """
        stages: list[tuple[int, int]] = []
        consumed = meant = 0
        for size, tokens in ramp:
            meant += tokens
            steps = math.ceil((meant - consumed) / size)
            if steps < 1:
                raise ValueError(
                    f"{tokens} tokens in batches of {size} have no step: "
                    f"the stage before already ends at {consumed}"
                )
            stages.append((size, steps))
            consumed += size * steps
        steps = (total - consumed) // last
        if steps < 1:
            raise ValueError(
                f"the ramp takes {consumed} of {total} tokens and leaves no step of {last}"
            )
        return cls((*stages, (last, steps)))

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return sum(steps for _, steps in self.stages)

    @property
    def total(self) -> int:
        """What all steps consume."""
        return sum(size * steps for size, steps in self.stages)

    @property
    def last(self) -> int:
        """Size of the batches that the run ends with."""
        return self.stages[-1][0]

    @property
    def ramped(self) -> bool:
        """Whether the size changes at all."""
        return len(self.stages) > 1

    def before(self, step: int) -> int:
        """Consumed before ``step``, counted from 0."""
        consumed = 0
        for size, steps in self.stages[:-1]:
            if step <= steps:
                return consumed + size * step
            consumed, step = consumed + size * steps, step - steps
        return consumed + self.last * step

    def size(self, step: int) -> int:
        """The batch of ``step``, counted from 0."""
        for size, steps in self.stages[:-1]:
            if step < steps:
                return size
            step -= steps
        return self.last

    def steps_to(self, amount: float, slack: float = 0.0) -> int:
        """The fewest steps that consume at least ``amount``.

        Args:
            amount: tokens or samples, like the sizes.
            slack: a part of a step that may be missing, for amounts that carry a rounding error.
        """
        first, consumed, found = 0, 0, self.last
        for size, steps in self.stages[:-1]:
            if amount <= consumed + size * (steps + slack):
                found = size
                break
            first, consumed = first + steps, consumed + size * steps
        return first + math.ceil((amount - consumed) / found - slack)
