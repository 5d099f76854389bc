"""Rank correlations against scipy's."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.search.ranks import flips, kendall, ranks, spearman

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=0, max_size=20)


def same(ours: float | None, theirs: float) -> bool:
    return math.isnan(theirs) if ours is None else math.isclose(ours, theirs, abs_tol=1e-9)


@given(PAIRS)
def test_the_same_as_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    assert ranks(a).tolist() == stats.rankdata(a).tolist()
    if len(pairs) < 2:
        assert spearman(a, b) is None
        assert kendall(a, b) is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where we say None
        assert same(spearman(a, b), stats.spearmanr(a, b).statistic)
        assert same(kendall(a, b), stats.kendalltau(a, b).statistic)


def test_failed_trials_rank_last() -> None:
    assert ranks([2.0, math.inf, 1.0]).tolist() == [2, 3, 1]
    assert kendall([1, 2, 3], [1, 2, math.inf]) == 1.0


@given(PAIRS)
def test_flips_are_the_pairs_that_kendall_counts_against(pairs: list[tuple[int, int]]) -> None:
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    found = flips(a, b)
    assert len(set(found)) == len(found)
    assert all(a[i] < a[j] and b[i] > b[j] for i, j in found)
    against = [(i, j) for i in range(len(a)) for j in range(i) if (a[i] - a[j]) * (b[i] - b[j]) < 0]
    assert {frozenset(pair) for pair in found} == {frozenset(pair) for pair in against}
