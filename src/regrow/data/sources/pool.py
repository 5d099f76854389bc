"""What a source gives: units, each of parts that may be read one by one or side by side.

Two things about a source can only be said once all of its parts were read: whether an id stands
twice, and which documents stay below ``max_bytes``. ``settle`` says both; that nothing depends on
how records are spread over files rests on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from regrow.data.document import Document, Rejected

Item = Document | Rejected

OVER_CAP = "over max_bytes"
# Looking on for ever smaller files to fill the last bytes would read the whole source.
FULL_ENOUGH = 0.95
# Enough parts for many workers, none so small that starting it counts.
_PARTS = 64
_LEAST_PART, _MOST_PART = 2 << 20, 256 << 20
_FILE_OVERHEAD = 4 << 10  # what opening a file costs, in bytes read


@dataclass(frozen=True, slots=True)
class File:
    """Something that holds documents.

    Args:
        key: the ``file`` column: relative, the same on each machine.
        read: its records, read when called.
        bytes: its size, to share work by; 0 where it is not known.
    """

    key: str
    read: Callable[[], Iterable[Item]]
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of a unit, for one process; it can be pickled.

    Args:
        files: as many as are worth a process.
    """

    files: tuple[File, ...]

    def read(self) -> Iterator[Item]:
        """Its records, in one pass."""
        for file in self.files:
            yield from file.read()


@dataclass(frozen=True, slots=True)
class Unit:
    """One named source to be gathered.

    Args:
        name: the ``source`` column.
        parts: its parts, listed when called; what they give together does not depend on how many
            they are.
        max_bytes: what ``settle`` has to keep its text below; None where the parts see to it.
    """

    name: str
    parts: Callable[[], list[Part]]
    max_bytes: int | None = None

    def read(self) -> Iterator[Item]:
        """All its records, documents and rejects, before they are settled."""
        for part in self.parts():
            yield from part.read()


def split_files(files: Iterable[File]) -> list[Part]:
    """Files in groups of about equal bytes, in their order."""
    files = list(files)
    total = sum(file.bytes + _FILE_OVERHEAD for file in files)
    size = min(max(total // _PARTS, _LEAST_PART), _MOST_PART)
    parts: list[Part] = []
    group: list[File] = []
    held = 0
    for file in files:
        group.append(file)
        held += file.bytes + _FILE_OVERHEAD
        if held >= size:
            parts.append(Part(tuple(group)))
            group, held = [], 0
    if group:
        parts.append(Part(tuple(group)))
    return parts


def hash_order(files: Iterable[File]) -> list[File]:
    """Files sorted by a hash of their key: a fixed shuffle, whatever order they were listed in."""
    return sorted(
        files,
        key=lambda file: (hashlib.blake2b(_bytes(file.key), digest_size=8).digest(), file.key),
    )


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def take(source: str, files: Iterable[File], max_bytes: int | None) -> Iterator[Item]:
    """Records of ``files`` in hash order, until their texts fill ``max_bytes``.

    A document that no longer fits is dropped and the next one tried, until 95 % are filled; what
    is then left is dropped unread and counted once a file. For sources whose files are the same
    everywhere; where records may lie in other files tomorrow, ``settle`` chooses by id.

    Args:
        source: the source's name.
        files: in any order.
        max_bytes: of UTF-8 text; None for all.
    """
    used = 0
    for file in hash_order(files):
        if max_bytes is not None and used >= FULL_ENOUGH * max_bytes:
            yield Rejected(source, file.key, 0, OVER_CAP)
            continue
        for item in file.read():
            if max_bytes is None or isinstance(item, Rejected):
                yield item
                continue
            size = len(item.text.encode())
            if used + size > max_bytes:
                yield Rejected(source, item.file, item.record, OVER_CAP)
            else:
                used += size
                yield item
            if used >= FULL_ENOUGH * max_bytes:
                break
