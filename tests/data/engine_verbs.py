"""Every verb of the engine's seam on one small table, each result as plain values.

``python -m tests.data.engine_verbs RUNNER WORKERS FOLDER`` prints all of them as one JSON object: a
process has one runner for good.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.data import engine
from regrow.data.settings.engine import EngineConfig

ROWS = 1500
IDS = [hashlib.sha256(str(n).encode()).hexdigest()[:12] for n in range(ROWS)]
TEXTS = [f"Text  {n % 7}, with\n{'word ' * (n % 5)}and {n % 300}." for n in range(ROWS)]
GROUPS = [n % 11 for n in range(ROWS)]


def tables(folder: Path) -> list[Path]:
    """The rows in three files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": IDS, "text": TEXTS, "part": GROUPS})
    paths = [folder / f"{n}.parquet" for n in range(3)]
    for n, path in enumerate(paths):
        pq.write_table(table.slice(n * 500, 500), path, row_group_size=100)
    return paths


def lengths(batch: pa.RecordBatch) -> Mapping[str, Any]:
    return {"length": pc.utf8_length(batch["text"])}


class Meeting:
    """Gives the process of each row, once ``count`` processes are at work."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        (self.folder / str(os.getpid())).touch()
        until = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < self.count and time.monotonic() < until:
            time.sleep(0.01)
        return {"process": [os.getpid()] * batch.num_rows}


def cube(number: int, add: int) -> int:
    return number**3 + add


def by_id(frame: engine.Frame, name: str) -> dict[str, Any]:
    return {row["id"]: row[name] for row in engine.rows(frame)}


LENGTHS = pa.schema([("length", pa.int64())])


def map_batches(frame: engine.Frame, folder: Path) -> Any:
    return by_id(engine.map_batches(frame, lengths, ("text",), LENGTHS), "length")


def map_batches_here(frame: engine.Frame, folder: Path) -> Any:
    found = engine.map_batches(
        frame, lengths, ("text",), LENGTHS, keep=("id", "part"), batch_rows=7, processes=False
    )
    return {row["id"]: [row["length"], row["part"]] for row in engine.rows(found)}


def when(frame: engine.Frame, folder: Path) -> Any:
    return by_id(
        frame.select("id", engine.when(frame["part"] < 3, "low").alias("reason")), "reason"
    )


def literal(frame: engine.Frame, folder: Path) -> Any:
    return sorted({*by_id(frame.with_column("step", engine.literal("x")), "step").values()})


def all_kept(frame: engine.Frame, folder: Path) -> Any:
    kept = engine.all_kept(frame)
    return [[row["reason"], row["value"]] for row in engine.rows(kept)]


def collected(frame: engine.Frame, folder: Path) -> Any:
    return by_id(engine.collected(frame.where(frame["part"] == 4)), "text")


def stored(frame: engine.Frame, folder: Path) -> Any:
    return by_id(engine.stored(frame.where(frame["part"] == 4), folder / "stored"), "text")


def stored_empty(frame: engine.Frame, folder: Path) -> Any:
    none = engine.stored(frame.where(frame["part"] > 99), folder / "none")
    return [engine.rows(none), none.column_names]


def from_columns(frame: engine.Frame, folder: Path) -> Any:
    other = engine.from_columns({"part": [1, 2], "name": ["one", "two"]})
    return by_id(frame.join(other, on="part"), "name")


def from_arrow(frame: engine.Frame, folder: Path) -> Any:
    some = engine.from_arrow(pa.table({"id": IDS[:9]}))
    return [
        sorted(by_id(frame.join(some, on="id", how="semi"), "text")),
        engine.num_rows(frame.join(some, on="id", how="anti")),
    ]


def groups(frame: engine.Frame, folder: Path) -> Any:
    found = frame.groupby("part").agg(frame["id"].min().alias("first"), frame["id"].count())
    return {str(row["part"]): [row["first"], row["id"]] for row in engine.rows(found)}


def distinct(frame: engine.Frame, folder: Path) -> Any:
    return engine.num_rows(frame.select("text").distinct())


def concat(frame: engine.Frame, folder: Path) -> Any:
    return engine.num_rows(frame.concat(frame).select("id"))


def expressions(frame: engine.Frame, folder: Path) -> Any:
    functions = engine.expressions()
    plain = functions.normalize(frame["text"], white_space=True)
    found = frame.select(
        "id",
        functions.hash(plain).alias("hash"),
        functions.minhash(plain, num_hashes=4, ngram_size=2, seed=1).alias("minhash"),
        functions.regexp_count(frame["text"], "word").alias("words"),
        functions.length_bytes(frame["text"]).alias("bytes"),
    )
    return {
        row["id"]: [row["hash"], list(row["minhash"]), row["words"], row["bytes"]]
        for row in engine.rows(found)
    }


def write_sorted(frame: engine.Frame, folder: Path) -> Any:
    path = folder / "sorted.parquet"
    rows = engine.write_sorted(frame.sort("part"), path)
    assert pq.read_table(path)["id"].to_pylist() == sorted(IDS)
    return [rows, hashlib.sha256(path.read_bytes()).hexdigest()]


def batches(frame: engine.Frame, folder: Path) -> Any:
    found = engine.batches(frame.sort(["part", "id"]))
    return [one for batch in found for one in batch["id"].to_pylist()]


def fan_out(frame: engine.Frame, folder: Path) -> Any:
    return engine.fan_out(cube, [(n, 1) for n in range(20)])


VERBS: list[Callable[[engine.Frame, Path], Any]] = [
    map_batches,
    map_batches_here,
    when,
    literal,
    all_kept,
    collected,
    stored,
    stored_empty,
    from_columns,
    from_arrow,
    groups,
    distinct,
    concat,
    expressions,
    write_sorted,
    batches,
    fan_out,
]


def main() -> None:
    runner, workers, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    engine.configure(
        EngineConfig.model_validate({"runner": runner, "address": "local", "workers": workers})
    )
    paths = tables(folder / "tables")
    found = {verb.__name__: verb(engine.read_parquet(paths), folder) for verb in VERBS}
    # Daft keeps no more of them busy at once than it sees cores.
    together = min(workers, len(os.sched_getaffinity(0)))
    meeting = folder / "meeting"
    meeting.mkdir()
    made = pa.schema([("process", pa.int64())])
    met = engine.map_batches(
        engine.read_parquet(paths), Meeting(meeting, together), ("id",), made, batch_rows=64
    )
    pids = {row["process"] for row in engine.rows(met)}
    assert len(pids) >= together
    assert len(pids) <= workers or runner == "ray", pids  # there the cluster says how many
    found["apart"] = os.getpid() not in pids
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
