"""Ask and tell: halving keeps the best, a log told again brings an optimiser to the same place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.search.halving import Rung, SuccessiveHalving
from regrow.search.log import TrialLog
from regrow.search.optimiser import Outcome, Trial, search
from regrow.search.sampling import RandomSearch

RUNGS = (Rung(0), Rung(25, 0.5), Rung(50, 0.5), Rung(100))
VALUES = st.lists(
    st.lists(st.one_of(st.integers(0, 9).map(float), st.just(math.inf)), min_size=4, max_size=4),
    min_size=1,
    max_size=9,
)


def points(count: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(count)]


def worth(values: list[list[float]], trial: Trial) -> float:
    rung = [r.resource for r in RUNGS].index(trial.resource)
    return values[trial.point["n"]][rung]


def run(values: list[list[float]], log: TrialLog, die_after: int | None = None) -> Any:
    optimiser = SuccessiveHalving(points(len(values)), RUNGS)

    def evaluate(trials: list[Trial]) -> Iterator[Outcome]:
        for trial in reversed(trials):  # any order will do
            if die_after is not None and len(log) >= die_after:
                raise KeyboardInterrupt
            yield Outcome(trial, worth(values, trial), 1.0, {"rung": trial.resource})

    told = search(optimiser, log, evaluate)
    return optimiser, told


def by_hand(values: list[list[float]]) -> tuple[list[int], list[list[int]]]:
    """Who is left at the end, best first, and who was tried at each rung."""
    alive, tried = list(range(len(values))), []
    for number, rung in enumerate(RUNGS):
        tried.append(alive)
        order = sorted(alive, key=lambda n: (values[n][number], n))
        alive = sorted(order[: math.ceil(rung.keep * len(alive))])
        if len(alive) == 1 or number == len(RUNGS) - 1:
            return [n for n in order if n in alive], tried
    raise AssertionError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@given(VALUES)
def test_halving_keeps_the_best_of_each_rung(folder: Path, values: list[list[float]]) -> None:
    (folder / "a").unlink(missing_ok=True)
    optimiser, told = run(values, TrialLog(folder / "a"))
    left, tried = by_hand(values)
    for rung, wanted in zip(RUNGS, tried, strict=False):
        found = [o.trial.point["n"] for o in told if o.trial.resource == rung.resource]
        assert sorted(found) == wanted
    assert optimiser.standing()[0]["n"] == left[0]
    assert optimiser.done
    assert optimiser.ask() == []
    if math.isinf(optimiser.value({"n": left[0]})):
        with pytest.raises(ValueError, match="every point failed"):
            _ = optimiser.best
    else:
        assert optimiser.best == {"n": left[0]}


@given(VALUES, st.integers(0, 12))
def test_a_search_that_broke_off_goes_on(
    folder: Path, values: list[list[float]], after: int
) -> None:
    for name in "bc":
        (folder / name).unlink(missing_ok=True)
    whole, _ = run(values, TrialLog(folder / "b"))
    try:
        run(values, TrialLog(folder / "c"), die_after=after)
    except KeyboardInterrupt:
        assert len(TrialLog(folder / "c")) == after
    again, _ = run(values, TrialLog(folder / "c"))
    assert again.standing() == whole.standing()
    assert sorted(TrialLog(folder / "b")) == sorted(TrialLog(folder / "c"))


def test_nobody_is_dropped_before_the_first_rung_that_says_so() -> None:
    optimiser = SuccessiveHalving(points(4), RUNGS)
    for trial in optimiser.ask():
        optimiser.tell(Outcome(trial, -float(trial.point["n"])))
    assert len(optimiser.alive) == 4
    assert [t.resource for t in optimiser.ask(2)] == [25, 25]


def test_only_what_was_asked_for_can_be_told() -> None:
    optimiser = SuccessiveHalving(points(2), RUNGS)
    with pytest.raises(ValueError, match="was not asked for"):
        optimiser.tell(Outcome(Trial({"n": 0}, 25), 1.0))
    optimiser.tell(Outcome(Trial({"n": 0}, 0), 1.0))
    with pytest.raises(ValueError, match="was not asked for"):
        optimiser.tell(Outcome(Trial({"n": 0}, 0), 1.0))


@pytest.mark.parametrize(
    ("given_points", "rungs"),
    [([], RUNGS), ([{"n": 1}, {"n": 1}], RUNGS), ([{"n": 1}], ()), ([{"n": 1}], (Rung(2),) * 2)],
)
def test_impossible_searches_are_refused(given_points: Any, rungs: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        SuccessiveHalving(given_points, rungs)


class Digits:
    def draw(self, generator: np.random.Generator) -> Mapping[str, Any]:
        return {"digit": int(generator.integers(10))}


def test_random_search_draws_different_points_within_the_budget(tmp_path: Path) -> None:
    def evaluate(trials: list[Trial]) -> list[Outcome]:
        return [Outcome(t, abs(t.point["digit"] - 3), 1.0) for t in trials]

    made = []
    for name in "ab":
        optimiser = RandomSearch(Digits(), seed=1)
        told = search(optimiser, TrialLog(tmp_path / name), evaluate, budget=6, batch=2)
        made.append([o.trial.point["digit"] for o in told])
        assert optimiser.best is not None
        assert optimiser.best.value == min(o.value for o in told)
    assert made[0] == made[1]
    assert len(set(made[0])) == len(made[0]) == 6
    other = RandomSearch(Digits(), seed=2)
    assert len(search(other, TrialLog(tmp_path / "c"), evaluate)) == 10, "the space has no more"
    with pytest.raises(ValueError, match="was not asked for"):
        other.tell(Outcome(Trial({"digit": 3}), 0.0))


def test_an_evaluator_answers_for_what_it_was_asked(tmp_path: Path) -> None:
    optimiser = SuccessiveHalving(points(2), RUNGS)
    with pytest.raises(ValueError, match="no outcome for"):
        search(optimiser, TrialLog(tmp_path / "a"), lambda trials: [Outcome(trials[0], 1.0)])
    with pytest.raises(ValueError, match="not asked for"):
        search(
            SuccessiveHalving(points(2), RUNGS),
            TrialLog(tmp_path / "b"),
            lambda trials: [Outcome(Trial({"n": 7}), 1.0)],
        )
