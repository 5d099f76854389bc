"""The finished documents: texts and all columns, one table a split, sorted by id.

Texts lie in parts that are sorted by id; they are merged a range of ids at a time, so that memory
is bounded whatever the amount of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.data.document import DOCUMENTS, SPLITS
from regrow.io.parquet import TableWriter

#: Text that is held at once; the next range is read while one is written.
RANGE_BYTES = 64 << 20
_HEX = 1 << 16  # ranges are told apart by four digits of the id


def ranges(size: int) -> list[tuple[str, str | None]]:
    """Bounds of ids that share ``size`` bytes of text about equally; ids are hashes."""
    count = min(_HEX, max(1, -(-size // RANGE_BYTES)))
    bounds = [f"{_HEX * number // count:04x}" for number in range(count)]
    return list(zip(bounds, [*bounds[1:], None], strict=True))


def merged(
    texts: Sequence[Path], scores: Sequence[Path], alive: Path, size: int
) -> Iterator[pa.Table]:
    """Texts with all columns of the documents that stay, sorted, a range of ids at a time.

    Args:
        texts: gathered tables, each sorted by id.
        scores: tables of columns, each sorted by id.
        alive: the ids that stay.
        size: bytes of text in all.
    """
    first, *others = ranges(size)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(_range, texts, scores, alive, *first)
        for bounds in others:
            found = later.result()
            later = pool.submit(_range, texts, scores, alive, *bounds)
            yield found
        yield later.result()


def _range(
    texts: Sequence[Path], scores: Sequence[Path], alive: Path, low: str, high: str | None
) -> pa.Table:
    wanted = _rows(alive, low, high)["id"]
    found = pa.concat_tables(_rows(path, low, high) for path in texts)
    table = found.filter(pc.is_in(found["id"], wanted)).sort_by("id")
    for path in scores:
        columns = _rows(path, low, high)
        columns = columns.filter(pc.is_in(columns["id"], wanted))
        if not columns["id"].equals(table["id"]):
            raise RuntimeError(f"{path} has not the rows of the documents that stay")
        for name in columns.column_names:
            if name != "id":
                table = table.append_column(columns.schema.field(name), columns[name])
    return table


def _rows(path: Path, low: str, high: str | None) -> pa.Table:
    """Rows of a table that is sorted by id, by its row groups' bounds."""
    with pq.ParquetFile(path) as file:
        place = file.schema_arrow.names.index("id")
        groups = [
            number
            for number in range(file.metadata.num_row_groups)
            if _overlaps(file.metadata.row_group(number).column(place).statistics, low, high)
        ]
        table = file.read_row_groups(groups, use_threads=False)
    inside = pc.greater_equal(table["id"], low)
    if high is not None:
        inside = pc.and_(inside, pc.less(table["id"], high))
    return table.filter(inside)


def _overlaps(statistics: pq.Statistics | None, low: str, high: str | None) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    return statistics.max >= low and (high is None or statistics.min < high)


class SplitWriters:
    """One table a split.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, TableWriter] = {}

    def __enter__(self) -> SplitWriters:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for writer in self._writers.values():
            writer.__exit__(kind, error, trace)

    def write(self, table: pa.Table) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Add rows; gives them back by split."""
        schema = _schema(table.schema)
        for split in SPLITS:
            writer = self._writers.get(split)
            if writer is None:
                writer = TableWriter(self.folder / f"{split}.parquet", schema)
                self._writers[split] = writer
            for batch in table.filter(pc.equal(table["split"], split)).to_batches():
                writer.write(batch)
                yield split, batch


def _schema(found: pa.Schema) -> pa.Schema:
    """The table's own fields first, then what steps added."""
    own = set(DOCUMENTS.names)
    return pa.schema([*DOCUMENTS, *(field for field in found if field.name not in own)])
