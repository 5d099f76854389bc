"""Texts that say what is wanted, or what is not: from files, or chosen among the documents.

The same texts give the same sample, in whatever files and in whatever order they lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from regrow.core.errors import InputError
from regrow.data import engine
from regrow.data.condition import Condition
from regrow.data.document import Document
from regrow.data.settings.sources import FolderSource
from regrow.data.sources import SOURCES


def texts_in(places: Sequence[Path | str], role: str) -> Iterator[str]:
    """Texts of files and folders, as a source of the kind ``folder`` reads them.

    Args:
        places: files, folders or globs.
        role: the setting that names them, for messages.

    Raises:
        ConfigError: a package is missing that the files need.
        InputError: one that does not exist, or holds nothing that could be text.
    """
    units = [unit for place in places for unit in _units(place, role)]  # all are looked at first
    for unit in units:
        for item in unit.read():
            if isinstance(item, Document):
                yield item.text


def check_places(places: Sequence[Path | str], role: str) -> None:
    """Look whether there is something, without reading it.

    Raises:
        ConfigError, InputError: as ``texts_in``.
    """
    for place in places:
        _units(place, role)


def _units(place: Path | str, role: str) -> list:  # type: ignore[type-arg]
    source = FolderSource(name=role.replace(" ", "-"), path=str(place))
    try:
        return SOURCES.get("folder")(source)
    except InputError as error:
        raise InputError(f"{role}: {place}: {error}") from error


def texts_where(frame: engine.Frame, condition: Condition | None) -> Iterator[str]:
    """Texts of the documents for which a condition holds; of all without one."""
    columns = condition.columns if condition else ()
    for batch in engine.batches(frame.select(*dict.fromkeys(("text", *columns)))):
        texts = batch["text"]
        if condition:
            texts = texts.filter(pa.array(condition.holds(batch)))
        yield from texts.to_pylist()


def fixed_sample(texts: Iterable[str], max_bytes: int) -> list[str]:
    """The texts with the smallest hashes, up to ``max_bytes`` of UTF-8; equal ones once.

    Args:
        texts: in any order; never held all at once.
        max_bytes: the text that goes over it is the first that is left out.
    """
    held: dict[bytes, str] = {}
    size = 0
    for text in texts:
        digest = text_digest(text)
        if digest in held:
            continue
        held[digest] = text
        size += len(text.encode())
        if size > 2 * max_bytes:
            held, size = _first(held, max_bytes)
    return [text for _, text in sorted(_first(held, max_bytes)[0].items())]


def _first(held: dict[bytes, str], max_bytes: int) -> tuple[dict[bytes, str], int]:
    kept: dict[bytes, str] = {}
    size = 0
    for digest, text in sorted(held.items()):
        size += len(text.encode())
        if size > max_bytes and kept:
            return kept, size - len(text.encode())
        kept[digest] = text
    return kept, size


def text_digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def texts_digest(texts: Iterable[str]) -> str:
    """32 hex digits that stand for several texts in their order."""
    whole = hashlib.blake2b(digest_size=16)
    for text in texts:
        whole.update(text_digest(text))
    return whole.hexdigest()
