"""The document table: what a row is, its stable id, and how its text is cleaned.

Columns: ``id`` (hex of a hash of source, file and record), ``file`` (what the text came from,
relative and the same on each machine; rows that share it stay in one split), ``text``,
``source``, ``kind``, ``language``, ``licence``, ``date``, ``url``, ``extractor``, and after the
split ``split``. Steps may add further columns.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from regrow.core.errors import InputError

SPLITS = ("train", "validation", "test")

GATHERED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("date", pa.string()),
        pa.field("url", pa.string()),
        pa.field("extractor", pa.string()),
    ]
)
DOCUMENTS = GATHERED.append(pa.field("split", pa.string(), nullable=False))
DROPPED = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "file", "source", "step", "reason")),
        ("value", pa.float64()),
    ]
)

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def split_tables(documents: Path) -> list[Path]:
    """The tables of a folder of documents that was split, in the order of the splits.

    Raises:
        InputError: there is none.
    """
    found = [path for split in SPLITS if (path := documents / f"{split}.parquet").is_file()]
    if not found:
        raise InputError(f"{documents} has no train.parquet; name a run folder of curate run")
    return found


def document_id(source: str, file: str, record: int) -> str:
    """32 hex digits that depend on where a document came from, not on when it was read."""
    key = f"{source}\0{file}\0{record}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(key, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its origin.

    Args:
        text: cleaned, valid Unicode.
        source: the source's name, unique in a curation; weights refer to it.
        kind: ``prose``, ``code``, ``reference``, ``legal`` or ``web``.
        file: where it lay, relative to the source; ``source#id`` for a record with an id of its
            own, whatever file holds it.
        record: its number within the file.
        language: of the text, or the programming language.
        licence: SPDX expression where known, else ``unknown``.
        date: ISO date; None where unknown.
        url: where a reader finds it; None where nowhere.
        extractor: what took the text out of a page; None for text that was none.
    """

    text: str
    source: str
    kind: str
    file: str
    record: int = 0
    language: str = ""
    licence: str = "unknown"
    date: str | None = None
    url: str | None = None
    extractor: str | None = None

    @property
    def id(self) -> str:
        """The row's id."""
        return document_id(self.source, self.file, self.record)

    def row(self) -> dict[str, Any]:
        """The row of the gathered table."""
        return {name: getattr(self, name) for name in GATHERED.names}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that gave no document: dropped on purpose, or quarantined since it is broken.

    Args:
        source: the source's name.
        file: where it lay.
        record: its number within the file.
        reason: short and countable; no content in it.
        broken: True quarantines, False drops.
        detail: what exactly was wrong, for the quarantine list.
        known_id: its id, where it was a document already and its record number is forgotten.
    """

    source: str
    file: str
    record: int
    reason: str
    broken: bool = False
    detail: str = ""
    known_id: str | None = None

    @property
    def id(self) -> str:
        """The id that the document would have had."""
        return self.known_id or document_id(self.source, self.file, self.record)


def clean(text: str, kind: str) -> str:
    """The text as stored: line ends as LF, no control characters but tab and LF, NFC for prose.

    Code keeps its code points: composing them could change what a string literal means.

    Raises:
        UnicodeEncodeError: a lone surrogate, which no UTF-8 file can hold.
    """
    text.encode("utf-8")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    return text if kind == "code" else unicodedata.normalize("NFC", text)
