"""Taking files of a source in hash order, up to a number of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from regrow.data.document import Document, Rejected

Item = Document | Rejected

OVER_CAP = "over max_bytes"
# Looking on for ever smaller files to fill the last bytes would read the whole source.
FULL_ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class File:
    """Something that holds documents.

    Args:
        key: the ``file`` column: relative, the same on each machine.
        read: its records, read when called.
    """

    key: str
    read: Callable[[], Iterable[Item]]


@dataclass(frozen=True, slots=True)
class Unit:
    """One named source to be gathered.

    Args:
        name: the ``source`` column.
        read: all its records, documents and rejects.
    """

    name: str
    read: Callable[[], Iterator[Item]]


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
    is then left is dropped unread and counted once a file.

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
