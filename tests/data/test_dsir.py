"""Hashed n-grams and importance weights, against the formulas written out."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gumbel_r, kstest

from regrow.data import dsir

_TEXTS = [
    "The quick brown fox jumps over the lazy dog, twice... (or thrice?)",
    "",
    " \n\t ",
    "one",
    "x_1 = foo.bar(baz)  # naïve café — déjà vu; İstanbul, ΟΔΥΣΣΕΥΣ.",
    "全角　space \U0001d4b3\U0001d4b4 हिन्दी ❤️ \x1cseparated\u00a0words",
    "the the the the",
    "a  b\na b",
]


def plain_ngrams(text: str) -> list[str]:
    """Unigrams and bigrams, one at a time."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def plain_bucket(ngram: str) -> int:
    return int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % 10_000


def plain_counts(text: str) -> np.ndarray:
    counts = np.zeros(10_000, np.int64)
    for ngram in plain_ngrams(text):
        counts[plain_bucket(ngram)] += 1
    return counts


def own(features: dsir.Features, row: int) -> np.ndarray:
    return features.buckets[features.first[row] : features.first[row + 1]]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_buckets_are_those_of_the_plain_loop(texts: list[str]) -> None:
    texts = [*texts, *_TEXTS]
    hasher = dsir.Hasher()
    for _ in range(2):  # the second time from memory
        features = hasher.features(texts)
        for row, text in enumerate(texts):
            expected = plain_counts(text)
            assert (np.bincount(own(features, row), minlength=10_000) == expected).all()
            assert features.tokens[row] == len(re.findall(r"\w+|[^\w\s]+", text.lower()))
        assert (features.counts() == sum(map(plain_counts, texts))).all()


def test_buckets_do_not_depend_on_what_was_hashed_before() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.integers(0, 3000, 200).astype(str)) for _ in range(60)]
    together = dsir.Hasher().features(texts)
    hasher = dsir.Hasher()
    for row in rng.permutation(60).tolist():
        assert (hasher.features([texts[row]]).buckets == own(together, row)).all()
    assert len(dsir.Hasher().features([]).first) == 1


def test_an_evicted_ngram_is_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsir, "_SLOT_BITS", 3)  # eight slots: almost everything is evicted
    hasher = dsir.Hasher()
    for _ in range(3):
        features = hasher.features(_TEXTS)
        assert (features.counts() == sum(map(plain_counts, _TEXTS))).all()


def test_log_weights_are_the_sum_over_ngrams() -> None:
    target = plain_counts(" ".join(_TEXTS[:1] * 3 + _TEXTS[6:]))
    raw = sum(map(plain_counts, _TEXTS))
    ratio = dsir.log_ratio(target, raw)
    q, p = target / target.sum(), raw / raw.sum()
    features = dsir.Hasher().features(_TEXTS)
    for row, text in enumerate(_TEXTS):
        buckets = [plain_bucket(ngram) for ngram in plain_ngrams(text)]
        expected = sum(np.log(q[b] + 1e-8) - np.log(p[b] + 1e-8) for b in buckets)
        assert dsir.log_weight(own(features, row), ratio) == pytest.approx(expected, abs=1e-9)
    smoothed = dsir.log_ratio(target, raw, laplace=0.5)
    q = (target + 0.5) / (target.sum() + 5000)
    np.testing.assert_allclose(smoothed, np.log(q + 1e-8) - np.log(p + 1e-8))


@pytest.mark.parametrize("laplace", [0.0, 0.3])
def test_a_text_of_the_target_is_compared_with_the_rest(laplace: float) -> None:
    raw = sum(map(plain_counts, _TEXTS))
    target = plain_counts(_TEXTS[0]) + plain_counts(_TEXTS[4])
    buckets = dsir.Hasher().features([_TEXTS[0]]).buckets
    without = dsir.log_ratio(plain_counts(_TEXTS[4]), raw, laplace)
    found = dsir.own_log_weight(buckets, target, raw, laplace)
    assert found == pytest.approx(dsir.log_weight(buckets, without), abs=1e-9)
    assert found < dsir.log_weight(buckets, dsir.log_ratio(target, raw, laplace))


def test_noise_is_gumbel_and_belongs_to_the_id() -> None:
    ids = [f"{number:032x}" for number in range(4000)]
    noise = dsir.gumbel(dsir.uniforms(ids, 7))
    assert kstest(noise, gumbel_r.cdf).pvalue > 0.01
    assert (dsir.gumbel(dsir.uniforms(ids[::-1], 7))[::-1] == noise).all()
    assert kstest(dsir.gumbel(dsir.uniforms(ids, 8)), gumbel_r.cdf).pvalue > 0.01
    assert not (dsir.uniforms(ids, 8) == dsir.uniforms(ids, 7)).any()


def test_draws_are_in_proportion_to_the_weights() -> None:
    """One draw of three: a closed form."""
    weights = np.array([0.5, 0.3, 0.2])
    times = np.zeros(3)
    for seed in range(4000):
        keys = np.log(weights) + dsir.gumbel(dsir.uniforms(["a", "b", "c"], seed))
        times[keys.argmax()] += 1
    assert np.abs(times / 4000 - weights).max() < 4 * np.sqrt(0.25 / 4000)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]),
)
def test_cuts_choose_the_highest_of_each_group(rows: list[tuple[int, int]], share: float) -> None:
    keys = np.array([key for key, _ in rows], float)
    groups = np.array([group for _, group in rows])
    ties = (np.random.default_rng(0).permutation(len(rows)) + 0.5) / len(rows)
    cut = dsir.cuts(keys, ties, groups, share, 4)[groups]
    chosen = (keys > cut[:, 0]) | ((keys == cut[:, 0]) & (ties >= cut[:, 1]))
    assert chosen.sum() == int(np.floor(share * len(rows) + 0.5))
    for group in set(groups.tolist()):
        inside = groups == group
        assert abs(chosen[inside].sum() - share * inside.sum()) <= 1
        pairs = sorted(zip(keys[inside], ties[inside], chosen[inside], strict=True), reverse=True)
        flags = [flag for *_, flag in pairs]
        assert flags == sorted(flags, reverse=True)
