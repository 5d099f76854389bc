"""Steps at work: each in a folder of its own that appears by rename, and is found again.

``stages/NN-STEP-HASH/`` holds ``scores.parquet`` (id and the step's columns), ``dropped.parquet``
(id, reason, value), ``alive.parquet`` (ids of those that stay), ``counts.json``, and what the step
put there. The hash is of all that the scores depend on: the step, its version, its settings, and
the documents that it was given. So scores are found again after a kill, and in another run whose
thresholds differ; where a step scores each document alone, even for those of the documents that
both runs have.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.atomic import read_json, staged_folder, write_json
from regrow.data import engine
from regrow.data.document import GATHERED
from regrow.data.steps import Step
from regrow.io.parquet import TableWriter

SCORES, ALIVE, DROPPED_IDS = "scores.parquet", "alive.parquet", "dropped.parquet"
COUNTS = "counts.json"
VERDICTS = pa.schema([("id", pa.string()), ("reason", pa.string()), ("value", pa.float64())])
IDS = pa.schema([("id", pa.string())])
_OWN = {ALIVE, DROPPED_IDS, COUNTS}


@dataclass(frozen=True, slots=True)
class Alive:
    """The documents that are still there.

    Args:
        texts: the gathered tables, with every document there ever was.
        digest: of the gathered rows.
        ids: the table of those that stay; None for all.
        rows: how many stay.
        columns: column of an earlier step to the table that holds it.
    """

    texts: tuple[Path, ...]
    digest: str
    ids: Path | None
    rows: int
    columns: dict[str, Path]

    def frame(self, names: tuple[str, ...]) -> engine.Frame:
        """``id`` and the columns ``names`` of these documents."""
        own = [name for name in names if name in GATHERED.names and name != "id"]
        frame = engine.read_parquet(self.texts).select("id", *own)
        if self.ids is not None:
            frame = frame.join(engine.read_parquet([self.ids]), on="id", how="semi")
        tables: dict[Path, list[str]] = {}
        for name in names:
            if name != "id" and name not in own:
                tables.setdefault(self.columns[name], []).append(name)
        for table, wanted in tables.items():
            scores = engine.read_parquet([table]).select("id", *wanted)
            frame = frame.join(scores, on="id")
        return frame

    def identity(self) -> str:
        """Hex hash of which documents these are, texts included."""
        ids = hashlib.sha256(self.digest.encode())
        if self.ids is not None:
            with pq.ParquetFile(self.ids) as file:
                for batch in file.iter_batches():
                    ids.update("".join(batch["id"].to_pylist()).encode())
        return ids.hexdigest()


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished step.

    Args:
        step: the step.
        folder: what it made.
        alive: the documents that stay.
        counts: ``step, in, out, dropped, seconds, reused``.
    """

    step: Step
    folder: Path
    alive: Alive
    counts: dict[str, Any]

    @property
    def scores(self) -> engine.Frame:
        """``id`` and the step's columns, of the documents that it was given."""
        return engine.read_parquet([self.folder / SCORES])


def stage_name(number: int, step: Step, alive: Alive) -> str:
    """Name of a step's folder."""
    what = [step.name, step.version, step.key(), alive.identity()]
    text = json.dumps(what, sort_keys=True, default=str)
    return f"{number:02d}-{step.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def do(step: Step, number: int, alive: Alive, stages: Path, reuse: Path | None) -> Stage:
    """Score and judge, or find that this was done.

    Args:
        step: the step.
        number: its place.
        alive: what it is given.
        stages: of the run.
        reuse: ``stages`` of another run, whose scores serve as far as they fit.

    Raises:
        RuntimeError: the step lost or doubled rows.
    """
    folder = stages / stage_name(number, step, alive)
    if not folder.exists():
        began = time.monotonic()
        with staged_folder(folder) as staged:
            reused = _score(step, alive, staged, folder.name, reuse)
            counts = _judge(step, alive, staged)
            counts |= {"seconds": round(time.monotonic() - began, 3), "reused": reused}
            record = {"version": step.version, "key": step.key(), "texts": alive.digest}
            write_json(staged / COUNTS, {**counts, **record})
    counts = read_json(folder / COUNTS)
    columns = dict.fromkeys(pq.read_schema(folder / SCORES).names, folder / SCORES)
    columns.pop("id")
    twice = sorted(set(columns) & {*alive.columns, *GATHERED.names})
    if twice:
        raise RuntimeError(f"step {step.name} makes the column {twice[0]!r} a second time")
    left = Alive(
        alive.texts, alive.digest, folder / ALIVE, counts["out"], {**alive.columns, **columns}
    )
    return Stage(step, folder, left, counts)


def _score(step: Step, alive: Alive, staged: Path, name: str, reuse: Path | None) -> int:
    """Write ``scores.parquet``; how many of its rows another run had computed."""
    before = reuse and _found_before(reuse, name)
    if before:
        _take_over(before, staged, {SCORES})
        return alive.rows
    frame = alive.frame(step.reads())
    known = reuse and step.per_document and _same_step(reuse, step, alive.digest)
    if not known:
        engine.write_sorted(step.score(frame, staged), staged / SCORES)
        return 0
    had = engine.read_parquet([known / SCORES]).join(frame.select("id"), on="id", how="semi")
    rows = engine.write_sorted(had, staged / SCORES)
    if rows == alive.rows:
        _take_over(known, staged, set())
        return rows
    held = staged / "held.parquet"
    (staged / SCORES).rename(held)
    kept = engine.read_parquet([held])
    scored = step.score(frame.join(kept.select("id"), on="id", how="anti"), staged)
    engine.write_sorted(scored.select(*kept.column_names).concat(kept), staged / SCORES)
    held.unlink()
    return rows


def _take_over(other: Path, staged: Path, further: set[str]) -> None:
    """What a step has put beside its scores in another run, and the files ``further``."""
    for path in other.iterdir():
        if path.name in further or path.name not in {SCORES, *_OWN}:
            _link(path, staged / path.name)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file systems differ."""
    if source.is_dir():
        shutil.copytree(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _found_before(reuse: Path, name: str) -> Path | None:
    """A finished stage with the same hash; its place in the order may be another."""
    own = name.partition("-")[2]
    return next(
        (path for path in sorted(reuse.glob(f"??-{own}")) if (path / COUNTS).exists()), None
    )


def _same_step(reuse: Path, step: Step, digest: str) -> Path | None:
    """A finished stage of the same step over the same texts, of other documents among them."""
    wanted = {"version": step.version, "key": json.loads(json.dumps(step.key(), default=str))}
    for path in sorted(reuse.glob(f"??-{step.name}-*")):
        if (path / COUNTS).exists():
            counts = read_json(path / COUNTS)
            if counts["texts"] == digest and all(counts[k] == v for k, v in wanted.items()):
                return path
    return None


def _judge(step: Step, alive: Alive, staged: Path) -> dict[str, Any]:
    """Write who goes and who stays; the counts."""
    verdicts = step.judge(engine.read_parquet([staged / SCORES]), staged).sort("id")
    dropped: Counter[str] = Counter()
    last = ""
    with (
        TableWriter(staged / ALIVE, IDS, rows=engine.ROWS_PER_GROUP) as stay,
        TableWriter(staged / DROPPED_IDS, VERDICTS, rows=engine.ROWS_PER_GROUP) as go,
    ):
        for batch in engine.batches(verdicts.select("id", "reason", "value")):
            if batch.num_rows:
                last = _rising(step.name, batch["id"], last)
            stays = pc.is_null(batch["reason"])
            stay.write(batch.filter(stays))
            gone = batch.filter(pc.invert(stays))
            dropped.update(gone["reason"].to_pylist())
            go.write(gone)
    given = pq.read_metadata(staged / SCORES).num_rows
    out = stay.written
    if given != alive.rows or out + dropped.total() != alive.rows:
        raise RuntimeError(
            f"step {step.name} was given {alive.rows} rows, scored {given} and judged "
            f"{out + dropped.total()}"
        )
    return {
        "step": step.name,
        "in": alive.rows,
        "out": out,
        "dropped": dict(sorted(dropped.items())),
        "quarantined": {},
    }


def _rising(step: str, ids: Any, last: str) -> str:
    """The last of sorted ids; an id that stands twice would be counted twice."""
    values = np.array([last, *ids.to_pylist()])
    if (values[1:] <= values[:-1]).any():
        raise RuntimeError(f"step {step} gave an id twice")
    return str(values[-1])
