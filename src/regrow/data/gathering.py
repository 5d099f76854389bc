"""From sources to the gathered table: cleaned, masked text, stored once, in parts sorted by id.

A source is read part by part, in several processes where that pays; each part is a folder that
appears by rename. When all were read, the source is settled as a whole, and its table appears.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from regrow.core.atomic import read_json, staged_folder, write_text
from regrow.data import engine
from regrow.data.document import DROPPED, GATHERED, Rejected
from regrow.data.pii import Masker
from regrow.data.settings.pii import PiiConfig
from regrow.data.sources.pool import Part, Unit
from regrow.data.sources.settle import settle
from regrow.io.parquet import TableWriter, num_rows

COUNTS = "counts.json"
QUARANTINE = "quarantine.jsonl"
_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
#: Text of a part that is sorted in memory; a larger part becomes several tables.
TABLE_BYTES = 128 << 20


def gather(unit: Unit, pii: PiiConfig, folder: Path, work: Path) -> dict[str, Any]:
    """Read a source whole.

    Args:
        unit: the source.
        pii: what is masked.
        folder: empty; gets ``part-*.parquet``, ``dropped.parquet`` and ``quarantine.jsonl``.
        work: kept between attempts: parts that were read before are not read again.

    Returns:
        ``in``, ``out``, ``dropped``, ``quarantined``, ``masked``, ``bytes`` and ``digest``, a sum
        of hashes of all rows, whatever their order.
    """
    parts = unit.parts()
    work.mkdir(exist_ok=True)
    places = [work / f"{number:05d}" for number in range(len(parts))]
    due = [(part, pii, place) for part, place in zip(parts, places, strict=True)]
    engine.fan_out(read_part, [one for one in due if not one[2].exists()])
    tables = [table for place in places for table in sorted(place.glob("*.parquet"))]
    read = [read_json(place / COUNTS) for place in places]
    rejected = [Rejected(**record) for one in read for record in one["rejected"]]
    settled = settle(unit.name, tables, unit.max_bytes)
    rejected = sorted([*rejected, *settled.rejected], key=lambda r: (r.id, r.record, r.reason))
    due_tables = [
        (table, keep, folder / f"part-{number:05d}.parquet")
        for number, (table, keep) in enumerate(zip(tables, settled.keep, strict=True))
    ]
    written = engine.fan_out(write_part, due_tables)
    masked: Counter[str] = Counter()
    for one in read:
        masked.update(one["masked"])
    _write_rejected(rejected, folder)
    dropped = Counter(item.reason for item in rejected if not item.broken)
    quarantined = Counter(item.reason for item in rejected if item.broken)
    out = sum(rows for rows, _, _ in written)
    return {
        "step": "gather",
        "in": out + dropped.total() + quarantined.total(),
        "out": out,
        "dropped": dict(sorted(dropped.items())),
        "quarantined": dict(sorted(quarantined.items())),
        "masked": dict(sorted(masked.items())),
        "bytes": sum(size for _, size, _ in written),
        "digest": f"{sum(digest for _, _, digest in written) % (1 << 128):032x}",
    }


def read_part(part: Part, pii: PiiConfig, place: Path) -> None:
    """Read some files of a source into tables and a list of what was rejected."""
    masker = Masker(pii)
    rejected: list[Rejected] = []
    with staged_folder(place) as folder:
        for number, rows in enumerate(_tables(part, masker, rejected)):
            with TableWriter(folder / f"{number:04d}.parquet", GATHERED) as writer:
                for batch in rows:
                    writer.write_rows(batch)
        record = {
            "rejected": [asdict(item) for item in rejected],
            "masked": dict(sorted(masker.counts.items())),
        }
        # As ASCII: what could not be read may hold what no UTF-8 file can.
        write_text(folder / COUNTS, json.dumps(record))


def _tables(
    part: Part, masker: Masker, rejected: list[Rejected]
) -> Iterator[Iterator[list[dict[str, Any]]]]:
    """Rows in batches, and these in groups that fill a table."""
    batches = _batches(part, masker, rejected)
    for first in batches:
        yield _until_full(first, batches)


def _until_full(
    first: list[dict[str, Any]], batches: Iterator[list[dict[str, Any]]]
) -> Iterator[list[dict[str, Any]]]:
    yield first
    held = _size(first)
    while held < TABLE_BYTES and (batch := next(batches, None)) is not None:
        held += _size(batch)
        yield batch


def _size(rows: list[dict[str, Any]]) -> int:
    return sum(len(row["text"]) for row in rows)


def _batches(
    part: Part, masker: Masker, rejected: list[Rejected]
) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for item in part.read():
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        rows.append({**item.row(), "text": masker.mask(item.text, item.kind)})
        size += len(item.text)
        if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def write_part(table: Path, keep: np.ndarray, place: Path) -> tuple[int, int, int]:
    """Write the rows of one table that stay, sorted by id.

    Args:
        table: as read.
        keep: ``(rows,)`` bool.
        place: the file to make.

    Returns:
        Rows, bytes of text, and the sum of their hashes.
    """
    rows = pq.read_table(table, schema=GATHERED).filter(pa.array(keep)).sort_by("id")
    digest = size = 0
    with TableWriter(place, GATHERED) as writer:
        for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
            writer.write(batch)
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                text = "\x1f".join("\x1e" if value is None else value for value in values)
                digest += xxhash.xxh3_128_intdigest(text.encode())
            size += sum(len(text.encode()) for text in columns[GATHERED.names.index("text")])
    return writer.written, size, digest


def _write_rejected(rejected: list[Rejected], folder: Path) -> None:
    rows = [
        {"id": r.id, "file": r.file, "source": r.source, "step": "gather", "reason": r.reason}
        for r in rejected
        if not r.broken
    ]
    with TableWriter(folder / "dropped.parquet", DROPPED) as writer:
        writer.write_rows([{**row, "value": None} for row in rows])
    with (folder / QUARANTINE).open("w", encoding="utf-8") as file:
        file.writelines(_line(item) for item in rejected if item.broken)


def _line(item: Rejected) -> str:
    record = {
        "id": item.id,
        "file": item.file,
        "record": item.record,
        "source": item.source,
        "reason": item.reason,
        "detail": item.detail,
    }
    return json.dumps(record, ensure_ascii=True) + "\n"


def part_tables(folder: Path) -> list[Path]:
    """Tables of a gathered source that hold rows."""
    return [path for path in sorted(folder.glob("part-*.parquet")) if num_rows(path)]


def forget(work: Path) -> None:
    """Remove what was read, once it is settled."""
    shutil.rmtree(work, ignore_errors=True)
