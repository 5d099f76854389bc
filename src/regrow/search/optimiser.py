"""Ask what to try, tell what came of it; every outcome is in the log before the next question."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from regrow.search.log import TrialLog

Point = Mapping[str, Any]


def point_key(point: Point) -> str:
    """One text for a point, whatever the order of its entries."""
    return json.dumps(point, sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """Something to try.

    Args:
        point: where in the space; a JSON-able object.
        resource: how much may be put into it (training steps, simulator calls); the same point
            with more is another trial.
    """

    point: Point
    resource: int = 1

    @property
    def key(self) -> str:
        """The same for equal trials, and only for them."""
        return f"{self.resource}:{point_key(self.point)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Args:
        trial: which one.
        value: what is minimised; infinity where the trial failed.
        cost: what it took from the budget.
        figures: whatever else was found; JSON-able.
    """

    trial: Trial
    value: float
    cost: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether nothing came of it."""
        return not math.isfinite(self.value)

    def as_json(self) -> dict[str, Any]:
        """The record of the log; a failure has the value null."""
        return {
            "point": dict(self.trial.point),
            "resource": self.trial.resource,
            "value": None if self.failed else self.value,
            "cost": self.cost,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        """The inverse of :meth:`as_json`."""
        value = math.inf if record["value"] is None else float(record["value"])
        trial = Trial(record["point"], int(record["resource"]))
        return cls(trial, value, float(record["cost"]), record["figures"])


class Optimiser(Protocol):
    """Chooses trials by the outcomes of earlier ones; see :mod:`regrow.search`."""

    def ask(self, count: int | None = None) -> list[Trial]:
        """The next trials, at most ``count``, independent of each other; none when it is done."""

    def tell(self, outcome: Outcome) -> None:
        """What came of a trial that was asked for.

        Raises:
            ValueError: it was not.
        """


Evaluate = Callable[[list[Trial]], Iterable[Outcome]]


def search(
    optimiser: Optimiser,
    log: TrialLog,
    evaluate: Evaluate,
    budget: float = math.inf,
    batch: int | None = None,
) -> list[Outcome]:
    """Go on until the optimiser is done or the budget is spent.

    What the log holds already is told, not tried again, so a search that was killed goes on where
    it was. What is asked for within the budget is tried even if it ends above it.

    Args:
        optimiser: newly made; it has been told nothing.
        log: of this search; it may hold trials of other searches, which are passed over.
        evaluate: tries each of a batch, yielding outcomes as they come, in any order.
        budget: asks no more once the costs reach it.
        batch: trials to ask for at once; by default as many as the optimiser has.

    Returns:
        The outcomes that the optimiser was told, in the order of telling.

    Raises:
        ValueError: ``evaluate`` left out a trial, or invented one.
    """
    told: list[Outcome] = []
    while sum(outcome.cost for outcome in told) < budget:
        asked = optimiser.ask(batch)
        if not asked:
            break
        waiting: dict[str, Trial] = {}
        for trial in asked:
            record = log.get(trial.key)
            if record is None:
                waiting[trial.key] = trial
            else:
                told.append(Outcome.from_json(record))
                optimiser.tell(told[-1])
        for outcome in evaluate(list(waiting.values())) if waiting else ():
            if waiting.pop(outcome.trial.key, None) is None:
                raise ValueError(f"the outcome of a trial that was not asked for: {outcome.trial}")
            log.append(outcome.trial.key, outcome.as_json())
            told.append(outcome)
            optimiser.tell(outcome)
        if waiting:
            raise ValueError(f"no outcome for {next(iter(waiting))}")
    return told
