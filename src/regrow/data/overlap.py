"""Runs of words that texts share with evaluation sets.

Source: 13-word runs, after the GPT-3 paper (arXiv 2005.14165, appendix C). A word is a run of
letters, marks and digits of the lower-case text, so that case, punctuation and white space do not
matter. Runs are compared by 64 bits: a trillion words and sets of two million runs share 0.1 of
them by chance.

Legend: K distinct runs of the sets, M runs with the item they belong to, R texts, W words.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regrow.core.errors import InputError
from regrow.data.characters import GOES_ON, LETTER, NUMBER, classify
from regrow.data.evaluation_sets import Asked
from regrow.data.words import Hashes, Ints, batches, hash_pieces, in_a_row, joined_hashes

INDEX = "runs.safetensors"
_FORMAT = "regrow word runs 1"
_ITEMS = 4096  # of a set that are hashed together


def _cut(texts: Sequence[str]) -> tuple[bytes, Ints, Ints, Ints]:
    """Bytes of the lower-case texts, first byte of each word, byte after it, and first words."""
    data, begins, _ = in_a_row(text.lower() for text in texts)
    codes, ascii = classify(data)
    inside = (codes >= LETTER) & (codes <= NUMBER)
    if not ascii:  # the bytes that go on with a character are what it is
        own = np.where(codes == GOES_ON, 0, np.arange(len(codes)))
        inside = inside[np.maximum.accumulate(own)]
    starts = np.flatnonzero(inside[1:] > inside[:-1]) + 1
    ends = np.flatnonzero(inside[1:] < inside[:-1]) + 1
    first = np.searchsorted(starts, begins)
    return data, starts, ends, np.append(first, len(starts))


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """``(W,)`` 64 bits of each word of all texts, and ``(R + 1,)`` each text's first word.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    data, starts, ends, first = _cut(texts)
    return hash_pieces(data, starts, ends), first


def words_from(text: str, place: int, count: int) -> str:
    """``count`` words of a text, or as many as there are, behind its first ``place`` words."""
    data, starts, ends, _ = _cut([text])
    return data[starts[place] : ends[min(place + count, len(ends)) - 1]].decode()


def run_hashes(words: Hashes, length: int) -> Hashes:
    """``(W - length + 1,)`` 64 bits of every ``length`` words in a row, texts not told apart."""
    count = len(words) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    found, done = None, 0
    # Runs of 1, 2, 4, ... words are put together to one of any length.
    part, size = words, 1
    while size <= length:
        if length & size:
            piece = part[done : done + count]
            found = piece if found is None else joined_hashes(found, piece)
            done += size
        part, size = joined_hashes(part[:-size], part[size:]), 2 * size
    assert found is not None
    return found


class Found(NamedTuple):
    """What texts share with the sets.

    Args:
        words: ``(R,)`` words of each text that lie in a shared run.
        place: ``(R,)`` words before the first of them; -1 where there is none.
        first_items: ``(R,)`` an item that the first run belongs to; -1 where there is none.
        items: of each text that shares any, the numbers of the items, rising.
    """

    words: Ints
    place: Ints
    first_items: Ints
    items: dict[int, Ints]


@dataclass(frozen=True)
class Index:
    """Runs of words of evaluation sets, sorted.

    Args:
        hashes: ``(K,)`` those of each length together, rising.
        first: ``(K + 1,)`` where the items of each begin in ``items``.
        items: ``(M,)`` numbers of items.
        lengths: words of a run, and of the shorter texts that are looked for whole, rising.
        bounds: where those of each length begin in ``hashes``, and where the last end.
        names: of the sets.
        ends: of each set, the number of items of it and all before it.
        ids: of all items.
        looked_for: of each set, how many items are long enough.
    """

    hashes: Hashes
    first: Ints
    items: npt.NDArray[np.int32]
    lengths: tuple[int, ...]
    bounds: tuple[int, ...]
    names: tuple[str, ...]
    ends: tuple[int, ...]
    ids: tuple[str, ...]
    looked_for: tuple[int, ...]

    @classmethod
    def build(cls, sets: Iterable[tuple[str, Iterable[Asked]]], words: int, short: int) -> Index:
        """Index the items of several sets.

        Args:
            sets: name and items.
            words: of a run.
            short: of the shortest text that is looked for whole.

        Raises:
            InputError: a set without an item, or none long enough to be looked for.
        """
        runs: dict[int, list[tuple[Hashes, npt.NDArray[np.int32]]]] = {words: []}
        names, ends, ids, looked_for = [], [], list[str](), []
        for name, asked in sets:
            begin, seen = len(ids), set[int]()
            for part in _parts(asked):
                texts = [(unicodedata.normalize("NFC", t), i) for i, a in part for t in a.texts]
                ids.extend(one.id for _, one in part)
                flat, first = word_hashes([text for text, _ in texts])
                sizes = np.diff(first)
                item = np.array([begin + number for _, number in texts], np.int32)
                for length in range(short, words + 1):
                    rows = np.flatnonzero(sizes >= words if length == words else sizes == length)
                    if not len(rows):
                        continue
                    counts = sizes[rows] - length + 1
                    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
                    at = np.repeat(first[:-1][rows], counts) + offset
                    own = run_hashes(flat, length)[at], np.repeat(item[rows], counts)
                    runs.setdefault(length, []).append(own)
                    seen.update(item[rows].tolist())
            if len(ids) == begin:
                raise InputError(f"evaluation set {name}: it has no item")
            if not seen:
                raise InputError(
                    f"evaluation set {name}: no text of it has {short} words or more, so none can "
                    "be looked for; name other fields, or lower short_words"
                )
            names.append(name)
            ends.append(len(ids))
            looked_for.append(len(seen))
        lengths = tuple(sorted(length for length, found in runs.items() if found))
        parts = [_sorted(runs.pop(length)) for length in lengths]
        sizes = np.concatenate([np.diff(first) for _, first, _ in parts])
        return cls(
            np.concatenate([hashes for hashes, _, _ in parts]),
            np.append(0, np.cumsum(sizes)),
            np.concatenate([items for _, _, items in parts]),
            lengths,
            tuple(np.cumsum([0, *(len(hashes) for hashes, _, _ in parts)]).tolist()),
            tuple(names),
            tuple(ends),
            tuple(ids),
            tuple(looked_for),
        )

    @cached_property
    def digest(self) -> str:
        """32 hex digits that stand for all of it."""
        whole = hashlib.blake2b(digest_size=16)
        for array in (self.hashes, self.first, self.items):
            whole.update(np.ascontiguousarray(array).tobytes())
        whole.update(self._facts().encode())
        return whole.hexdigest()

    @cached_property
    def _tables(self) -> list[tuple[int, Hashes, npt.NDArray[np.bool_], np.uint64]]:
        """Of each length its hashes, and which high bits they have: most lookups end there."""
        tables = []
        for number, length in enumerate(self.lengths):
            hashes = self.hashes[self.bounds[number] : self.bounds[number + 1]]
            bits = min(26, max(12, (16 * len(hashes)).bit_length()))
            shift = np.uint64(64 - bits)
            likely = np.zeros(1 << bits, bool)
            likely[hashes >> shift] = True
            tables.append((length, hashes, likely, shift))
        return tables

    def find(self, texts: Sequence[str]) -> Found:
        """Look for the sets' runs in texts."""
        words = np.zeros(len(texts), np.int64)
        place = np.full(len(texts), -1, np.int64)
        first_items = place.copy()
        items: dict[int, Ints] = {}
        for part in batches(texts):
            begin = part.start
            flat, first = word_hashes(texts[part])
            starts, ends, which = self._matches(flat, first)
            if not len(starts):
                continue
            rows = np.searchsorted(first, starts, side="right") - 1
            steps = np.bincount(starts, minlength=len(flat) + 1)
            steps -= np.bincount(ends, minlength=len(flat) + 1)
            covered = np.append(0, np.cumsum(np.cumsum(steps[:-1]) > 0))
            words[part] = covered[first[1:]] - covered[first[:-1]]
            for row in np.unique(rows).tolist():
                own = rows == row
                at = np.flatnonzero(own)[np.argmin(starts[own])]
                place[begin + row] = starts[at] - first[row]
                first_items[begin + row] = self.items[self.first[which[at]]]
                runs = np.unique(which[own]).tolist()
                found = [self.items[self.first[r] : self.first[r + 1]] for r in runs]
                items[begin + row] = np.unique(np.concatenate(found)).astype(np.int64)
        return Found(words, place, first_items, items)

    def _matches(self, words: Hashes, first: Ints) -> tuple[Ints, Ints, Ints]:
        """First word, word after the last, and number of every run that is one of the sets'."""
        found: list[tuple[Ints, Ints, Ints]] = []
        for begin, (length, hashes, likely, shift) in zip(self.bounds, self._tables, strict=False):
            runs = run_hashes(words, length)
            starts = np.flatnonzero(likely[runs >> shift])
            at = np.searchsorted(hashes, runs[starts])
            at[at == len(hashes)] = 0
            same = hashes[at] == runs[starts]
            starts, at = starts[same], at[same] + begin
            inside = starts + length <= first[np.searchsorted(first, starts, side="right")]
            found.append((starts[inside], starts[inside] + length, at[inside]))
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        return columns[0], columns[1], columns[2]

    def set_of(self, items: Ints) -> Ints:
        """Numbers of the sets that items belong to."""
        found: Ints = np.searchsorted(np.array(self.ends), items, side="right")
        return found

    def _facts(self) -> str:
        facts = {
            name: getattr(self, name)
            for name in ("lengths", "bounds", "names", "ends", "ids", "looked_for")
        }
        return json.dumps(facts)

    def save(self, folder: Path) -> None:
        """Write one safetensors file into a folder that the caller publishes."""
        from safetensors.numpy import save_file

        arrays: dict[str, npt.NDArray[Any]] = {
            name: getattr(self, name) for name in ("hashes", "first", "items")
        }
        save_file(arrays, folder / INDEX, metadata={"format": _FORMAT, "facts": self._facts()})

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Read what ``save`` wrote.

        Raises:
            InputError: missing, broken, or another kind of file.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / INDEX
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise InputError(f"{path}: not a file of {_FORMAT}")
                arrays = {name: file.get_tensor(name) for name in ("hashes", "first", "items")}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error})") from error
        facts: dict[str, Any] = {k: tuple(v) for k, v in json.loads(about["facts"]).items()}
        return cls(**arrays, **facts)


def _sorted(
    pairs: list[tuple[Hashes, npt.NDArray[np.int32]]],
) -> tuple[Hashes, Ints, npt.NDArray[np.int32]]:
    """Distinct hashes, rising, where the items of each begin, and these, each once a hash."""
    hashes = np.concatenate([hashes for hashes, _ in pairs])
    items = np.concatenate([items for _, items in pairs])
    order = np.lexsort((items, hashes))
    hashes, items = hashes[order], items[order]
    other = np.ones(len(order), bool)
    other[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
    hashes, items = hashes[other], items[other]
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    return hashes[new], np.append(np.flatnonzero(new), len(new)), items


def _parts(asked: Iterable[Asked]) -> Iterable[list[tuple[int, Asked]]]:
    """Items with their numbers, so many at a time."""
    part: list[tuple[int, Asked]] = []
    for numbered in enumerate(asked):
        part.append(numbered)
        if len(part) == _ITEMS:
            yield part
            part = []
    if part:
        yield part


@lru_cache(maxsize=2)
def opened(folder: Path, digest: str) -> Index:
    """An index, read once in each process.

    Args:
        folder: where it lies.
        digest: of it: a folder of the same name may hold another one tomorrow.
    """
    del digest
    return Index.load(folder)
