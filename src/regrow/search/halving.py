"""Successive halving: everyone gets a little, the better half gets more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regrow.search.optimiser import Outcome, Point, Trial, point_key


@dataclass(frozen=True, slots=True)
class Rung:
    """One round.

    Args:
        resource: what each point has been given in all by its end.
        keep: share of the points that go on to the next round, rounded up; at least one does.
    """

    resource: int
    keep: float = 1.0


class SuccessiveHalving:
    """Tries all points at the first rung, and those that are kept at each next one.

    It ends after the last rung, or as soon as one point is left. Of equal values the point that
    stands earlier is kept.

    Args:
        points: all different, in the order that breaks ties.
        rungs: with growing resources.

    Raises:
        ValueError: no points, equal ones, or rungs that do not grow.

    Source: Jamieson and Talwalkar (arXiv 1502.07943), with rungs given by hand.
    """

    def __init__(self, points: Sequence[Point], rungs: Sequence[Rung]) -> None:
        self._order = {point_key(point): place for place, point in enumerate(points)}
        if not points or len(self._order) != len(points):
            raise ValueError(f"{len(points)} points must be at least one, and all different")
        resources = [rung.resource for rung in rungs]
        if not rungs or resources != sorted(set(resources)):
            raise ValueError(f"resources {resources} must grow from rung to rung")
        self.points, self.rungs = tuple(points), tuple(rungs)
        self.rung = 0
        self.alive: list[Point] = list(points)
        self._values: list[dict[str, float]] = [{} for _ in rungs]
        self._done = False

    def ask(self, count: int | None = None) -> list[Trial]:
        """The points of the present rung that it was not told of."""
        if self._done:
            return []
        resource, known = self.rungs[self.rung].resource, self._values[self.rung]
        waiting = [point for point in self.alive if point_key(point) not in known]
        return [Trial(point, resource) for point in waiting[:count]]

    def tell(self, outcome: Outcome) -> None:
        """The outcome of a point of the present rung.

        Raises:
            ValueError: it was not asked for.
        """
        if outcome.trial.key not in {trial.key for trial in self.ask()}:
            raise ValueError(f"{outcome.trial} was not asked for")
        self._values[self.rung][point_key(outcome.trial.point)] = outcome.value
        if len(self._values[self.rung]) == len(self.alive):
            self._advance()

    def _advance(self) -> None:
        count = max(1, math.ceil(self.rungs[self.rung].keep * len(self.alive)))
        kept = {point_key(point) for point in self._sorted(self.alive)[:count]}
        self.alive = [point for point in self.alive if point_key(point) in kept]
        if len(self.alive) == 1 or self.rung + 1 == len(self.rungs):
            self._done = True
        else:
            self.rung += 1

    def value(self, point: Point) -> float:
        """What the point was worth when it was last tried; infinity before that."""
        reached = self.reached(point)
        return math.inf if reached is None else self._values[reached][point_key(point)]

    def reached(self, point: Point) -> int | None:
        """The last rung of which the point's value is known; None before the first."""
        key = point_key(point)
        found = [rung for rung, values in enumerate(self._values) if key in values]
        return found[-1] if found else None

    def standing(self) -> list[Point]:
        """All points, best first: who came further, and of those the lower value."""
        return self._sorted(self.points)

    def _sorted(self, points: Sequence[Point]) -> list[Point]:
        def rank(point: Point) -> tuple[float, float, int]:
            reached = self.reached(point)
            return (
                math.inf if reached is None else -reached,
                self.value(point),
                self._order[point_key(point)],
            )

        return sorted(points, key=rank)

    @property
    def done(self) -> bool:
        """Whether there is nothing more to ask."""
        return self._done

    @property
    def best(self) -> Point:
        """The first of :meth:`standing`.

        Raises:
            ValueError: no point has a finite value at the rung that it reached.
        """
        first = self.standing()[0]
        if not math.isfinite(self.value(first)):
            raise ValueError("every point failed")
        return first
