"""The n-gram model against a table kept in dicts, and against what a distribution must be."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.data.ngram_lm import NgramModel


class Naive:
    """The same model, one token at a time."""

    def __init__(self, sequences: Sequence[Sequence[int]], order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        self.counts: list[dict[tuple[int, ...], int]] = [defaultdict(int) for _ in range(order)]
        lefts: list[dict[tuple[int, ...], set[int]]] = [defaultdict(set) for _ in range(order)]
        for sequence in sequences:
            padded = [vocabulary] * (order - 1) + list(sequence)
            for end in range(order - 1, len(padded)):
                self.counts[-1][tuple(padded[end - order + 1 : end + 1])] += 1
                for k in range(1, order):
                    lefts[k - 1][tuple(padded[end - k + 1 : end + 1])].add(padded[end - k])
        for k in range(1, order):
            self.counts[k - 1] = {run: len(found) for run, found in lefts[k - 1].items()}

    def discounts(self, k: int) -> tuple[float, ...]:
        n = [sum(c == i for c in self.counts[k - 1].values()) for i in range(5)]
        if 0 in n[1:]:
            return (0.5, 1.0, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        return tuple(min(max(i - (i + 1) * y * n[i + 1] / n[i], 0.01), i) for i in (1, 2, 3))

    def chance(self, word: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = self.chance(word, context[1:]) if context else 1 / self.vocabulary
        followers = {r[-1]: c for r, c in self.counts[k - 1].items() if r[:-1] == context}
        total = sum(followers.values())
        if not total:
            return lower
        d = self.discounts(k)
        taken = sum(d[min(c, 3) - 1] for c in followers.values())
        count = followers.get(word, 0)
        own = count - d[min(count, 3) - 1] if count else 0.0
        return own / total + taken / total * lower

    def logs(self, sequence: Sequence[int]) -> list[float]:
        padded = [self.vocabulary] * (self.order - 1) + list(sequence)
        ends = range(self.order - 1, len(padded))
        return [
            math.log(self.chance(padded[e], tuple(padded[e - self.order + 1 : e]))) for e in ends
        ]


_SEQUENCES = st.lists(st.lists(st.integers(0, 4), max_size=25), min_size=1, max_size=4).filter(any)


@given(_SEQUENCES, _SEQUENCES, st.integers(1, 4), st.integers(5, 7))
@settings(max_examples=80, deadline=None)
def test_probabilities_equal_those_of_dicts(
    trained: list[list[int]], asked: list[list[int]], order: int, vocabulary: int
) -> None:
    model = NgramModel.fit(trained, order, vocabulary)
    naive = Naive(trained, order, vocabulary)
    expected = [naive.logs(one) for one in asked]
    found = model.log_probabilities(asked)
    np.testing.assert_allclose(found, [x for one in expected for x in one], rtol=1e-10)
    means = [-np.mean(one) if one else np.nan for one in expected]
    np.testing.assert_allclose(model.nats(asked), means, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose([model.nats_per_token(x) for x in asked], means, rtol=1e-10)


def test_discounts_from_counts_of_counts_enter() -> None:
    rng = np.random.default_rng(0)
    trained = [rng.zipf(1.6, 3000).clip(max=40).astype(np.int64) - 1]
    naive = Naive([trained[0].tolist()], 3, 40)
    assert all(naive.discounts(k) != (0.5, 1.0, 1.5) for k in (2, 3))
    asked = trained[0][:60].tolist()
    found = NgramModel.fit(trained, 3, 40).log_probabilities([asked])
    np.testing.assert_allclose(found, naive.logs(asked), rtol=1e-10)


@given(_SEQUENCES, st.lists(st.integers(0, 5), max_size=4), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_every_distribution_sums_to_one(
    trained: list[list[int]], context: list[int], order: int
) -> None:
    model = NgramModel.fit(trained, order, vocab_size=6)
    ends = [model.log_probabilities([[*context, word]])[-1] for word in range(6)]
    assert math.fsum(map(math.exp, ends)) == pytest.approx(1.0, abs=1e-12)
    assert all(map(math.isfinite, ends))


def test_order_decides_what_is_remembered() -> None:
    rng = np.random.default_rng(1)
    # The next token is the sum of the two before: only a model that sees both knows it.
    stream = [1, 2]
    for _ in range(4000):
        stream.append(int(rng.integers(7)) if rng.random() < 0.1 else (stream[-1] + stream[-2]) % 7)
    train, test = stream[:3000], stream[3000:]
    losses = [NgramModel.fit([train], order).nats_per_token(test) for order in (1, 2, 3, 4)]
    floor = -(0.9 + 0.1 / 7) * math.log(0.9 + 0.1 / 7) - 0.6 / 7 * math.log(0.1 / 7)
    assert losses[0] == pytest.approx(math.log(7), abs=0.02)
    assert losses[1] == pytest.approx(math.log(7), abs=0.1)
    assert floor < losses[2] < floor + 0.1
    assert losses[2] < losses[3] < losses[2] + 0.3


def test_sequences_do_not_touch() -> None:
    model = NgramModel.fit([[0, 1], [2, 3]], 2)
    apart, joined = model.nats_per_token([2, 3]), NgramModel.fit([[0, 1, 2, 3]], 2)
    assert model.log_probabilities([[1, 2]])[1] < joined.log_probabilities([[1, 2]])[1]
    both = model.log_probabilities([[0, 1], [], [2, 3]])
    np.testing.assert_allclose(-both[2:].mean(), apart)
    np.testing.assert_array_equal(both[:2], model.log_probabilities([[0, 1]]))


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    model = NgramModel.fit([list(range(9)) * 4], 3, 20)
    model.save(tmp_path / "model.safetensors")
    again = NgramModel.load(tmp_path / "model.safetensors")
    asked = [[3, 4, 5, 19, 0]]
    np.testing.assert_array_equal(again.log_probabilities(asked), model.log_probabilities(asked))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="broken"):
        NgramModel.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("sequences", "order", "vocabulary"),
    [([], 2, 5), ([[]], 2, 5), ([[5]], 2, 5), ([[-1]], 2, 5), ([[1]], 0, 5), ([[1]], 9, 5)],
)
def test_impossible_arguments(sequences: list[list[int]], order: int, vocabulary: int) -> None:
    with pytest.raises(ValueError, match=r"token|ids|order"):
        NgramModel.fit(sequences, order, vocabulary)
    with pytest.raises(ValueError, match="ids"):
        NgramModel.fit([[1]], 2, 5).log_probabilities([[7]])


def test_any_order_of_sequences_gives_the_same_model() -> None:
    parts = [[0, 1, 2, 1, 2], [2, 2, 1], [3, 1, 0, 1]]
    asked = [[1, 2, 1, 0, 3]]
    found = {
        tuple(NgramModel.fit(some, 3).log_probabilities(asked).tolist())
        for some in itertools.permutations(parts)
    }
    assert len(found) == 1


def test_no_sequences_have_no_figures() -> None:
    model = NgramModel.fit([[1, 2, 3]], 3, 5)
    assert model.nats([]).shape == (0,)
    assert np.isnan(model.nats([[]])).tolist() == [True]
