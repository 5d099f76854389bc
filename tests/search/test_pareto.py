"""The front against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.search.pareto import front

NUMBER = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False), st.just(math.inf))


@st.composite
def tables(draw: st.DrawFn) -> list[list[float]]:
    figures = draw(st.integers(1, 4))
    row = st.lists(NUMBER, min_size=figures, max_size=figures)
    return draw(st.lists(row, min_size=1, max_size=30))


def dominates(a: list[float], b: list[float]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


@given(tables())
def test_the_front_is_what_nothing_dominates(rows: list[list[float]]) -> None:
    wanted = [not any(dominates(other, row) for other in rows) for row in rows]
    assert front(rows).tolist() == wanted
    assert any(wanted)


def test_a_known_front() -> None:
    table = [(1, 9), (3, 3), (9, 1), (4, 4), (3, 3), (3, 5)]
    assert front(table).tolist() == [True, True, True, False, True, False]


def test_one_figure_leaves_the_lowest() -> None:
    assert front([[2.0], [1.0], [1.0]]).tolist() == [False, True, True]


def test_no_points_have_no_front() -> None:
    assert front(np.empty((0, 3))).tolist() == []


@pytest.mark.parametrize("values", [[[math.nan, 1.0]], [1.0, 2.0]])
def test_what_has_no_order_is_refused(values: list[list[float]] | list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        front(values)
