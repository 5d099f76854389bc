"""The keyed permutation against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.data.permutation import permute


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@settings(max_examples=150, deadline=None)
def test_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_large_domains_stay_inside_and_distinct() -> None:
    size = 2**40 + 12345
    index = np.arange(size - 100_000, size)
    out = permute(index, size, 7)
    assert out.min() >= 0
    assert out.max() < size
    assert len(np.unique(out)) == len(index)


@given(st.integers(2, 80), st.integers(0, 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_each_index_alone_gives_the_same(size: int, key: int) -> None:
    together = permute(np.arange(size), size, key)
    assert [int(permute(np.array([i]), size, key)[0]) for i in range(size)] == list(together)


def test_shuffles_evenly() -> None:
    """Over many keys each index goes to each place about equally often (chi-squared)."""
    size, keys = 11, 2200
    seen = np.zeros((size, size))
    for key in range(keys):
        seen[np.arange(size), permute(np.arange(size), size, key * 7919)] += 1
    expected = keys / size
    # 121 cells with 100 degrees of freedom: the statistic is 100 +- 14.
    assert ((seen - expected) ** 2 / expected).sum() < 160


def test_neighbours_part() -> None:
    """Consecutive indices land apart as in a random shuffle, and other keys shuffle otherwise."""
    out = permute(np.arange(10_000), 10_000, 3)
    assert abs(np.corrcoef(np.arange(10_000), out)[0, 1]) < 0.05
    assert abs(np.abs(np.diff(out)).mean() - 10_000 / 3) < 200
    assert (permute(np.arange(10_000), 10_000, 4) == out).sum() < 20
