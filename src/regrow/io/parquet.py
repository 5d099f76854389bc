"""Parquet tables in streams: equal rows give equal bytes, however they were batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.errors import InputError

ROWS_PER_GROUP = 256
BYTES_PER_GROUP = 16 << 20


class TableWriter:
    """Writes record batches to one file; where a row group ends depends on the rows alone.

    Use it as a context manager, inside a staged folder: it does not rename.

    Args:
        path: the file to make.
        schema: of the file; batches are cast to it and may have further columns.
        rows: rows of a group at most.
        text_bytes: a group ends with the row that fills this many bytes of text.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        rows: int = ROWS_PER_GROUP,
        text_bytes: int = BYTES_PER_GROUP,
    ) -> None:
        self.schema, self.rows, self.text_bytes = schema, rows, text_bytes
        self.written = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of ``batch``."""
        batch = batch.select(self.schema.names).cast(self.schema)
        first = 0
        for row, size in enumerate(_text_sizes(batch)):
            self._pending_rows += 1
            self._pending_bytes += size
            if self._pending_rows >= self.rows or self._pending_bytes >= self.text_bytes:
                self._pending.append(batch.slice(first, row + 1 - first))
                self._flush()
                first = row + 1
        if first < batch.num_rows:
            self._pending.append(batch.slice(first))

    def write_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows given as dicts."""
        self.write(pa.RecordBatch.from_pylist(list(rows), schema=self.schema))

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, schema=self.schema).combine_chunks()
        if table.num_rows:
            self._file.write_table(table, row_group_size=table.num_rows)
        self.written += table.num_rows
        self._pending = []
        self._pending_rows = self._pending_bytes = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()


def _text_sizes(batch: pa.RecordBatch) -> list[int]:
    """Bytes of text in each row."""
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    return sizes.tolist()  # type: ignore[no-any-return]


def num_rows(path: Path) -> int:
    """Rows of a parquet file, from its footer.

    Raises:
        InputError: no parquet file there.
    """
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet ({error})") from error


def read_batches(
    path: Path, columns: Sequence[str] | None = None, rows: int = ROWS_PER_GROUP
) -> Iterator[pa.RecordBatch]:
    """The rows of a parquet file in order, at most ``rows`` at a time.

    Raises:
        InputError: the file is missing, broken, or has no such column.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                found = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path} has no column {missing[0]!r} (columns: {found})")
            yield from file.iter_batches(
                batch_size=rows, columns=list(columns) if columns else None
            )
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet ({error})") from error
