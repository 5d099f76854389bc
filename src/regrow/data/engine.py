"""The seam to the table engine: the only module that imports Daft.

A step receives a ``Frame`` and works on it with Daft's own methods (``frame["text"]``,
``frame.groupby(...)``); what needs Daft's namespace comes from here. Nothing is computed before
``batches``, ``rows`` or ``collected``. Importing Daft takes about 0.7 s: it happens on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from regrow.core.engines import prepare_engines

if TYPE_CHECKING:
    from daft import DataFrame

    Frame: TypeAlias = DataFrame
else:
    Frame: TypeAlias = Any


@cache
def _daft() -> Any:
    """Daft on its native runner, told before its import to stay offline."""
    prepare_engines()
    import daft

    daft.set_runner_native()
    return daft


def read_parquet(paths: Sequence[Path]) -> Frame:
    """The rows of parquet files of one schema."""
    return _daft().read_parquet([str(path) for path in paths])


def from_columns(columns: Mapping[str, Sequence[Any]]) -> Frame:
    """A table from lists of equal length."""
    return _daft().from_pydict({name: list(values) for name, values in columns.items()})


def from_arrow(table: pa.Table) -> Frame:
    """A table from an Arrow table."""
    return _daft().from_arrow(table)


def expressions() -> Any:
    """Daft's ``functions`` module, for what a column expression has no method for."""
    return _daft().functions


def map_batches(
    frame: Frame,
    function: Callable[[pa.RecordBatch], Mapping[str, Any]],
    reads: Sequence[str],
    makes: pa.Schema,
    *,
    keep: Sequence[str] = ("id",),
    batch_rows: int = 512,
    processes: bool = True,
) -> Frame:
    """New columns from a Python function of whole batches, beside ``keep``.

    Args:
        frame: the table.
        function: of a batch with the columns ``reads``; gives for each field of ``makes`` an array
            or list of as many values. Pure and picklable (a module's function, or a ``partial`` or
            an object with ``__call__``): it may run in other processes, and on other machines.
        reads: columns that the function gets.
        makes: names and types of what it gives.
        keep: columns of ``frame`` that stay beside them.
        batch_rows: rows at a time; what comes out must not depend on it.
        processes: whether it may leave this process; False for what NumPy does without the lock.
    """
    daft = _daft()
    made = pa.struct(list(makes))

    def apply(*series: Any) -> pa.Array:
        columns = [one.to_arrow() for one in series]
        batch = pa.RecordBatch.from_arrays([_one_array(c) for c in columns], names=list(reads))
        found = function(batch)
        arrays = [pa.array(found[field.name], field.type) for field in makes]
        return pa.StructArray.from_arrays(arrays, fields=list(makes))

    wrapped = daft.func.batch(
        return_dtype=daft.DataType.from_arrow_type(made),
        unnest=True,
        use_process=processes and _workers() > 1,
        batch_size=batch_rows,
    )(apply)
    return frame.select(*keep, wrapped(*(frame[name] for name in reads)))


def _one_array(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _workers() -> int:
    return 1


def text_function(function: Callable[[str], str]) -> Callable[[Any], Any]:
    """A function of one text as a function of a column expression.

    Args:
        function: pure, from text to text.
    """
    daft = _daft()

    def apply(series: Any) -> pa.Array:
        return pa.array([function(value) for value in series.to_pylist()], pa.large_string())

    return daft.func.batch(return_dtype=daft.DataType.string())(apply)  # type: ignore[no-any-return]


def when(condition: Any, text: str) -> Any:
    """A column expression: ``text`` where ``condition`` holds, else null."""
    daft = _daft()
    return daft.functions.when(condition, daft.lit(text)).otherwise(
        daft.lit(None).cast(daft.DataType.string())
    )


def all_kept(scores: Frame) -> Frame:
    """``id``, ``reason`` and ``value``, both null: the verdict of a step that drops nothing."""
    daft = _daft()
    nothing = daft.lit(None)
    return scores.select(
        "id",
        nothing.cast(daft.DataType.string()).alias("reason"),
        nothing.cast(daft.DataType.float64()).alias("value"),
    )


def collected(frame: Frame) -> Frame:
    """The same table, computed now and held; for small ones that are used twice."""
    return frame.collect()


def rows(frame: Frame) -> list[dict[str, Any]]:
    """All rows of a small table as dicts."""
    found: list[dict[str, Any]] = frame.to_pylist()
    return found


def batches(frame: Frame) -> Iterator[pa.RecordBatch]:
    """The rows of a table, computed in a stream; in order where the frame is sorted."""
    for part in frame.to_arrow_iter():
        yield from part.to_batches() if isinstance(part, pa.Table) else (part,)
