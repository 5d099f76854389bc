"""Texts cut into words, a batch of them at a time, on arrays of bytes.

A word is what stands between white space (``str.split``). Legend: N bytes of a batch, R texts,
W words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xxhash

from regrow.data.characters import BLANK, BLANK_GOES_ON, GOES_ON, Codes, classify

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)
# Low bytes of eight that belong to a word of this many.
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
_CHUNK = 8
_CHUNKS = 8  # longer words, which are few, are hashed one by one

BATCH_CHARACTERS = 1 << 19


def mixed(codes: Hashes) -> Hashes:
    """A bijection in which every bit reaches the high ones."""
    codes = codes * _MIX
    return codes ^ (codes >> _SHIFT)


def joined_hashes(first: Hashes, second: Hashes) -> Hashes:
    """Hashes of two things in a row, from theirs."""
    return mixed(first * _MULTIPLIER + second)


@dataclass(frozen=True)
class SplitTexts:
    """A batch of texts and where their words are.

    Args:
        data: the texts in UTF-8, a newline before each, some after the last.
        codes: ``(N,)`` classes of its bytes.
        ascii: whether every character is one byte.
        starts: ``(R,)`` first byte of each text.
        ends: ``(R,)`` byte after it.
        word_starts: ``(W,)`` first byte of each word.
        word_ends: ``(W,)`` byte after it.
        first: ``(R + 1,)`` number of each text's first word.
    """

    data: bytes
    codes: Codes
    ascii: bool
    starts: Ints
    ends: Ints
    word_starts: Ints
    word_ends: Ints
    first: Ints

    @classmethod
    def of(cls, texts: Sequence[str]) -> SplitTexts:
        """Cut texts.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        data, begins, ends = in_a_row(texts)
        codes, plain = classify(data)
        blank = codes >= BLANK
        starts = np.flatnonzero(blank[:-1] > blank[1:]) + 1
        stops = np.flatnonzero(blank[:-1] < blank[1:]) + 1
        first = np.append(np.searchsorted(starts, begins), len(starts))
        return cls(data, codes, plain, begins, ends, starts, stops, first)

    @cached_property
    def rows(self) -> Ints:
        """``(W,)`` the text of each word."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.first))

    @cached_property
    def places(self) -> npt.NDArray[np.int32] | None:
        """``(N + 1,)`` characters before each byte; None where that is the byte's number."""
        if self.ascii:
            return None
        begins = (self.codes != GOES_ON) & (self.codes != BLANK_GOES_ON)
        places = np.zeros(len(begins) + 1, np.int32)
        np.cumsum(begins, out=places[1:])
        return places

    def characters(self, starts: Ints, ends: Ints) -> Ints:
        """Characters between bytes."""
        if self.places is None:
            return ends - starts
        return (self.places[ends] - self.places[starts]).astype(np.int64)

    @cached_property
    def lengths(self) -> Ints:
        """``(W,)`` characters of each word."""
        return self.characters(self.word_starts, self.word_ends)

    @cached_property
    def reach(self) -> Ints:
        """``(W + 1,)`` characters of all words before each."""
        reach = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=reach[1:])
        return reach

    @cached_property
    def hashes(self) -> Hashes:
        """``(W,)`` 64 bits of each word; case counts."""
        return hash_pieces(self.data, self.word_starts, self.word_ends)

    @cached_property
    def lowered(self) -> bytes:
        """The texts with ASCII letters in lower case; as long as ``data``."""
        return self.data.lower()


def in_a_row(texts: Iterable[str]) -> tuple[bytes, Ints, Ints]:
    """Texts in UTF-8, a newline before each and some after the last; where each begins and ends.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    encoded = [text.encode() for text in texts]
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ends = np.cumsum(sizes + 1)
    # Eight more bytes, so that eight can be read from any place.
    return b"\n".join([b"", *encoded, b"\n" * _CHUNK]), ends - sizes, ends


def hash_pieces(data: bytes, starts: Ints, ends: Ints) -> Hashes:
    """64 bits of each piece of ``data``, which goes on for eight bytes after the last."""
    # Eight bytes from any place as one number.
    eight = np.ndarray((len(data) - _CHUNK + 1,), "<u8", buffer=data, strides=(1,))
    sizes = ends - starts
    found = mixed(sizes.astype(np.uint64))
    chunk = eight[starts] & _MASKS[np.minimum(sizes, _CHUNK)]
    found = mixed((found + chunk) * _MULTIPLIER)
    longer = np.flatnonzero(sizes > _CHUNK)
    for offset in range(_CHUNK, _CHUNKS * _CHUNK, _CHUNK):
        left = sizes[longer] - offset
        chunk = eight[starts[longer] + offset] & _MASKS[np.minimum(left, _CHUNK)]
        found[longer] = mixed((found[longer] + chunk) * _MULTIPLIER)
        longer = longer[left > _CHUNK]
        if not len(longer):
            return found
    for number in longer.tolist():
        found[number] = xxhash.xxh3_64_intdigest(data[starts[number] : ends[number]])
    return found


def batches(texts: Sequence[str], characters: int = BATCH_CHARACTERS) -> Iterator[slice]:
    """Runs of texts of about as many characters together: what fits a processor's cache."""
    first = held = 0
    for number, text in enumerate(texts):
        held += len(text)
        if held >= characters:
            yield slice(first, number + 1)
            first, held = number + 1, 0
    if first < len(texts):
        yield slice(first, len(texts))
