"""How much of a text says again what it said: lines, paragraphs and runs of words.

All texts of a batch are treated at once. Things are compared by 64-bit hashes into which the text's
own number is mixed, so that things of two texts are never the same.

Legend: R texts, W words, K things that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from regrow.data.words import Hashes, Ints, SplitTexts, joined_hashes, mixed

Reals = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

TOP_LENGTHS = (2, 3, 4)
REPEATED_LENGTHS = (5, 6, 7, 8, 9, 10)
_ODD = 0xD6E8FEB86659FD93


@dataclass(frozen=True, slots=True)
class _Groups:
    """Things in groups of equal ones.

    Args:
        order: ``(K,)`` numbers of the things, equal ones in a row, each group rising.
        begins: ``(K,)`` whether a group begins there.
    """

    order: Ints
    begins: Flags

    @property
    def several(self) -> Flags:
        """``(K,)`` whether the group there has more than one member."""
        last = np.append(self.begins[1:], True)
        several: Flags = ~(self.begins & last)
        return several


def grouped(keys: Hashes) -> _Groups:
    """Equal keys found by one sort of numbers that hold most of a key and all of its place."""
    count = len(keys)
    bits = np.uint64(max(1, (count - 1).bit_length() if count else 1))
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed = (keys & ~low) | np.arange(count, dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    begins = np.ones(count, bool)
    packed >>= bits
    begins[1:] = packed[1:] != packed[:-1]
    same = np.flatnonzero(~begins)
    if not np.array_equal(keys[order[same]], keys[order[same - 1]]):
        # Two keys with equal high bits, about once in a thousand batches.
        order = np.argsort(keys, kind="stable")
        begins[1:] = keys[order[1:]] != keys[order[:-1]]
    return _Groups(order, begins)


def _sums(values: Ints, rows: Ints, texts: int) -> Ints:
    return np.bincount(rows, values, texts).astype(np.int64)


def shares(parts: Ints, wholes: Ints) -> Reals:
    """``parts / wholes``, 0 where there is nothing."""
    found: Reals = np.divide(parts, wholes, out=np.zeros(len(wholes)), where=wholes > 0)
    return found


@cache
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """Powers of an odd number and of its inverse modulo 2^64."""
    both = []
    for base in (_ODD, pow(_ODD, -1, 1 << 64)):
        powers = np.full(1 << bits, base, np.uint64)
        powers[0] = 1
        both.append(np.multiply.accumulate(powers))
    return both[0], both[1]


def _salts(texts: int) -> Hashes:
    return mixed(np.arange(1, texts + 1, dtype=np.uint64) * np.uint64(_ODD))


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that hold a word, of all texts, L of them.

    Args:
        first: ``(L,)`` number of the first word of each.
        after: ``(L,)`` number of the word after its last.
        rows: ``(L,)`` its text.
        new_paragraph: ``(L,)`` whether a line without words, or nothing, stands before it.
    """

    first: Ints
    after: Ints
    rows: Ints
    new_paragraph: Flags

    @classmethod
    def of(cls, split: SplitTexts, newlines: Ints) -> Lines:
        """Lines between newlines, one of which stands before each text."""
        at = np.searchsorted(split.word_starts, newlines)
        first, after = at[:-1], at[1:]
        filled = first < after
        rows = split.rows[first[filled]]
        empty_before = np.append(True, ~filled[:-1])[filled]
        new = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
        return cls(first[filled], after[filled], rows, empty_before | new)

    def counts(self, texts: int, chosen: Flags | None = None) -> Ints:
        """``(R,)`` lines of each text, or those of them that are chosen."""
        rows = self.rows if chosen is None else self.rows[chosen]
        return np.bincount(rows, minlength=texts)


def repeated_lines(split: SplitTexts, lines: Lines) -> dict[str, Reals]:
    """Shares of lines and paragraphs that stand for the first time, by number and by characters.

    A line or a paragraph is equal to another when their words are. Characters are those of words.
    """
    texts = len(split.starts)
    found: dict[str, Reals] = {}
    power, inverse = _powers(max(1, len(split.hashes).bit_length()))
    sums = np.zeros(len(split.hashes) + 1, np.uint64)
    np.cumsum(mixed(split.hashes) * power[: len(split.hashes)], out=sums[1:])
    last_lines = np.append(np.flatnonzero(lines.new_paragraph)[1:] - 1, len(lines.rows) - 1)
    paragraphs = lines.new_paragraph
    for name, first, after in (
        ("line", lines.first, lines.after),
        ("paragraph", lines.first[paragraphs], lines.after[last_lines[: paragraphs.sum()]]),
    ):
        rows = split.rows[first]
        # A run's hash must not depend on where it stands: its sum is moved back to the beginning.
        hashes = mixed((sums[after] - sums[first]) * inverse[first])
        groups = grouped(mixed(hashes ^ _salts(texts)[rows]))
        new = np.zeros(len(first), bool)
        new[groups.order[groups.begins]] = True
        lengths = split.reach[after] - split.reach[first]
        counts = np.bincount(rows, minlength=texts)
        found[f"unique_{name}s"] = shares(np.bincount(rows[new], minlength=texts), counts)
        found[f"unique_{name}_characters"] = shares(
            _sums(lengths[new], rows[new], texts), _sums(lengths, rows, texts)
        )
    return found


def repeated_runs(split: SplitTexts) -> dict[str, Reals]:
    """Shares of the characters of words that lie in runs of words that are repeated.

    ``top_<n>gram``: how often the commonest run of n words occurs (the longest of several that
    are), times its characters, over all; 0 where none occurs twice, 1 at most.
    ``repeated_<n>gram``: characters within runs of n words that stood before in the text, each
    counted once, over all.

    A run can only be repeated where both runs that are one word shorter are, so that each length
    sorts only what the one before left.

    Source: Rae et al., Scaling Language Models (2021), table A1.
    """
    texts = len(split.starts)
    total = split.reach[split.first[1:]] - split.reach[split.first[:-1]]
    words, reach = len(split.hashes), split.reach
    ends = split.first[1:][split.rows]
    hashes = split.hashes ^ _salts(texts)[split.rows]
    at = np.arange(words)
    twice = np.ones(words + 1, bool)
    found: dict[str, Reals] = {}
    for length in range(2, REPEATED_LENGTHS[-1] + 1):
        chosen = twice[at] & twice[at + 1] & (at + length <= ends[at])
        at = at[chosen]
        hashes = joined_hashes(hashes[chosen], split.hashes[at + length - 1])
        groups = grouped(hashes)
        twice[:] = False
        twice[at[groups.order[groups.several]]] = True
        if length in TOP_LENGTHS:
            top = _top(groups, at, reach[at + length] - reach[at], split.rows, texts)
            found[f"top_{length}gram"] = np.minimum(shares(top, total), 1.0)
        if length in REPEATED_LENGTHS:
            again = at[groups.order[~groups.begins]]
            covered = np.zeros(words, bool)
            for offset in range(length):
                covered[again + offset] = True
            inside = np.flatnonzero(covered)
            sums = _sums(split.lengths[inside], split.rows[inside], texts)
            found[f"repeated_{length}gram"] = shares(sums, total)
    return found


def _top(groups: _Groups, at: Ints, lengths: Ints, rows: Ints, texts: int) -> Ints:
    """``(R,)`` occurrences times characters of each text's commonest run."""
    begins = np.flatnonzero(groups.begins)
    counts = np.diff(np.append(begins, len(groups.order)))
    several = counts > 1
    member = groups.order[begins[several]]
    # The commonest first, the longest of those next: one number holds both.
    rank = (counts[several] << 32) | lengths[member]
    best = np.zeros(texts, np.int64)
    np.maximum.at(best, rows[at[member]], rank)
    return (best >> 32) * (best & 0xFFFFFFFF)
