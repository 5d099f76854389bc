"""Unigram and interpolated bigram: what counting alone knows of the next token.

A neural model that is not clearly below these has learnt nothing that a table does not hold.

Legend: N training pairs, P distinct pairs, V vocabulary, v context (the token before), w target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

_EM_ROUNDS = 100
_EM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of targets, of contexts, and of the pairs that occur."""

    targets: Ids
    contexts: Ids
    keys: Ids
    pairs: Ids

    @classmethod
    def of(cls, contexts: Ids, targets: Ids, vocab_size: int) -> _Counts:
        keys, pairs = np.unique(contexts * vocab_size + targets, return_counts=True)
        return cls(
            np.bincount(targets, minlength=vocab_size).astype(np.int64),
            np.bincount(contexts, minlength=vocab_size).astype(np.int64),
            keys,
            pairs.astype(np.int64),
        )

    def pair_shares(self, contexts: Ids, targets: Ids) -> Reals:
        """``c(v, w) / c(v)`` of each pair; 0 for a context that never occurred."""
        if not len(self.keys):
            return np.zeros(len(targets))
        wanted = contexts * len(self.targets) + targets
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = np.where(self.keys[at] == wanted, self.pairs[at], 0)
        return found / np.maximum(self.contexts[contexts], 1)


@dataclass(frozen=True, slots=True)
class NGram:
    """Counts with the interpolation weights that explain held-back text best.

    ``P1(w) = (1 - u) c(w) / N + u / V``;
    ``P2(w | v) = b(v) c(v, w) / c(v) + (1 - b(v)) P1(w)``,
    where ``b(v)`` depends only on how often v was seen, in powers of two, and is 0 for a v that
    never was. So every token has a probability above 0, and each distribution sums to one.

    Source: Jelinek and Mercer, Interpolated estimation of Markov source parameters from sparse
    data (1980): weights by expectation-maximisation on text that was held back from the counts;
    the final counts are over all of it.
    """

    vocab_size: int
    counts: _Counts
    unigram: Reals
    uniform_weight: float
    bigram_weights: Reals

    @classmethod
    def fit(cls, contexts: Ids, targets: Ids, vocab_size: int, held_back: float = 0.1) -> NGram:
        """Count, and fit the weights.

        Args:
            contexts: (N,) the token before each target.
            targets: (N,) ids below ``vocab_size``.
            vocab_size: V.
            held_back: share of the pairs, at their end, on which the weights are fitted.

        Raises:
            ValueError: fewer than two pairs, or arrays of different lengths.
        """
        if len(contexts) != len(targets) or len(targets) < 2:
            raise ValueError(
                f"{len(contexts)} contexts and {len(targets)} targets: an n-gram needs two pairs "
                "or more, and as many contexts as targets"
            )
        contexts, targets = contexts.astype(np.int64), targets.astype(np.int64)
        slice_size = min(len(targets) - 1, max(1, round(held_back * len(targets))))
        cut = len(targets) - slice_size
        first = _Counts.of(contexts[:cut], targets[:cut], vocab_size)
        rest = contexts[cut:], targets[cut:]
        shares = first.targets[rest[1]] / cut
        # Without a floor, a slice with no new token would make unseen tokens impossible.
        uniform = max(1.0 - _em(shares, np.full(slice_size, 1.0 / vocab_size)), 1.0 / (cut + 1))
        backoff = (1.0 - uniform) * shares + uniform / vocab_size
        weights = _bucket_weights(first, *rest, backoff)
        counts = _Counts.of(contexts, targets, vocab_size)
        unigram = (1.0 - uniform) * counts.targets / len(targets) + uniform / vocab_size
        return cls(vocab_size, counts, unigram, uniform, weights)

    def log_unigram(self, targets: Ids) -> Reals:
        """Natural logarithm of ``P1`` of each target, (N,)."""
        logs: Reals = np.log(self.unigram[targets])
        return logs

    def log_bigram(self, contexts: Ids, targets: Ids) -> Reals:
        """Natural logarithm of ``P2`` of each target after its context, (N,)."""
        contexts, targets = contexts.astype(np.int64), targets.astype(np.int64)
        seen = np.minimum(_bucket(self.counts.contexts[contexts]), len(self.bigram_weights) - 1)
        weight = self.bigram_weights[seen]
        shares = self.counts.pair_shares(contexts, targets)
        logs: Reals = np.log(weight * shares + (1.0 - weight) * self.unigram[targets])
        return logs


def _bucket(counts: Ids) -> Ids:
    """0 for 0, then 1 + floor(log2(count))."""
    _, exponents = np.frexp(counts.astype(np.float64))
    return exponents.astype(np.int64)


def _em(sharp: Reals, broad: Reals, start: float = 0.5) -> float:
    """The weight of ``sharp`` in ``weight * sharp + (1 - weight) * broad`` of largest likelihood.

    The likelihood is concave in the weight, so the fixed point is its maximum.
    """
    weight = start
    for _ in range(_EM_ROUNDS):
        mine = weight * sharp
        updated = float(np.mean(mine / (mine + (1.0 - weight) * broad)))
        if abs(updated - weight) < _EM_TOLERANCE:
            return updated
        weight = updated
    return weight


def _bucket_weights(counts: _Counts, contexts: Ids, targets: Ids, backoff: Reals) -> Reals:
    """Weight of the pair counts for each bucket of context counts."""
    buckets = _bucket(counts.contexts[contexts])
    shares = counts.pair_shares(contexts, targets)
    # One more bucket than was seen: the final counts are larger than those of the fit.
    weights = np.zeros(int(_bucket(counts.contexts).max()) + 2)
    last = 0.0
    for bucket in range(1, len(weights)):
        rows = buckets == bucket
        if rows.any():
            # Never quite 1: a pair that was not seen must stay possible.
            last = min(_em(shares[rows], backoff[rows]), 1.0 - 1e-6)
        weights[bucket] = last  # an empty bucket takes its lower neighbour's
    return weights
