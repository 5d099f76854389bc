"""The verb ``curate``: gather documents, run the steps, write one table a split.

Each source and each step is a unit with a folder of its own below ``stages/``, which appears by
rename; a killed run goes on with the first unit that is missing. At the end ``documents/`` appears
at once: ``<split>.parquet`` sorted by id, ``dropped.parquet`` (who left, at which step, why),
``quarantine.jsonl`` (what could not be read) and ``manifest.json`` (all counts).
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.atomic import read_json, remove_leftovers, staged_folder, write_json
from regrow.core.errors import InputError, Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data import engine
from regrow.data.config import CurateConfig
from regrow.data.document import DOCUMENTS, DROPPED, GATHERED, SPLITS, Rejected
from regrow.data.pii import Masker
from regrow.data.settings.pii import PiiConfig
from regrow.data.settings.sources import PythonSource
from regrow.data.sources import SOURCES, local_inputs
from regrow.data.sources.pool import Unit
from regrow.data.sources.settle import settle
from regrow.data.steps import STEPS
from regrow.io.parquet import TableWriter, num_rows, read_batches

DOCUMENTS_FOLDER = "documents"
MANIFEST = "manifest.json"
TIMINGS = "timings.json"  # beside documents/, whose bytes depend on the input alone
_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 600


def plan(config: CurateConfig) -> Plan:
    """What will be gathered and how it will be split.

    Raises:
        InputError: a folder that does not exist or holds nothing that could be text.
    """
    figures: dict[str, Any] = {}
    for source in config.sources:
        SOURCES.get(source.kind)(source)  # a folder's files are listed here
        if isinstance(source, PythonSource):
            for domain in source.domains:
                figures[domain] = _cap(source.max_bytes.get(domain))
        else:
            figures[source.name] = f"{source.path}, {_cap(source.max_bytes)}"
    figures["steps"] = ", ".join(config.steps)
    figures["split"] = ", ".join(f"{k} {v:g}" for k, v in config.split.shares().items())
    return Plan(f"curate {len(config.source_names())} sources", figures)


def _cap(max_bytes: int | None) -> str:
    return "all" if max_bytes is None else f"at most {max_bytes:,} bytes"


def run(config: CurateConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/documents``.

    Returns:
        ``documents`` and ``bytes`` (source to split to number), ``steps`` (in, out, dropped and
        quarantined by reason), ``examples`` (three short documents a source), ``seconds_by_step``.

    Raises:
        InputError: no usable document, or a step that leaves none.
        Interrupted: after Ctrl-C, between two units.
    """
    for path in local_inputs(config.sources):
        run.input(path, "text")
    final = run.path / DOCUMENTS_FOLDER
    stages = run.path / "stages"
    if not (final / MANIFEST).exists():
        _make(config, run, stages, final)
    shutil.rmtree(stages, ignore_errors=True)
    return {**read_json(final / MANIFEST), "seconds_by_step": read_json(run.path / TIMINGS)}


def _make(config: CurateConfig, run: Run, stages: Path, final: Path) -> None:
    stages.mkdir(exist_ok=True)
    remove_leftovers(stages)
    units = [u for s in config.sources for u in SOURCES.get(s.kind)(s)]
    done: list[Path] = []
    with run.progress("curate", len(units) + len(config.steps), "units") as progress:
        for unit in units:
            gather = partial(_gather, config.pii)
            done.append(_unit(run, stages / f"gather-{unit.name}", unit, gather))
            progress.advance(1, source=unit.name)
        counts = [_summed("gather", [read_json(folder / "counts.json") for folder in done])]
        _require_documents(config, done, counts[0])
        tables = [folder / "kept.parquet" for folder in done]
        for number, name in enumerate(config.steps[:-1], 1):
            step = STEPS.get(name)(config)
            folder = stages / f"step-{number:02d}-{name}"
            done.append(_unit(run, folder, (step, tables), _apply))
            counts.append(read_json(folder / "counts.json"))
            tables = [folder / "kept.parquet"]
            progress.advance(1, step=name)
            if not counts[-1]["out"]:
                raise InputError(f"step {name} left no document; dropped: {counts[-1]['dropped']}")
        with staged_folder(final) as staged:
            _publish(config, tables, done, counts, staged)
            write_json(run.path / TIMINGS, {c["step"]: c["seconds"] for c in counts})
        progress.advance(1, step="split")


def _unit(run: Run, folder: Path, work: Any, make: Any) -> Path:
    """Make one unit's folder unless an earlier attempt did."""
    if run.stop_requested:
        raise Interrupted(f"stopped before {folder.name}; the same command goes on from there")
    if not folder.exists():
        with staged_folder(folder) as staged:
            started = time.monotonic()
            counts = make(work, staged)
            counts["seconds"] = round(time.monotonic() - started, 3)
            write_json(staged / "counts.json", counts)
        run.log("unit", name=folder.name, **counts)
    return folder


def _gather(pii: PiiConfig, unit: Unit, folder: Path) -> dict[str, Any]:
    """Read one source into ``kept.parquet``, ``dropped.parquet`` and ``quarantine.jsonl``."""
    masker = Masker(pii)
    rejected: list[Rejected] = []
    found = folder / "found.parquet"
    with TableWriter(found, GATHERED) as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for item in unit.read():
            if isinstance(item, Rejected):
                rejected.append(item)
                continue
            rows.append({**item.row(), "text": masker.mask(item.text, item.kind)})
            size += len(item.text)
            if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                writer.write_rows(rows)
                rows, size = [], 0
        writer.write_rows(rows)
    settled = settle(unit.name, [found], unit.max_bytes)
    rejected += settled.rejected
    first = 0
    with TableWriter(folder / "kept.parquet", GATHERED) as kept:
        for batch in read_batches(found):
            stays = settled.keep[0][first : first + batch.num_rows]
            kept.write(batch.filter(pa.array(stays)))
            first += batch.num_rows
    found.unlink()
    dropped = Counter(item.reason for item in rejected if not item.broken)
    quarantined = Counter(item.reason for item in rejected if item.broken)
    with (
        TableWriter(folder / "dropped.parquet", DROPPED) as left,
        (folder / "quarantine.jsonl").open("w", encoding="utf-8") as quarantine,
    ):
        left.write_rows([_dropped_row(item) for item in rejected if not item.broken])
        quarantine.writelines(_quarantine_line(item) for item in rejected if item.broken)
    return {
        **_counts("gather", kept.written, dropped, quarantined),
        "masked": dict(sorted(masker.counts.items())),
    }


def _quarantine_line(item: Rejected) -> str:
    record = {
        "id": item.id,
        "file": item.file,
        "record": item.record,
        "source": item.source,
        "reason": item.reason,
        "detail": item.detail,
    }
    return json.dumps(record, ensure_ascii=True) + "\n"


def _dropped_row(item: Rejected) -> dict[str, Any]:
    return {
        "id": item.id,
        "file": item.file,
        "source": item.source,
        "step": "gather",
        "reason": item.reason,
    }


def _counts(
    step: str, out: int, dropped: Counter[str], quarantined: Counter[str]
) -> dict[str, Any]:
    return {
        "step": step,
        "in": out + dropped.total() + quarantined.total(),
        "out": out,
        "dropped": dict(sorted(dropped.items())),
        "quarantined": dict(sorted(quarantined.items())),
    }


def _summed(step: str, parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    out, seconds = 0, 0.0
    dropped: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    for part in parts:
        out += part["out"]
        seconds += part["seconds"]
        dropped.update(part["dropped"])
        quarantined.update(part["quarantined"])
        masked.update(part["masked"])
    return {
        **_counts(step, out, dropped, quarantined),
        "masked": dict(sorted(masked.items())),
        "seconds": round(seconds, 3),
    }


def _require_documents(config: CurateConfig, done: list[Path], total: dict[str, Any]) -> None:
    """Every folder source must give something; the Python domains must give something together."""
    chosen = {s.name for s in config.sources if not isinstance(s, PythonSource)}
    for folder in done:
        name = folder.name.removeprefix("gather-")
        part = read_json(folder / "counts.json")
        if name in chosen and not part["out"]:
            raise InputError(f"source {name!r} gave no usable document", _why(part))
    if not total["out"]:
        raise InputError("no usable document in any source", _why(total))


def _why(counts: dict[str, Any]) -> list[str]:
    lines = [f"{n} quarantined: {reason}" for reason, n in counts["quarantined"].items()]
    lines += [f"{n} dropped: {reason}" for reason, n in counts["dropped"].items()]
    return lines or ["it holds no record at all"]


def _apply(work: Any, folder: Path) -> dict[str, Any]:
    """Run one step over the tables before it; split its rows into kept and dropped."""
    step, tables = work
    before = engine.read_parquet(tables)
    dropped: Counter[str] = Counter()
    kept: TableWriter | None = None
    with TableWriter(folder / "dropped.parquet", DROPPED) as left:
        try:
            for batch in engine.batches(step.apply(before)):
                stays = pc.is_null(batch["reason"])
                if kept is None:
                    kept = TableWriter(folder / "kept.parquet", _plain_schema(batch.schema))
                kept.write(batch.filter(stays))
                _write_dropped(batch.filter(pc.invert(stays)), step.name, left, dropped)
        finally:
            if kept is not None:
                kept.__exit__(None, None, None)
    out = kept.written if kept else 0
    _require_all_rows(step.name, tables, out + dropped.total())
    return _counts(step.name, out, dropped, Counter())


def _require_all_rows(step: str, tables: list[Path], found: int) -> None:
    """A step that loses or doubles rows would make every count a lie."""
    expected = sum(num_rows(table) for table in tables)
    if found != expected:
        raise RuntimeError(f"step {step} was given {expected} rows and returned {found}")


def _write_dropped(
    batch: pa.RecordBatch, step: str, left: TableWriter, dropped: Counter[str]
) -> None:
    if batch.num_rows:
        dropped.update(batch["reason"].to_pylist())
        names = pa.array([step] * batch.num_rows, pa.string())
        left.write(batch.append_column("step", names))


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """The table's own fields where it has them, a step's further columns after."""
    own = {field.name: field for field in DOCUMENTS}
    further = [f for f in schema if f.name not in own and f.name != "reason"]
    return pa.schema([*(f for f in DOCUMENTS if f.name in schema.names), *further])


def _publish(
    config: CurateConfig,
    tables: list[Path],
    done: list[Path],
    counts: list[dict[str, Any]],
    staged: Path,
) -> None:
    """Run the split, and write the documents, what was dropped, and the manifest."""
    started = time.monotonic()
    step = STEPS.get(config.steps[-1])(config)
    frame = step.apply(engine.read_parquet(tables)).sort("id")
    tally = _Tally()
    writers: dict[str, TableWriter] = {}
    try:
        for batch in engine.batches(frame):
            for split in SPLITS:
                part = batch.filter(pc.equal(batch["split"], split))
                if split not in writers:
                    schema = _plain_schema(batch.schema)
                    writers[split] = TableWriter(staged / f"{split}.parquet", schema)
                writers[split].write(part)
                tally.add(split, part)
    finally:
        for writer in writers.values():
            writer.__exit__(None, None, None)
    _require_all_rows(step.name, tables, tally.total)
    counts.append(
        {
            **_counts(step.name, tally.total, Counter(), Counter()),
            "seconds": round(time.monotonic() - started, 3),
        }
    )
    _gather_rejects(done, staged)
    manifest = {
        "documents": tally.nested(tally.documents),
        "bytes": tally.nested(tally.bytes),
        "total_documents": tally.total,
        "total_bytes": sum(tally.bytes.values()),
        "steps": [{k: v for k, v in c.items() if k != "seconds"} for c in counts],
        "examples": tally.examples,
    }
    write_json(staged / MANIFEST, manifest)


def _gather_rejects(done: list[Path], staged: Path) -> None:
    """One table of what was dropped, one list of what was quarantined, over all units."""
    frame = engine.read_parquet([folder / "dropped.parquet" for folder in done]).sort(
        ["id", "step"]
    )
    with TableWriter(staged / "dropped.parquet", DROPPED) as writer:
        for batch in engine.batches(frame):
            writer.write(batch)
    with (staged / "quarantine.jsonl").open("wb") as out:
        for folder in done:
            if (folder / "quarantine.jsonl").exists():
                with (folder / "quarantine.jsonl").open("rb") as part:
                    shutil.copyfileobj(part, out)


class _Tally:
    """Documents and bytes by source and split, and a few short documents to show."""

    def __init__(self) -> None:
        self.documents: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, list[dict[str, str]]] = {}

    @property
    def total(self) -> int:
        return self.documents.total()

    def add(self, split: str, batch: pa.RecordBatch) -> None:
        sizes = pc.binary_length(batch["text"]).to_pylist()
        for index, (source, size) in enumerate(
            zip(batch["source"].to_pylist(), sizes, strict=True)
        ):
            self.documents[source, split] += 1
            self.bytes[source, split] += size
            shown = self.examples.setdefault(source, [])
            if split == "train" and len(shown) < _EXAMPLES:
                text = batch["text"][index].as_py()
                short = text[:_EXAMPLE_CHARACTERS] + (
                    "…" if len(text) > _EXAMPLE_CHARACTERS else ""
                )
                shown.append({"file": batch["file"][index].as_py(), "text": short})

    @staticmethod
    def nested(counter: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
        table: dict[str, dict[str, int]] = {}
        for (source, split), number in sorted(counter.items(), key=_by_source):
            table.setdefault(source, {})[split] = number
        return table


def _by_source(item: tuple[tuple[str, str], int]) -> tuple[str, int]:
    (source, split), _ = item
    return source, SPLITS.index(split)
