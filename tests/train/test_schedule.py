from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.train.batches import Batches
from regrow.train.config import PhaseConfig, UntilConfig
from regrow.train.phases import resolve_phases
from regrow.train.schedule import Schedule, ScheduleName

NAMES: tuple[ScheduleName, ...] = ("cosine", "linear", "wsd")


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.5, 0.5032), (0.2, 0.7113), (0.1, 0.8050), (0.02, 0.9359)]
)
def test_cosine_reaches_the_published_fractions(fraction: float, expected: float) -> None:
    schedule = Schedule("cosine", 4.5e-5, 300_000_000_000, min_ratio=0.01)
    assert schedule.tokens_at_lr_fraction(fraction) / 3e11 == pytest.approx(expected, abs=5e-5)


def test_recipe_switch_of_300_billion_tokens() -> None:
    batch = 1152 * 4096
    steps = 300_000_000_000 // batch
    schedule = Schedule("cosine", 4.5e-5, steps * batch, min_ratio=0.01)
    phases = (
        PhaseConfig(name="gb", weights={"a": 1.0}, until=UntilConfig(lr_fraction=0.2)),
        PhaseConfig(name="qb", weights={"b": 1.0}),
    )
    resolved = resolve_phases(phases, schedule, Batches(((batch, steps),)))
    assert steps == 63_578
    assert resolved[1].first_token == pytest.approx(213.4e9, rel=1e-3)
    assert resolved[1].first_token + resolved[1].steps * batch == steps * batch


def test_cosine_by_hand() -> None:
    schedule = Schedule("cosine", 1.0, 1000, min_ratio=0.1, warmup_tokens=100)
    assert schedule.lr_at(50) == 0.5
    assert schedule.lr_at(100) == 1.0
    assert schedule.lr_at(550) == pytest.approx(0.55)
    assert schedule.lr_at(325) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.lr_at(1000) == schedule.lr_at(2000) == 0.1


def test_wsd_by_hand() -> None:
    schedule = Schedule("wsd", 2.0, 1000, min_ratio=0.0, warmup_tokens=100, decay_fraction=0.2)
    assert [schedule.lr_at(t) for t in (100, 500, 800)] == [2.0, 2.0, 2.0]
    assert schedule.lr_at(900) == pytest.approx(1.0)
    assert schedule.lr_at(1000) == 0.0


def test_linear_and_constant_by_hand() -> None:
    linear = Schedule("linear", 1.0, 1000, min_ratio=0.2)
    assert linear.lr_at(500) == pytest.approx(0.6)
    constant = Schedule("constant", 1.0, 1000, warmup_tokens=10)
    assert constant.lr_at(999) == constant.min_lr == 1.0


@given(
    name=st.sampled_from(NAMES),
    tokens=st.integers(100, 10_000),
    ratio=st.floats(0, 0.5),
    warmup=st.integers(0, 50),
)
def test_rates_rise_then_fall_within_bounds(
    name: ScheduleName, tokens: int, ratio: float, warmup: int
) -> None:
    schedule = Schedule(name, 3e-3, tokens, ratio, warmup)
    rates = [schedule.lr_at(t) for t in range(1, tokens + 1)]
    rising, falling = rates[: max(0, warmup - 1)], rates[max(0, warmup - 1) :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert rates[-1] == pytest.approx(schedule.min_lr)
    assert max(rates) <= schedule.lr


@given(
    name=st.sampled_from(NAMES),
    fraction=st.floats(0.05, 0.95),
    ratio=st.floats(0, 0.05),
    steps=st.integers(30, 400),
    warmup=st.integers(0, 8),
    batch=st.integers(1, 9000),
)
def test_switch_is_the_first_step_at_or_below_the_fraction(
    name: ScheduleName, fraction: float, ratio: float, steps: int, warmup: int, batch: int
) -> None:
    schedule = Schedule(name, 1e-3, steps * batch, ratio, warmup * batch)
    rates = [schedule.lr_at((s + 1) * batch) for s in range(steps)]
    limit = fraction * 1e-3 * (1 + 1e-12)
    brute = next(s for s, rate in enumerate(rates) if rate <= limit and s >= warmup)
    until = UntilConfig(lr_fraction=fraction)
    phases = (
        PhaseConfig(name="a", weights={"x": 1.0}, until=until),
        PhaseConfig(name="b", weights={"x": 1.0}),
    )
    resolved = resolve_phases(phases, schedule, Batches(((batch, steps),)))
    assert resolved[1].first_step == brute


def _phases(*untils: UntilConfig | None) -> tuple[PhaseConfig, ...]:
    return tuple(
        PhaseConfig(name=f"p{i}", weights={"x": 2.0, "y": 6.0}, until=until)
        for i, until in enumerate(untils)
    )


def test_phases_end_on_step_boundaries() -> None:
    schedule = Schedule("constant", 1.0, 1000)
    phases = _phases(UntilConfig(tokens=101), UntilConfig(fraction=0.7), None)
    resolved = resolve_phases(phases, schedule, Batches(((100, 10),)))
    assert [(p.first_step, p.steps) for p in resolved] == [(0, 2), (2, 5), (7, 3)]
    assert resolved[1].first_token == 200
    assert resolved[0].weights == {"x": 0.25, "y": 0.75}


@pytest.mark.parametrize(
    ("untils", "schedule", "message"),
    [
        ((UntilConfig(tokens=1000), None), "cosine", "never reached"),
        ((UntilConfig(tokens=500), UntilConfig(tokens=500), None), "cosine", "has no step"),
        ((UntilConfig(tokens=800), UntilConfig(fraction=0.3), None), "cosine", "has no step"),
        ((UntilConfig(lr_fraction=0.05), None), "cosine", "ends at min_ratio 0.1"),
        ((UntilConfig(lr_fraction=0.5), None), "constant", "never reached on a constant"),
        ((None, None), "cosine", "until is missing"),
        ((UntilConfig(tokens=500), UntilConfig(fraction=0.9)), "cosine", "last phase"),
    ],
)
def test_impossible_phases_are_refused(
    untils: tuple[UntilConfig | None, ...], schedule: ScheduleName, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_phases(_phases(*untils), Schedule(schedule, 1.0, 1000, 0.1), Batches(((100, 10),)))


def test_all_problems_of_phases_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_phases(
            _phases(None, None, UntilConfig(tokens=5)),
            Schedule("cosine", 1, 10),
            Batches(((1, 10),)),
        )
    assert len(caught.value.problems) == 3
