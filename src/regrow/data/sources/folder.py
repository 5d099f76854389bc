"""A user's folder of text: ``.txt``, ``.md``, ``.jsonl``, ``.jsonl.gz``, ``.parquet``.

Broken records are quarantined one by one and counted; they never end the run.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regrow.core.errors import InputError
from regrow.data.document import Document, Rejected, clean
from regrow.data.settings.sources import FolderSource
from regrow.data.sources.pool import File, Item, Unit, split_files
from regrow.io.jsonl import read_jsonl

PLAIN = (".txt", ".md")
RECORDS = (".jsonl", ".jsonl.gz")
TABLES = (".parquet",)
# A longer text file becomes several documents, cut at line ends: memory stays bounded.
DOCUMENT_BYTES = 1 << 20


def units(config: FolderSource) -> list[Unit]:
    """The folder as one unit.

    Raises:
        InputError: no such folder, or no file in it that could hold text.
    """
    files = find_files(config)
    return [Unit(config.name, partial(split_files, files), config.max_bytes)]


def find_files(config: FolderSource) -> list[File]:
    """The folder's files of known kinds; hidden ones and links out of the folder are left.

    Raises:
        InputError: no such folder, or no file in it that could hold text.
    """
    root = config.path
    if not root.exists():
        raise InputError(f"source {config.name!r}: {root} does not exist; set its path")
    known = (*PLAIN, *RECORDS, *TABLES)
    if root.is_file():
        paths = [root.name] if root.name.lower().endswith(known) else []
        base = root.parent
    else:
        base, paths = root, []
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            inner = Path(folder).relative_to(root)
            visible = (n for n in names if not n.startswith(".") and n.lower().endswith(known))
            paths.extend((inner / name).as_posix() for name in visible)
    if not paths:
        raise InputError(
            f"source {config.name!r}: {root} holds no {', '.join(known)} file, so no documents"
        )
    return [
        File(key, partial(_read, config, key, base / path))
        for key, path in sorted((_key(config.name, path), path) for path in paths)
    ]


def _key(name: str, path: str) -> str:
    # A file name need not be Unicode, a column of the table must be.
    return f"{name}/{os.fsencode(path).decode('utf-8', 'backslashreplace')}"


def _read(config: FolderSource, key: str, path: Path) -> Iterator[Item]:
    name = path.name.lower()
    if not path.is_file():  # a pipe or a device would block for ever
        yield Rejected(config.name, key, 0, "unreadable", True, "not a regular file")
    elif name.endswith(PLAIN):
        yield from _plain(config, key, path)
    elif name.endswith(TABLES):
        yield from _table(config, key, path)
    else:
        yield from _records(config, key, path)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces of at most ``DOCUMENT_BYTES``, cut after a line where there is one."""
    held = b""
    with path.open("rb") as file:
        while block := file.read(DOCUMENT_BYTES - len(held)):
            held += block
            if len(held) < DOCUMENT_BYTES:
                continue
            cut = held.rfind(b"\n") + 1
            if not cut:
                cut = _character_start(held)
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _character_start(data: bytes) -> int:
    """Where the last character of UTF-8 ``data`` begins; its length if that cannot be told."""
    for back in range(1, 5):
        if data[-back] & 0xC0 != 0x80:
            return len(data) - back
    return len(data)


def _plain(config: FolderSource, key: str, path: Path) -> Iterator[Item]:
    number = -1
    try:
        for number, raw in enumerate(_pieces(path)):
            try:
                text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
            except UnicodeDecodeError as error:
                detail = f"{error.reason} at byte {error.start}"
                yield Rejected(config.name, key, number, "not UTF-8", True, detail)
                continue
            yield _document(config, key, number, text, {})
        if number < 0:
            yield Rejected(config.name, key, 0, "empty")
    except OSError as error:
        yield Rejected(config.name, key, number + 1, "unreadable", True, str(error))


def _records(config: FolderSource, key: str, path: Path) -> Iterator[Item]:
    found = False
    for line in read_jsonl(path):
        found = True
        if line.value is None:
            reason, _, _ = str(line.error).partition(" (")
            yield Rejected(config.name, key, line.number, reason, True, str(line.error))
            continue
        text = line.value.get(config.text_column)
        if isinstance(text, str):
            yield _document(config, key, line.number, text, line.value)
            continue
        reason, detail = _no_text(config, text, line.value)
        yield Rejected(config.name, key, line.number, reason, True, detail)
    if not found:
        yield Rejected(config.name, key, 0, "empty")


def _table(config: FolderSource, key: str, path: Path) -> Iterator[Item]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if config.text_column not in names:
                detail = f"columns: {', '.join(names)}"
                reason = f"no field {config.text_column!r}"
                yield Rejected(config.name, key, 0, reason, True, detail)
                return
            wanted = [n for n in (config.text_column, *_EXTRAS) if n in names]
            for batch in file.iter_batches(batch_size=64, columns=wanted):
                for row in batch.to_pylist():
                    text = row[config.text_column]
                    if isinstance(text, str):
                        yield _document(config, key, number, text, row)
                    else:
                        reason, detail = _no_text(config, text, row)
                        yield Rejected(config.name, key, number, reason, True, detail)
                    number += 1
        if number == 0:
            yield Rejected(config.name, key, 0, "empty")
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        yield Rejected(config.name, key, number, "unreadable", True, str(error))


_EXTRAS = ("language", "licence", "date", "url")


def _no_text(config: FolderSource, value: Any, record: Mapping[str, Any]) -> tuple[str, str]:
    if config.text_column not in record:
        return f"no field {config.text_column!r}", f"fields: {', '.join(map(str, record))}"
    return f"field {config.text_column!r} holds no text", f"but {type(value).__name__}"


def _document(
    config: FolderSource, key: str, number: int, text: str, record: Mapping[str, Any]
) -> Item:
    extras = {name: record[name] for name in _EXTRAS if isinstance(record.get(name), str)}
    try:
        text = clean(text, config.content)
        extras = {name: clean(value, "prose") for name, value in extras.items()}
    except UnicodeEncodeError:
        return Rejected(config.name, key, number, "lone surrogate", True)
    if not text.strip():
        return Rejected(config.name, key, number, "empty")
    return Document(
        text,
        config.name,
        config.content,
        key,
        number,
        language=extras.get("language", config.language),
        licence=extras.get("licence", config.licence),
        date=extras.get("date"),
        url=extras.get("url"),
    )
