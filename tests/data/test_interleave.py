"""The interleave of sources against the weights it is to follow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.data.interleave import MAX_PERIOD, Interleave, integer_weights

weights_strategy = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.floats(0.001, 100, allow_nan=False),
    min_size=1,
    max_size=8,
)


def sources(interleave: Interleave, n: int) -> list[str]:
    index, _ = interleave.locate(np.arange(n))
    return [interleave.names[i] for i in index]


@given(weights_strategy, st.integers(1, 700))
@settings(max_examples=80, deadline=None)
def test_every_prefix_is_within_one_sample_of_the_weights(
    weights: dict[str, float], samples: int
) -> None:
    interleave = Interleave(weights, samples)
    total = sum(weights.values())
    counts: Counter[str] = Counter()
    for n, name in enumerate(sources(interleave, samples), 1):
        counts[name] += 1
        for source, weight in weights.items():
            assert abs(counts[source] - n * weight / total) < 1


@given(weights_strategy, st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_counts_and_occurrences_agree_with_counting(
    weights: dict[str, float], samples: int
) -> None:
    interleave = Interleave(weights, samples)
    index, occurrences = interleave.locate(np.arange(samples))
    counts: Counter[str] = Counter()
    for n in range(samples):
        if n % 37 == 0:
            assert interleave.counts(n) == {name: counts[name] for name in interleave.names}
        name = interleave.names[index[n]]
        assert occurrences[n] == counts[name]
        counts[name] += 1


def test_round_weights_repeat_with_their_period() -> None:
    interleave = Interleave({"a": 0.5, "b": 0.3, "c": 0.2}, 10_000)
    names = sources(interleave, 10_000)
    assert names == names[:10] * 1000
    assert Counter(names[:10]) == {"a": 5, "b": 3, "c": 2}
    # Far out it is found at once, and exactly.
    assert interleave.counts(10_000)["c"] == 2000


def test_order_of_names_and_scale_do_not_matter() -> None:
    first = Interleave({"a": 1, "b": 3, "c": 2}, 500)
    second = Interleave({"c": 4.0, "a": 2.0, "b": 6.0}, 500)
    assert sources(first, 500) == sources(second, 500)


def test_long_phases_with_uneven_weights_are_bounded_in_memory() -> None:
    weights = {"a": 0.3333333, "b": 0.1234567, "c": 1e-7}
    interleave = Interleave(weights, 10**9)
    assert len(interleave._order) == MAX_PERIOD
    counts = interleave.counts(10**9)
    assert sum(counts.values()) == 10**9
    assert counts["a"] / 10**9 == pytest.approx(0.3333333 / sum(weights.values()), abs=2e-5)
    assert counts["c"] > 0


def test_many_tiny_weights_still_sum_up() -> None:
    weights = {f"s{i}": 1e-9 for i in range(50)} | {"big": 1.2345678901}
    interleave = Interleave(weights, 10**7)
    assert sum(interleave.counts(10**7).values()) == 10**7


def test_integer_weights_are_exact_decimals() -> None:
    assert integer_weights({"x": 0.1, "y": 0.2, "z": 0.7}) == {"x": 1, "y": 2, "z": 7}


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_must_be_positive(bad: float) -> None:
    with pytest.raises(ConfigError, match="weight of 'b'"):
        Interleave({"a": 1.0, "b": bad}, 10)


def test_empty_weights() -> None:
    with pytest.raises(ConfigError, match="empty"):
        Interleave({}, 10)
