"""The n-grams against dictionaries and loops."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.eval.ngram import NGram


def brute_em(sharp: list[float], broad: list[float]) -> float:
    """Expectation-maximisation of one weight, pair by pair."""
    weight = 0.5
    for _ in range(100):
        shares = [
            weight * s / (weight * s + (1 - weight) * b) for s, b in zip(sharp, broad, strict=True)
        ]
        updated = sum(shares) / len(shares)
        if abs(updated - weight) < 1e-9:
            return updated
        weight = updated
    return weight


def bucket(seen: int) -> int:
    return 0 if not seen else 1 + int(math.log2(seen))


class Brute:
    """The same model from dictionaries."""

    def __init__(self, pairs: list[tuple[int, int]], vocab: int, held_back: float = 0.1) -> None:
        cut = len(pairs) - min(len(pairs) - 1, max(1, round(held_back * len(pairs))))
        first, rest = pairs[:cut], pairs[cut:]
        targets, contexts = Counter(w for _, w in first), Counter(v for v, _ in first)
        bigrams = Counter(first)
        shares = [targets[w] / cut for _, w in rest]
        u = max(1 - brute_em(shares, [1 / vocab] * len(rest)), 1 / (cut + 1))
        backoff = [(1 - u) * s + u / vocab for s in shares]
        known = max(bucket(c) for c in contexts.values())
        self.weights, last = {0: 0.0}, 0.0
        for b in range(1, known + 2):
            rows = [i for i, (v, _) in enumerate(rest) if bucket(contexts[v]) == b]
            if rows:
                sharp = [bigrams[rest[i]] / contexts[rest[i][0]] for i in rows]
                last = min(brute_em(sharp, [backoff[i] for i in rows]), 1 - 1e-6)
            self.weights[b] = last
        self.top = known + 1
        self.targets, self.contexts = Counter(w for _, w in pairs), Counter(v for v, _ in pairs)
        self.bigrams, self.total, self.vocab, self.u = Counter(pairs), len(pairs), vocab, u

    def unigram(self, w: int) -> float:
        return (1 - self.u) * self.targets[w] / self.total + self.u / self.vocab

    def bigram(self, v: int, w: int) -> float:
        weight = self.weights[min(bucket(self.contexts[v]), self.top)]
        share = self.bigrams[v, w] / self.contexts[v] if self.contexts[v] else 0.0
        return weight * share + (1 - weight) * self.unigram(w)


pairs_of = st.integers(2, 12).flatmap(
    lambda vocab: st.tuples(
        st.just(vocab),
        st.lists(
            st.tuples(st.integers(0, vocab - 1), st.integers(0, vocab - 1)),
            min_size=2,
            max_size=80,
        ),
    )
)


@settings(max_examples=150, deadline=None)
@given(pairs_of)
def test_equals_dictionaries_and_sums_to_one(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    vocab, pairs = drawn
    contexts, targets = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    model, brute = NGram.fit(contexts, targets, vocab), Brute(pairs, vocab)
    every = np.arange(vocab)
    unigram = np.exp(model.log_unigram(every))
    assert unigram.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(unigram, [brute.unigram(w) for w in range(vocab)], rtol=1e-6)
    for v in range(vocab):
        found = np.exp(model.log_bigram(np.full(vocab, v), every))
        assert found.sum() == pytest.approx(1.0)
        assert (found > 0).all()
        np.testing.assert_allclose(found, [brute.bigram(v, w) for w in range(vocab)], rtol=1e-6)


def test_each_order_explains_more_of_a_markov_chain() -> None:
    draw = np.random.default_rng(0)
    table = draw.dirichlet(np.full(40, 0.1), size=40)
    chain = [0]
    for _ in range(30_000):
        chain.append(int(np.searchsorted(table[chain[-1]].cumsum(), draw.random() * 0.999999)))
    ids = np.array(chain)
    train, test = ids[:25_000], ids[25_000:]
    model = NGram.fit(train[:-1], train[1:], 40)
    entropy = -np.mean(np.log(table[test[:-1], test[1:]]))
    bigram = -model.log_bigram(test[:-1], test[1:]).mean()
    unigram = -model.log_unigram(test[1:]).mean()
    assert entropy <= bigram < entropy + 0.05
    assert bigram < unigram - 0.5


def test_large_vocabulary_and_many_tokens_are_quick() -> None:
    draw = np.random.default_rng(0)
    ids = np.minimum(draw.zipf(1.3, 2_000_000), 4096) - 1
    began = time.process_time()
    NGram.fit(ids[:-1], ids[1:], 4096).log_bigram(ids[:100_000], ids[1:100_001])
    assert time.process_time() - began < 5
    wide = draw.integers(0, 131_072, 200_000)
    model = NGram.fit(wide[:-1], wide[1:], 131_072)
    assert np.isfinite(model.log_bigram(wide[:1000], wide[1:1001])).all()


def test_too_little_text_is_refused() -> None:
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match="two pairs"):
        NGram.fit(one, one, 5)
    with pytest.raises(ValueError, match="as many contexts"):
        NGram.fit(np.zeros(3, dtype=np.int64), np.zeros(4, dtype=np.int64), 5)
