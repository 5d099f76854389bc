"""Points drawn at random: what every other optimiser has to beat."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from regrow.core.seed import derive
from regrow.search.optimiser import Outcome, Point, Trial, point_key

_PATIENCE = 1000


class Space(Protocol):
    """Where points come from."""

    def draw(self, generator: np.random.Generator) -> Point:
        """One point."""


class RandomSearch:
    """Different points of a space, drawn one after the other.

    The n-th point follows from the seed and n alone.

    Args:
        space: to draw from.
        seed: of the draws.
        batch: trials at once, where :meth:`ask` is given no count.
    """

    def __init__(self, space: Space, seed: int, batch: int = 1) -> None:
        self._space, self._seed, self._batch = space, seed, batch
        self._drawn = 0
        self._seen: set[str] = set()
        self._waiting: dict[str, Trial] = {}
        self._best: Outcome | None = None

    def ask(self, count: int | None = None) -> list[Trial]:
        """As many new points; fewer once the space seems to have no more."""
        wanted = self._batch if count is None else count
        while len(self._waiting) < wanted and (trial := self._next()) is not None:
            self._waiting[trial.key] = trial
        return list(self._waiting.values())[:wanted]

    def _next(self) -> Trial | None:
        for _ in range(_PATIENCE):
            seed = derive(self._seed, "draw", self._drawn)
            self._drawn += 1
            point = self._space.draw(np.random.default_rng(seed))
            key = point_key(point)
            if key not in self._seen:
                self._seen.add(key)
                return Trial(point)
        return None

    def tell(self, outcome: Outcome) -> None:
        """What a point is worth.

        Raises:
            ValueError: it was not asked for.
        """
        if self._waiting.pop(outcome.trial.key, None) is None:
            raise ValueError(f"{outcome.trial} was not asked for")
        if self._best is None or outcome.value < self._best.value:
            self._best = outcome

    @property
    def best(self) -> Outcome | None:
        """The lowest value so far."""
        return self._best
