"""The verb ``curate run``: gather documents, run the steps, write one table a split.

Each source and each step is a folder of its own below ``stages/``, which appears by rename; a
killed run goes on with the first one that is missing. At the end ``documents/`` appears at once:
``<split>.parquet`` sorted by id, ``dropped.parquet`` (who left, at which step, why, by which
value), ``quarantine.jsonl`` (what could not be read) and ``manifest.json`` (all counts). What
steps computed stays in ``stages/``, so that ``reuse`` finds it; the gathered texts do not.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.atomic import read_json, remove_leftovers, staged_folder, write_json
from regrow.core.errors import InputError, Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data import engine, gathering
from regrow.data import stages as staging
from regrow.data.card import Published, card
from regrow.data.chain import chained
from regrow.data.config import CurateConfig
from regrow.data.document import DROPPED, SPLITS
from regrow.data.publish import SplitWriters, merged
from regrow.data.settings.sources import PythonSource
from regrow.data.sources import SOURCES, local_inputs
from regrow.data.stages import Alive, Stage
from regrow.data.steps import Noting
from regrow.io.parquet import TableWriter

DOCUMENTS_FOLDER = "documents"
STAGES_FOLDER = "stages"
MANIFEST = "manifest.json"
CARD = "card.json"
TIMINGS = "timings.json"  # beside documents/, whose bytes depend on the input alone
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 600
#: So many broken records are always let pass: one bad file of a small folder is no disaster.
_LET_PASS = 10
_NAMED = 5


def plan(config: CurateConfig) -> Plan:
    """What will be gathered and how it will be split.

    Raises:
        InputError: a folder that does not exist or holds nothing that could be text.
        ConfigError: settings that a step cannot work with, a column that it does not find, or an
            engine that cannot be had.
    """
    engine.check(config.engine)
    _require_reusable(config.reuse)
    figures: dict[str, Any] = {}
    for source in config.sources:
        SOURCES.get(source.kind)(source)  # a folder's files are listed here
        if isinstance(source, PythonSource):
            for domain in source.domains:
                figures[domain] = _cap(source.max_bytes.get(domain))
        else:
            figures[source.name] = f"{source.path}, {_cap(source.max_bytes)}"
    notes: list[str] = []
    for step in chained(config):
        if isinstance(step, Noting):
            notes += step.notes()
    figures["steps"] = ", ".join(config.steps)
    figures["split"] = ", ".join(f"{k} {v:g}" for k, v in config.split.shares().items())
    return Plan(f"curate {len(config.source_names())} sources", figures, (*notes,))


def _require_reusable(folder: Path | None) -> None:
    if folder and not any(folder.glob(f"{STAGES_FOLDER}/*/{staging.COUNTS}")):
        raise InputError(f"reuse: {folder} is no run folder of curate run with finished steps")


def _cap(max_bytes: int | None) -> str:
    return "all" if max_bytes is None else f"at most {max_bytes:,} bytes"


def run(config: CurateConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/documents``.

    Returns:
        ``documents`` and ``bytes`` (source to split to number), ``steps`` (in, out, dropped and
        quarantined by reason), ``examples`` (three short documents a source), ``seconds_by_step``.

    Raises:
        InputError: no usable document, more broken ones than ``max_bad``, or a step that leaves
            none.
        Interrupted: after Ctrl-C, between two stages.
    """
    for path in local_inputs(config.sources):
        run.input(path, "text")
    engine.configure(config.engine)
    final = run.path / DOCUMENTS_FOLDER
    if not (final / MANIFEST).exists():
        _make(config, run, run.path / STAGES_FOLDER, final)
    for folder in (run.path / STAGES_FOLDER).glob("gather-*"):
        shutil.rmtree(folder)
    return {**read_json(final / MANIFEST), "seconds_by_step": read_json(run.path / TIMINGS)}


def _make(config: CurateConfig, run: Run, stages: Path, final: Path) -> None:
    stages.mkdir(exist_ok=True)
    remove_leftovers(stages)
    units = [u for s in config.sources for u in SOURCES.get(s.kind)(s)]
    steps = chained(config)
    reuse = config.reuse / STAGES_FOLDER if config.reuse else None
    done: list[Stage] = []
    with run.progress("curate", len(units) + len(steps) + 1, "units") as progress:
        gathered = []
        for unit in units:
            gathered.append(_gathered(config, run, stages, unit))
            progress.advance(1, source=unit.name)
        engine.let_go()
        counts = [summed(read_json(folder / gathering.COUNTS) for folder in gathered)]
        require_documents(config, gathered, counts[0])
        alive = _everything(gathered)
        for number, step in enumerate(steps, 1):
            _stop_if_asked(run, f"step {step.name}")
            done.append(staging.do(step, number, alive, stages, reuse))
            run.log("stage", name=done[-1].folder.name, **_shown(done[-1].counts))
            counts.append(_shown(done[-1].counts))
            alive = done[-1].alive
            progress.advance(1, step=step.name)
            if not alive.rows:
                raise InputError(f"step {step.name} left no document", _why(counts[-1]))
        _stop_if_asked(run, "writing the documents")
        _publish(done, alive, gathered, counts, run, final)
        progress.advance(1, step="documents")


def _stop_if_asked(run: Run, before: str) -> None:
    if run.stop_requested:
        raise Interrupted(f"stopped before {before}; the same command goes on from there")


def _gathered(config: CurateConfig, run: Run, stages: Path, unit: Any) -> Path:
    """One source's folder, made unless an earlier attempt did."""
    _stop_if_asked(run, f"source {unit.name}")
    folder = stages / f"gather-{unit.name}"
    work = stages / f"gather-read-{unit.name}"
    if not folder.exists():
        work.mkdir(exist_ok=True)
        remove_leftovers(work)
        with staged_folder(folder) as staged:
            began = time.monotonic()
            counts = gathering.gather(unit, config.pii, staged, work)
            counts["seconds"] = round(time.monotonic() - began, 3)
            write_json(staged / gathering.COUNTS, counts)
        run.log("gathered", name=unit.name, **counts)
    gathering.forget(work)
    return folder


def _everything(gathered: Sequence[Path]) -> Alive:
    """All documents of all sources."""
    counts = [read_json(folder / gathering.COUNTS) for folder in gathered]
    digest = sum(int(one["digest"], 16) for one in counts) % (1 << 128)
    texts = tuple(path for folder in gathered for path in gathering.part_tables(folder))
    return Alive(texts, f"{digest:032x}", None, sum(one["out"] for one in counts), {})


def _shown(counts: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "in", "out", "dropped", "quarantined", "seconds", "reused")
    return {name: counts[name] for name in names if name in counts}


def summed(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts of all sources in one."""
    total: dict[str, Any] = {"step": "gather", "in": 0, "out": 0}
    counters = {name: Counter[str]() for name in ("dropped", "quarantined", "masked")}
    seconds = 0.0
    for part in parts:
        total["in"] += part["in"]
        total["out"] += part["out"]
        seconds += part["seconds"]
        for name, counter in counters.items():
            counter.update(part[name])
    tables = {name: dict(sorted(counter.items())) for name, counter in counters.items()}
    return {**total, **tables, "seconds": round(seconds, 3)}


def require_documents(
    config: CurateConfig, gathered: Sequence[Path], total: dict[str, Any]
) -> None:
    """Every source must give something, and few records may be broken; the Python domains must
    give something together."""
    chosen = {s.name for s in config.sources if not isinstance(s, PythonSource)}
    for folder in gathered:
        name = folder.name.removeprefix("gather-")
        part = read_json(folder / gathering.COUNTS)
        if name in chosen and not part["out"]:
            raise InputError(f"source {name!r} gave no usable document", _why(part))
    if not total["out"]:
        raise InputError("no usable document in any source", _why(total))
    broken = sum(total["quarantined"].values())
    if broken > max(_LET_PASS, config.max_bad * total["in"]):
        raise InputError(
            f"{broken:,} of {total['in']:,} records are broken, more than max_bad allows "
            f"({config.max_bad:g}); mend or leave out their files, or raise max_bad",
            [*_why({"quarantined": total["quarantined"], "dropped": {}}), *_named(gathered)],
        )


def _named(gathered: Sequence[Path]) -> list[str]:
    """The first broken records, with where they lie."""
    lines: list[str] = []
    for folder in gathered:
        with (folder / gathering.QUARANTINE).open(encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                lines.append(
                    f"{one['file']}, record {one['record']}: {one['detail'] or one['reason']}"
                )
                if len(lines) == _NAMED:
                    return lines
    return lines


def _why(counts: dict[str, Any]) -> list[str]:
    lines = [f"{n} quarantined: {reason}" for reason, n in counts["quarantined"].items()]
    lines += [f"{n} dropped: {reason}" for reason, n in counts["dropped"].items()]
    return lines or ["it holds no record at all"]


def _publish(
    done: Sequence[Stage],
    alive: Alive,
    gathered: Sequence[Path],
    counts: list[dict[str, Any]],
    run: Run,
    final: Path,
) -> None:
    """Write the documents, what was dropped, the manifest and the card."""
    began = time.monotonic()
    parts = [read_json(folder / gathering.COUNTS) for folder in gathered]
    size = sum(part["bytes"] for part in parts)
    tally, published = _Tally(), Published()
    scores = [stage.folder / staging.SCORES for stage in done]
    assert alive.ids is not None  # split is always there
    with staged_folder(final) as staged:
        with SplitWriters(staged) as writers:
            for table in merged(alive.texts, scores, alive.ids, size):
                for split, batch in writers.write(table):
                    tally.add(split, batch)
                    published.add(batch)
        if tally.total != alive.rows:
            raise RuntimeError(f"{alive.rows} documents stay, but {tally.total} were written")
        _write_dropped(done, alive.texts, gathered, staged)
        seconds = {c["step"]: c["seconds"] for c in counts}
        plain = [{k: v for k, v in c.items() if k not in ("seconds", "reused")} for c in counts]
        manifest = {
            "documents": tally.nested(tally.documents),
            "bytes": tally.nested(tally.bytes),
            "total_documents": tally.total,
            "total_bytes": sum(tally.bytes.values()),
            "steps": plain,
            "examples": tally.examples,
        }
        write_json(staged / MANIFEST, manifest)
        write_json(
            run.path / CARD, card(done, plain, alive.texts, published, staged / "dropped.parquet")
        )
        seconds["documents"] = round(time.monotonic() - began, 3)
        write_json(run.path / TIMINGS, seconds)


def _write_dropped(
    done: Sequence[Stage], texts: Sequence[Path], gathered: Sequence[Path], staged: Path
) -> None:
    """One table of what was dropped, one list of what was quarantined, over all stages."""
    frames = [engine.read_parquet([folder / "dropped.parquet" for folder in gathered])]
    origin = engine.read_parquet(texts).select("id", "file", "source")
    for stage in done:
        if stage.counts["dropped"]:
            gone = engine.read_parquet([stage.folder / staging.DROPPED_IDS])
            rows = gone.join(origin, on="id")
            rows = rows.with_column("step", engine.literal(stage.step.name))
            frames.append(rows.select(*DROPPED.names))
    frame = frames[0].select(*DROPPED.names)
    for other in frames[1:]:
        frame = frame.concat(other)
    with TableWriter(staged / "dropped.parquet", DROPPED) as writer:
        for batch in engine.batches(frame.sort(["id", "step"])):
            writer.write(batch)
    with (staged / gathering.QUARANTINE).open("wb") as out:
        for folder in gathered:
            with (folder / gathering.QUARANTINE).open("rb") as part:
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
