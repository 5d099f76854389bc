"""A small n-gram model over token ids: interpolated modified Kneser-Ney, on whole arrays.

Legend: N tokens, V vocabulary, K distinct runs of one length. Ids are 0..V-1; V itself stands
before the beginning of every sequence and is never predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.core.errors import InputError

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

MAX_ORDER = 8
MAX_VOCABULARY = 1 << 24
_FORMAT = "regrow n-gram model 1"
# Where counts of counts say nothing, as in a handful of tokens.
_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])
# No discount at all would make what was never seen impossible.
_LEAST_DISCOUNT = 0.01


@dataclass(frozen=True, slots=True)
class _Level:
    """Runs of k tokens.

    Args:
        keys: ``(K,)`` rising: the number of the run of the first k - 1 tokens among those of their
            length (the token itself for k = 2, 0 for k = 1), times V + 1, plus the last token.
        shares: ``(K,)`` what is left of a run's count after the discount, over the count of its
            context.
        rests: (contexts,) what the discounts took, over the count of each run of k - 1 tokens; 1
            where the context was never followed by anything.
    """

    keys: Ints
    shares: Reals
    rests: Reals

    def find(self, wanted: Ints) -> Ints:
        """Numbers of runs by key, -1 where there is none."""
        at = np.searchsorted(self.keys, wanted)
        at[at == len(self.keys)] = 0
        return np.where(self.keys[at] == wanted, at, -1)


@dataclass(frozen=True, slots=True)
class NgramModel:
    """``P(w | h) = max(c(hw) - D, 0) / c(h) + rest(h) P(w | h')``, down to ``1 / V``.

    Of runs of the full order c counts how often they occur, of shorter ones how many different
    tokens stand before them. ``h'`` is h without its first token; for an h that was never seen
    ``P(w | h) = P(w | h')``. Every token has a probability above 0, and each distribution sums to
    one.

    Source: Chen and Goodman, An empirical study of smoothing techniques for language modeling
    (1999), equations 26 to 28: three discounts for each length, from counts of counts.
    """

    vocab_size: int
    levels: tuple[_Level, ...]

    @property
    def order(self) -> int:
        """Tokens of the longest runs."""
        return len(self.levels)

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Sequence[int] | Ints],
        order: int = 3,
        vocab_size: int | None = None,
    ) -> NgramModel:
        """Count runs of up to ``order`` tokens.

        Args:
            sequences: of ids; no run goes from one to the next.
            order: 1 to 8.
            vocab_size: V; None: one more than the largest id.

        Raises:
            ValueError: no token, an id that is not below ``vocab_size``, or an impossible order.
        """
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order {order}: from 1 to {MAX_ORDER}")
        tokens, sizes = _joined(sequences)
        if not len(tokens):
            raise ValueError("no token to count")
        vocabulary = int(tokens.max()) + 1 if vocab_size is None else vocab_size
        if tokens.min() < 0 or tokens.max() >= vocabulary or vocabulary > MAX_VOCABULARY:
            raise ValueError(f"ids from {tokens.min()} to {tokens.max()}, vocabulary {vocabulary}")
        padded, real = _padded(tokens, sizes, order, vocabulary)
        base = vocabulary + 1
        nodes = np.zeros(len(padded), np.int64)
        keys: list[Ints] = []
        runs: list[Ints] = []
        for length in range(1, order + 1):
            # A run that reaches back over the first of its sequence ends at a token that is not
            # real, since order - 1 stand before each; it is never counted.
            before = np.concatenate([[0], nodes[:-1]])
            found, nodes = _numbered(before * base + padded if length > 1 else padded)
            keys.append(found)
            runs.append(nodes)
        levels = []
        for length in range(1, order + 1):
            counts = _counts(length, order, runs, keys, real)
            contexts = 1 if length == 1 else len(keys[length - 2])
            levels.append(_level(keys[length - 1], counts, contexts, base))
        return cls(vocabulary, tuple(levels))

    def log_probabilities(self, sequences: Iterable[Sequence[int] | Ints]) -> Reals:
        """Natural logarithms of the probability of each token, of all sequences in a row, ``(N,)``.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        tokens, sizes = _joined(sequences)
        if not len(tokens):
            return np.zeros(0)
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(
                f"ids from {tokens.min()} to {tokens.max()}, not below {self.vocab_size}"
            )
        padded, real = _padded(tokens, sizes, self.order, self.vocab_size)
        base = self.vocab_size + 1
        chances = np.full(len(padded), 1.0 / self.vocab_size)
        nodes = np.zeros(len(padded), np.int64)
        for length, level in enumerate(self.levels, 1):
            before = np.zeros(len(padded), np.int64)
            if length > 1:
                before[1:] = nodes[:-1]
                before[0] = -1
            known = before >= 0
            nodes = np.where(known, level.find(before * base + padded), -1)
            rest = np.where(known, level.rests[before], 1.0)
            share = np.where(nodes >= 0, level.shares[nodes], 0.0)
            chances = share + rest * chances
        logs: Reals = np.log(chances[real])
        return logs

    def nats_per_token(self, ids: Sequence[int] | Ints) -> float:
        """Mean cross-entropy of one sequence, in nats; NaN for one without tokens."""
        logs = self.log_probabilities([ids])
        return float(-logs.mean()) if len(logs) else float("nan")

    def nats(self, sequences: Sequence[Sequence[int] | Ints]) -> Reals:
        """The same for each of many sequences at once, ``(sequences,)``."""
        logs = self.log_probabilities(sequences)
        ends = np.cumsum([len(one) for one in sequences]).tolist()
        # Each on its own, so that a sequence's figure has the same bits whatever stands beside it.
        starts = [0, *ends][: len(ends)]
        means = [-logs[a:b].mean() if a < b else np.nan for a, b in zip(starts, ends, strict=True)]
        return np.array(means, np.float64)

    def save(self, path: Path) -> None:
        """Write one safetensors file, inside a folder that the caller publishes."""
        from safetensors.numpy import save_file

        tensors: dict[str, npt.NDArray[Any]] = {"vocab_size": np.array([self.vocab_size], np.int64)}
        for number, level in enumerate(self.levels, 1):
            for name in ("keys", "shares", "rests"):
                tensors[f"{number}.{name}"] = np.ascontiguousarray(getattr(level, name))
        save_file(tensors, path, metadata={"format": _FORMAT})

    @classmethod
    def load(cls, path: Path) -> NgramModel:
        """Read what ``save`` wrote.

        Raises:
            InputError: missing, broken, or another kind of file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise InputError(f"{path}: not a {_FORMAT}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: missing or broken ({error}); make it again") from None
        order = (len(tensors) - 1) // 3
        levels = (
            _Level(*(tensors[f"{number}.{name}"] for name in ("keys", "shares", "rests")))
            for number in range(1, order + 1)
        )
        return cls(int(tensors["vocab_size"][0]), tuple(levels))


def _joined(sequences: Iterable[Sequence[int] | Ints]) -> tuple[Ints, Ints]:
    """All ids in a row, and the length of each sequence."""
    arrays = [np.asarray(one, np.int64) for one in sequences]
    sizes = np.array([len(one) for one in arrays], np.int64)
    return (np.concatenate(arrays) if arrays else np.zeros(0, np.int64)), sizes


def _padded(
    tokens: Ints, sizes: Ints, order: int, vocabulary: int
) -> tuple[Ints, npt.NDArray[np.intp]]:
    """The tokens with ``order - 1`` beginnings before each sequence, and where they are."""
    extra = order - 1
    shift = np.repeat(np.arange(1, len(sizes) + 1) * extra, sizes)
    real = np.arange(len(tokens)) + shift
    padded = np.full(len(tokens) + extra * len(sizes), vocabulary, np.int64)
    padded[real] = tokens
    return padded, real


def _numbered(values: Ints) -> tuple[Ints, Ints]:
    """Distinct values, rising, and the number of each value among them."""
    order = np.argsort(values)
    ordered = values[order]
    new = np.ones(len(values), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    numbers = np.empty(len(values), np.int64)
    numbers[order] = np.cumsum(new) - 1
    return ordered[new], numbers


def _counts(
    length: int, order: int, runs: list[Ints], keys: list[Ints], real: npt.NDArray[np.intp]
) -> Ints:
    """How often each run of ``length`` counts; runs that end before the first token never do."""
    own = runs[length - 1][real]
    if length == order:
        return np.bincount(own, minlength=len(keys[length - 1]))
    # One place of each run that is one token longer stands for all of its places.
    longer = runs[length][real]
    place = np.full(len(keys[length]), -1, np.int64)
    place[longer] = np.arange(len(longer))
    return np.bincount(own[place[place >= 0]], minlength=len(keys[length - 1]))


def _level(keys: Ints, counts: Ints, contexts: int, base: int) -> _Level:
    discount = _discounts(counts)[np.minimum(counts, 3)]
    context = keys // base if contexts > 1 else np.zeros(len(keys), np.int64)
    total = np.bincount(context, counts, contexts)
    taken = np.bincount(context, np.where(counts > 0, discount, 0.0), contexts)
    rests = np.divide(taken, total, out=np.ones(contexts), where=total > 0)
    left = np.where(counts > 0, counts - discount, 0.0)
    shares = np.divide(left, total[context], out=np.zeros(len(keys)), where=total[context] > 0)
    return _Level(keys, shares, rests)


def _discounts(counts: Ints) -> Reals:
    """``D_k = k - (k + 1) Y n_(k+1) / n_k`` with ``Y = n_1 / (n_1 + 2 n_2)``, for k of 1 to 3."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if not n[1:5].all():
        return _DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    k = np.arange(1, 4)
    found = np.clip(k - (k + 1) * y * n[2:5] / n[1:4], _LEAST_DISCOUNT, k)
    return np.concatenate([[0.0], found])
