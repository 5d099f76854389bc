"""Files of records: ``.jsonl`` and ``.parquet``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regrow.data.settings.sources import FolderSource
from regrow.data.sources.pool import Item
from regrow.data.sources.record import Origin, Reader
from regrow.io.jsonl import read_lines
from regrow.io.places import Place, unreadable

_ROWS = 256


def read_json_lines(config: FolderSource, place: Place) -> Iterator[Item]:
    """A document a line."""
    origin = Origin(config, place)
    reader = Reader(config, origin)
    found = False
    for line in read_lines(place.open_plain):
        found = True
        if line.value is None:
            reason, _, _ = str(line.error).partition(" (")
            yield origin.reject(line.number, reason, True, str(line.error))
        else:
            yield reader.read(line.number, line.value)
    if not found:
        yield origin.reject(0, "empty")


def read_parquet(config: FolderSource, place: Place) -> Iterator[Item]:
    """A document a row; a row group that cannot be read costs that group."""
    origin = Origin(config, place)
    reader = Reader(config, origin)
    try:
        with place.open() as opened, pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            columns = _columns(config, names)
            if columns[0] not in names:
                detail = f"columns: {', '.join(names)}"
                yield origin.reject(0, f"no field {config.fields.text!r}", True, detail)
                return
            if not file.metadata.num_rows:
                yield origin.reject(0, "empty")
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                yield from _group(file, group, first, rows, columns, reader)
                first += rows
    except (*unreadable(), pa.ArrowException) as error:
        yield origin.reject(0, "unreadable", True, str(error))


def _columns(config: FolderSource, names: list[str]) -> list[str]:
    """Columns that hold what the settings name, that of the text first."""
    fields = config.fields
    wanted = (fields.text, fields.id, fields.date, fields.url, fields.language, fields.licence)
    tops = (one if one in names else one.partition(".")[0] for one in wanted if one)
    return [one for n, one in enumerate(dict.fromkeys(tops)) if n == 0 or one in names]


def _group(
    file: pq.ParquetFile, group: int, first: int, rows: int, columns: list[str], reader: Reader
) -> Iterator[Item]:
    number = first
    try:
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
            for row in _records(batch):
                if isinstance(row, UnicodeDecodeError):
                    detail = f"{row.reason} at byte {row.start}"
                    yield reader.origin.reject(number, "not UTF-8", True, detail)
                else:
                    yield reader.read(number, row)
                number += 1
    except (*unreadable(), pa.ArrowException) as error:
        left = first + rows - number
        detail = f"{left} rows from {number} on: {error}"
        yield reader.origin.reject(number, "unreadable", True, detail)


def _records(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | UnicodeDecodeError]:
    """Rows as dicts; a row that is not UTF-8 as its error."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error


def missing_text(config: FolderSource, places: list[Place]) -> str:
    """Fields of the first records, where none of them has the field of the text; else empty.

    Args:
        config: of the source.
        places: files of records.
    """
    seen: dict[str, None] = {}
    for place in places:
        for record in _first(place):
            if config.fields.text.partition(".")[0] in record or config.fields.text in record:
                return ""
            seen.update(dict.fromkeys(map(str, record)))
    return ", ".join(seen)


def _first(place: Place) -> list[Mapping[str, Any]]:
    """The first record of a file that has a name for each field, if there is one."""
    if place.name.lower().endswith(".parquet"):
        try:
            with place.open() as opened, pq.ParquetFile(opened) as file:
                return [dict.fromkeys(file.schema_arrow.names)]
        except (*unreadable(), pa.ArrowException):
            return []
    for _, line in zip(range(100), read_lines(place.open_plain), strict=False):
        if line.value:
            return [line.value]
    return []
