"""Parquet in streams."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.io.parquet import TableWriter, read_batches

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


def write(path: Path, content: list[dict[str, object]], cuts: list[int], **limits: int) -> bytes:
    with TableWriter(path, SCHEMA, **limits) as writer:
        at = 0
        for cut in [*sorted(cuts), len(content)]:
            writer.write_rows(content[at:cut])
            at = max(at, cut)
    return path.read_bytes()


@given(
    st.lists(st.tuples(st.text(max_size=8), st.integers(-9, 9)), max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_depend_on_rows_only(
    tmp_path: Path, pairs: list[tuple[str, int]], cuts: list[int]
) -> None:
    rows: list[dict[str, object]] = [{"id": i, "n": n} for i, n in pairs]
    whole = write(tmp_path / "a", rows, [], rows=7, text_bytes=20)
    cut = write(tmp_path / "b", rows, [min(c, len(rows)) for c in cuts], rows=7, text_bytes=20)
    assert whole == cut
    read = [row for batch in read_batches(tmp_path / "a") for row in batch.to_pylist()]
    assert read == rows


def test_groups_end_by_rows_and_by_bytes(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": "x" * size, "n": 0} for size in (1, 1, 1, 50, 1, 1)]
    write(tmp_path / "a", rows, [], rows=3, text_bytes=40)
    file = pq.ParquetFile(tmp_path / "a").metadata
    assert [file.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 1, 2]


def test_wider_types_and_further_columns_are_cast(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"n": pa.array([1], pa.int32()), "id": pa.array(["a"], pa.large_string()), "z": [1]}
    )
    with TableWriter(tmp_path / "a", SCHEMA) as writer:
        writer.write(batch)
    assert pq.read_schema(tmp_path / "a").equals(SCHEMA)


def test_errors_name_the_file_and_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "a", [{"id": "a", "n": 1}], [])
    with pytest.raises(InputError, match=r"no column 'text' \(columns: id, n\)"):
        list(read_batches(tmp_path / "a", ["text"]))
    (tmp_path / "b").write_bytes(b"PAR1 not really")
    for name in ("b", "missing"):
        with pytest.raises(InputError, match=name):
            list(read_batches(tmp_path / name))
