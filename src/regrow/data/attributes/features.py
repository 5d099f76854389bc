"""Text as hashed n-grams: words and pairs of words, and runs of characters, in one sparse matrix.

All of it works on whole arrays of code points, a batch of texts at a time, and is exact: the same
text gives the same row on every machine and in every batch.

Legend: C code points of a batch, W words of a batch, R rows (texts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from regrow.data.permutation import mix
from regrow.data.words import batches

# An odd constant of good spread; what matters is that it never changes.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_MULTIPLIER), -1, 1 << 64))
_SPACE, _MARK, _WORD = 0, 1, 2

VERSION = 1
MAX_BUCKETS = 1 << 24


@dataclass(frozen=True, slots=True)
class Hashing:
    """Which n-grams, and into how many buckets.

    Args:
        buckets: columns of the matrix, a power of two.
        words: lengths of the runs of words.
        characters: lengths of the runs of characters.
    """

    buckets: int = 1 << 18
    words: tuple[int, ...] = (1, 2)
    characters: tuple[int, ...] = (3, 4)

    def matrix(self, texts: Sequence[str]) -> Any:
        """``(texts, buckets)`` float64 in SciPy's CSR form.

        An entry is ``1 + log(count)``; words and characters each fill half of a row's squared
        length, which is 1 in all (0 for a text of blanks).
        """
        from scipy.sparse import csr_matrix, vstack

        parts = [self._batch(texts[chosen]) for chosen in batches(texts)]
        if not parts:
            return csr_matrix((0, self.buckets))
        return vstack(parts, format="csr") if len(parts) > 1 else parts[0]

    def _batch(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_matrix

        points, row_of = _code_points(texts)
        rows, columns, values = [], [], []
        groups = (
            _word_grams(points, row_of, self.words),
            _character_grams(points, row_of, self.characters),
        )
        for group in groups:
            found = list(group)
            if not found:
                continue
            keys = np.concatenate(
                [(row.astype(np.int64) * self.buckets) + self._bucket(code) for row, code in found]
            )
            keys, counts = np.unique(keys, return_counts=True)
            row, weight = keys // self.buckets, 1 + np.log(counts)
            squares = np.bincount(row, weight * weight, len(texts))
            rows.append(row)
            columns.append(keys % self.buckets)
            values.append(weight / np.sqrt(2 * squares[row]))
        if not values:
            return csr_matrix((len(texts), self.buckets))
        entries = (np.concatenate(rows), np.concatenate(columns))
        return csr_matrix((np.concatenate(values), entries), shape=(len(texts), self.buckets))

    def _bucket(self, codes: np.ndarray) -> np.ndarray:
        return (mix(codes) & np.uint64(self.buckets - 1)).astype(np.int64)


@cache
def _plane() -> np.ndarray:
    """For each code point of the first 65,536: a blank, part of a word, or a mark."""
    return np.array([_kind(point) for point in range(0x10000)], np.uint8)


def _kind(point: int) -> int:
    character = chr(point)
    if character.isalnum() or character == "_":
        return _WORD
    return _SPACE if character.isspace() else _MARK


def _kinds(points: np.ndarray) -> np.ndarray:
    """The same for each of ``points``, by Python's own tables."""
    high = points >= 0x10000
    kinds: np.ndarray = _plane()[np.where(high, 0, points)]
    if high.any():
        rare, where = np.unique(points[high], return_inverse=True)
        kinds[high] = np.array([_kind(point) for point in rare.tolist()], np.uint8)[where]
    return kinds


def _code_points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lower-cased texts in a row, each between two blanks, runs of blanks taken as one.

    Returns:
        ``(C,)`` uint32 code points and ``(C,)`` int32 rows.
    """
    clean = [f" {' '.join(text.lower().split())} " for text in texts]
    sizes = [len(text) for text in clean]
    raw = "".join(clean).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, np.uint32), np.repeat(np.arange(len(texts), dtype=np.int32), sizes)


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """``(count,)`` powers from the 0th on."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _prefix_sums(points: np.ndarray) -> np.ndarray:
    """``(C + 1,)`` rolling sums that give the hash of any run."""
    sums = np.zeros(len(points) + 1, np.uint64)
    wide = points.astype(np.uint64) + np.uint64(1)
    np.cumsum(wide * _powers(_MULTIPLIER, len(points)), out=sums[1:])
    return sums


def _character_grams(
    points: np.ndarray, row_of: np.ndarray, lengths: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and codes of the runs of characters; none reaches over the end of its text."""
    wide = points.astype(np.uint64) + np.uint64(1)
    for length in lengths:
        count = len(points) - length + 1
        if count < 1:
            continue
        codes = np.full(count, length, np.uint64)
        for offset in range(length):
            codes = codes * _MULTIPLIER + wide[offset : offset + count]
        inside = row_of[:count] == row_of[length - 1 :]
        yield row_of[:count][inside], codes[inside]


def _word_grams(
    points: np.ndarray, row_of: np.ndarray, lengths: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and codes of the runs of words; a word is letters and digits, or a run of marks."""
    kinds = _kinds(points)
    change = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
    edges = np.concatenate([[0], change, [len(points)]]) if len(points) else np.zeros(1, np.int64)
    starts, ends = edges[:-1], edges[1:]
    word = kinds[starts] != _SPACE if len(starts) else np.zeros(0, bool)
    starts, ends = starts[word], ends[word]
    if not len(starts):
        return
    sums = _prefix_sums(points)
    # A word's hash must not depend on where it stands: its sum is moved back to the beginning.
    codes = (sums[ends] - sums[starts]) * _powers(_INVERSE, len(points))[starts]
    codes = mix(codes + (ends - starts).astype(np.uint64))
    rows = row_of[starts]
    for length in lengths:
        count = len(codes) - length + 1
        if count < 1:
            continue
        # Far from the codes of characters, which begin with their length.
        joined = np.full(count, 1 << 40 | length, np.uint64)
        for offset in range(length):
            joined = mix(joined * _MULTIPLIER + codes[offset : offset + count])
        inside = rows[:count] == rows[length - 1 :]
        yield rows[:count][inside], joined[inside]
