"""The seam to the table engine: the only module that imports Daft.

A step receives a ``Frame`` and works on it with Daft's own methods (``frame["text"]``,
``frame.groupby(...)``); what needs Daft's namespace comes from here. Nothing is computed before
``batches``, ``rows`` or ``collected``. Importing Daft takes about 0.7 s: it happens on first use.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from regrow.core.engines import prepare_engines
from regrow.core.errors import BusyError, ConfigError, ResourceError
from regrow.io.parquet import TableWriter

if TYPE_CHECKING:
    from daft import DataFrame

    from regrow.data.settings.engine import EngineConfig

    Frame: TypeAlias = DataFrame
else:
    Frame: TypeAlias = Any


class _Setup:
    """How the engine runs in this process; a process has one runner for good."""

    def __init__(self) -> None:
        self.runner = "native"
        self.workers = 1
        self.memory_bytes = 0
        self.claim: Any = None
        self.fanned_out = False


_SETUP = _Setup()
#: Of tables of columns, whose rows are short.
ROWS_PER_GROUP = 65_536
_JUDGED = pa.schema([("reason", pa.string()), ("value", pa.float64())])
#: Below this many a process pool costs more than it saves.
_WORTH_PROCESSES = 4


def configure(config: EngineConfig) -> None:
    """Choose the runner and the limits of this process, before the first table is read.

    Raises:
        ConfigError: Ray is not installed or does not answer; or tables ran on another runner in
            this process already.
        BusyError: another run is at work on the cluster.
    """
    if _daft.cache_info().currsize and config.runner != _SETUP.runner:
        raise ConfigError(
            f"engine.runner: {config.runner}, but this process runs tables on {_SETUP.runner} "
            "already; start another process"
        )
    _SETUP.runner = config.runner
    _SETUP.workers = config.workers or len(os.sched_getaffinity(0))
    _SETUP.memory_bytes = int(config.memory_gib * 2**30) if config.memory_gib else _three_quarters()
    if config.runner == "ray":
        _connect(config)


def _three_quarters() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def check(config: EngineConfig) -> None:
    """Refuse an engine that cannot be had, before anything is written.

    Raises:
        ConfigError: Ray is not installed, or nothing answers at the address.
    """
    if config.runner != "ray":
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "engine.runner: ray needs the extra [cluster]: pip install 'regrow[cluster]'"
        )
    if ":" in config.address:
        _require_answer(config.address)


def _connect(config: EngineConfig) -> None:
    """Reach the Ray cluster, or start one in this machine."""
    check(config)
    prepare_engines()
    import ray

    if ray.is_initialized():
        return
    local = config.address == "local"
    try:
        ray.init(
            address=None if local else config.address,
            num_cpus=_SETUP.workers if local else None,
            include_dashboard=False if local else None,
            namespace="regrow",
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(config.address, error) from error
    _claim_cluster(ray)
    if config.workers is None:
        _SETUP.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"engine.address: no Ray cluster at {address} ({error}); set its host:port, or local to "
        "start one here"
    )


def _claim_cluster(ray: Any) -> None:
    """Two runs on one cluster would share Daft's planner, and the first to end takes it along.

    Raises:
        BusyError: another run is at work there.
    """

    class Claim:
        """Lives as long as this process."""

    try:
        _SETUP.claim = ray.remote(num_cpus=0)(Claim).options(name="curate").remote()
    except ValueError as error:
        raise BusyError("another curate run is at work on this Ray cluster") from error


@cache
def _daft() -> Any:
    """Daft on the runner that was chosen, told before its import to stay offline."""
    prepare_engines()
    import daft

    if _SETUP.runner == "ray":
        daft.set_runner_ray(noop_if_initialized=True)
    else:
        daft.set_runner_native()
    # Each file that is being read is held whole, and by default many are read ahead: 437 MB of
    # text in 16 files peaked at 429 MB with the default, at 248 MB with one at a time.
    daft.set_execution_config(scantask_max_parallel=_SETUP.workers)
    return daft


def workers() -> int:
    """Processes that Python functions may use at once."""
    return _SETUP.workers


def fan_out(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Calls of a function in several processes, or on the cluster; results in their order.

    Args:
        function: of a module, so that it can be pickled.
        items: the arguments of each call.
    """
    if _SETUP.workers < 2 or len(items) < _WORTH_PROCESSES:
        return [function(*item) for item in items]
    import joblib

    backend = "loky"
    if _SETUP.runner == "ray":
        from ray.util.joblib import register_ray

        register_ray()
        backend = "ray"
    _SETUP.fanned_out = backend == "loky"
    with joblib.parallel_config(backend=backend, n_jobs=_SETUP.workers):
        found: list[Any] = joblib.Parallel()(joblib.delayed(function)(*item) for item in items)
    return found


def let_go() -> None:
    """End the processes of ``fan_out``, which else wait for more work and hold their memory."""
    if _SETUP.fanned_out:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()
        _SETUP.fanned_out = False


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

    apart = processes and _SETUP.workers > 1
    options = {
        "return_dtype": daft.DataType.from_arrow_type(made),
        "unnest": True,
        "batch_size": batch_rows,
    }
    if apart and _SETUP.runner == "native":
        wrapped = _pool(daft, apply, options)
    else:
        wrapped = daft.func.batch(use_process=apart, **options)(apply)
    return frame.select(*keep, wrapped(*(frame[name] for name in reads)))


def _pool(daft: Any, apply: Callable[..., pa.Array], options: Mapping[str, Any]) -> Any:
    """The function in as many processes as there are workers.

    Daft takes a process a core for a plain function, whatever it is told; of a class it makes as
    many as it is told. On Ray it is the cluster that says how many.
    """

    class Pool:
        @daft.method.batch(**options)  # type: ignore[untyped-decorator]
        def run(self, *series: Any) -> pa.Array:
            return apply(*series)

    return daft.cls(Pool, max_concurrency=_SETUP.workers, use_process=True)().run


def _one_array(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def when(condition: Any, text: str) -> Any:
    """A column expression: ``text`` where ``condition`` holds, else null."""
    daft = _daft()
    return daft.functions.when(condition, daft.lit(text)).otherwise(
        daft.lit(None).cast(daft.DataType.string())
    )


def literal(value: Any) -> Any:
    """A column expression: the same value in each row."""
    return _daft().lit(value)


def judged(
    scores: Frame, function: Callable[[pa.RecordBatch], Mapping[str, Any]], reads: Sequence[str]
) -> Frame:
    """``id``, ``reason`` and ``value``: the verdict of a step that judges a batch at a time.

    Args:
        scores: of the step.
        function: as of :func:`map_batches`; gives ``reason`` and ``value``.
        reads: columns that it gets.
    """
    return map_batches(scores, function, reads, _JUDGED, processes=False)


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


def stored(frame: Frame, folder: Path) -> Frame:
    """The same table, computed now and kept in a new folder of parquet files; for large ones."""
    folder.mkdir(parents=True)
    frame.write_parquet(str(folder), compression="lz4")
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:  # of an empty table
        return from_arrow(frame.schema().to_pyarrow_schema().empty_table())
    return read_parquet(paths)


def num_rows(frame: Frame) -> int:
    """Rows of a table; of a stored one from its footers."""
    return int(frame.count_rows())


def rows(frame: Frame) -> list[dict[str, Any]]:
    """All rows of a small table as dicts."""
    found: list[dict[str, Any]] = frame.to_pylist()
    return found


def write_sorted(frame: Frame, path: Path, schema: pa.Schema | None = None) -> int:
    """Write a table to one parquet file in the order of its ids; the same rows give equal bytes.

    Args:
        frame: has the column ``id``.
        path: the file to make.
        schema: of the file; by default the table's own.

    Returns:
        How many rows.
    """
    ordered = frame.sort("id")
    schema = schema or _plain(ordered.schema().to_pyarrow_schema())
    with TableWriter(path, schema, rows=ROWS_PER_GROUP) as writer:
        for batch in batches(ordered):
            writer.write(batch)
    return writer.written


def _plain(schema: pa.Schema) -> pa.Schema:
    """The same with Arrow's plain strings: which kind the engine gives is its own affair."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field
        for field in schema
    ]
    return pa.schema([pa.field(field.name, field.type) for field in fields])


def _check_memory() -> None:
    if not _SETUP.memory_bytes:
        return
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if used > _SETUP.memory_bytes:
        raise ResourceError(
            f"this process holds {used / 2**30:.1f} GiB, more than the "
            f"{_SETUP.memory_bytes / 2**30:.1f} GiB of engine.memory_gib; raise it, or take a "
            "smaller part of the sources; the same command goes on from the last finished stage"
        )


def batches(frame: Frame) -> Iterator[pa.RecordBatch]:
    """The rows of a table, computed in a stream; in order where the frame is sorted.

    Raises:
        ResourceError: the process grew over ``engine.memory_gib``.
    """
    for part in frame.to_arrow_iter():
        _check_memory()
        yield from part.to_batches() if isinstance(part, pa.Table) else (part,)
