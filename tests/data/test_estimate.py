"""Shares with intervals: against closed forms and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from regrow.data import estimate


@given(st.integers(1, 400), st.data())
def test_single_documents_give_wilsons_interval(number: int, data: st.DataObject) -> None:
    stay = data.draw(st.integers(0, number))
    parts = np.array([1.0] * stay + [0.0] * (number - stay))
    found = estimate.ratio(parts, np.ones(number), np.arange(number), 1e-12, estimate.width(1))
    true = binomtest(stay, number).proportion_ci(0.95, method="wilson")
    assert found.value == pytest.approx(stay / number)
    assert (found.low, found.high) == pytest.approx((true.low, true.high), abs=1e-6)


def test_several_intervals_are_wider_so_that_all_hold() -> None:
    assert estimate.width(1) == pytest.approx(norm.isf(0.025))
    assert estimate.width(40) == pytest.approx(norm.isf(0.025 / 40))


def test_the_whole_needs_no_interval() -> None:
    found = estimate.ratio(np.array([1.0, 0, 1]), np.ones(3), np.arange(3), 1.0, 3.0)
    assert found.low == found.value == found.high == pytest.approx(2 / 3)


def test_documents_drawn_together_count_as_one() -> None:
    together = np.repeat(np.arange(25), 4)
    same = np.repeat([1.0, 0.0, 1.0, 1.0, 1.0] * 5, 4)
    alone = estimate.ratio(same, np.ones(100), np.arange(100), 0.01, 2.0)
    grouped = estimate.ratio(same, np.ones(100), together, 0.01, 2.0)
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 1.7 * (alone.high - alone.low)
    # Also where none of a sample goes: 25 groups are no 100 documents.
    every = estimate.ratio(np.ones(100), np.ones(100), together, 0.01, 2.0)
    assert every.high == 1
    assert every.low == pytest.approx(25 / (25 + 4 * 0.99), abs=1e-3)


@pytest.mark.parametrize("drawn", [0.05, 0.4])
def test_intervals_hold_as_often_as_they_promise(drawn: float) -> None:
    rng = np.random.default_rng(7)
    sizes = np.minimum(30, rng.pareto(1.5, 2000).astype(int) + 1)
    groups = np.repeat(np.arange(2000), sizes)
    rate = rng.beta(4, 2, 2000)[groups]  # members of a group share their fate in part
    stays = (rng.random(len(groups)) < rate).astype(float)
    true = stays.mean()
    held = 0
    for _ in range(400):
        chosen = (rng.random(2000) < drawn)[groups]
        found = estimate.ratio(
            stays[chosen], np.ones(chosen.sum()), groups[chosen], drawn, estimate.width(1)
        )
        held += found.low <= true <= found.high
    assert held >= 0.93 * 400


def test_counts_are_rounded_outwards() -> None:
    assert estimate.Estimate(10.6, 9.2, 11.3).as_counts() == {"estimate": 11, "low": 9, "high": 12}
    shifted = estimate.Estimate(0.5, 0.25, 0.75).scaled(100).plus(0, 5, 10)
    assert (shifted.low, shifted.value, shifted.high) == (25, 55, 85)


def test_time_lies_on_the_line_through_both_sizes() -> None:
    # Half a second to start, then 2 s for a million bytes.
    assert estimate.line((1e5, 0.7), (4e5, 1.3), 1e7) == pytest.approx(20.5)
    assert estimate.line((0, 0), (4e5, 2.0), 1e6) == pytest.approx(5)
    assert estimate.line((1e5, 1.0), (4e5, 0.8), 1e7) == pytest.approx(0.8)
