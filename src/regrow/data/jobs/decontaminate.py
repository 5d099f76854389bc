"""The verb ``curate decontaminate``: take what evaluation sets hold out of finished documents.

Each split is looked through in a folder of its own below ``stages/``, which appears by rename; at
the end ``documents/`` appears at once, with the rows that stay and ``dropped.parquet``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.atomic import read_json, remove_leftovers, staged_folder, write_json
from regrow.core.errors import InputError, Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data import engine
from regrow.data.card import EXAMPLES
from regrow.data.document import DROPPED, split_tables
from regrow.data.overlap import words_from
from regrow.data.settings.decontaminate import DecontaminateConfig
from regrow.data.stages import SCORES
from regrow.data.steps.decontaminate import Decontaminate, Tally, judge_batch
from regrow.io.parquet import TableWriter, num_rows, read_batches
from regrow.io.runs import resolve_documents

DOCUMENTS_FOLDER = "documents"
STAGES_FOLDER = "stages"
FIGURES = "figures.json"
CARD = "card.json"
_EXAMPLE_WORDS = 40
_NEEDED = ("id", "file", "text", "source")


def plan(config: DecontaminateConfig) -> Plan:
    """What will be looked through, and for what.

    Raises:
        ConfigError: no set, or one that is not known.
        InputError: no documents, or a set that is missing, is broken or holds no such field.
    """
    step = Decontaminate.of(config)
    tables = _tables(config)
    items = len(step.index.ids)  # all of the sets is read
    return Plan(
        f"decontaminate {config.documents}",
        {
            "documents": sum(num_rows(table) for table in tables),
            "splits": ", ".join(table.stem for table in tables),
            "against": ", ".join(one.name for one in step.sets),
            "items": items,
            "words": config.words,
        },
    )


def _tables(config: DecontaminateConfig) -> list[Path]:
    found = split_tables(resolve_documents(config.documents))
    for path in found:
        num_rows(path)  # a parquet file
        names = pq.read_schema(path).names
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r} (columns: {', '.join(names)})")
    return found


def run(config: DecontaminateConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/documents``.

    Returns:
        ``documents`` (split to ``in``, ``out``, ``dropped`` by reason), ``total_documents``,
        ``sets`` (of each: ``items``, ``too_short``, ``found``, ``share``, ``documents``).

    Raises:
        ConfigError, InputError: as in :func:`plan`; documents that are not sorted by id; none is
            left.
        Interrupted: after Ctrl-C, between two splits.
    """
    step = Decontaminate.of(config)
    tables = _tables(config)
    run.input(resolve_documents(config.documents), "documents")
    for one in step.sets:
        for where in one.places:
            if Path(where).exists():
                run.input(Path(where), "evaluation set")
    engine.configure(config.engine)
    stages = run.path / STAGES_FOLDER
    stages.mkdir(exist_ok=True)
    remove_leftovers(stages)
    with run.progress("decontaminate", 2 * len(tables), "tables") as progress:
        for table in tables:
            if run.stop_requested:
                raise Interrupted(f"stopped before {table.stem}; the same command goes on there")
            if not (stages / table.stem).exists():
                with staged_folder(stages / table.stem) as staged:
                    frame = engine.read_parquet([table]).select("id", "text")
                    engine.write_sorted(step.score(frame, staged), staged / SCORES)
            progress.advance(1, split=table.stem)
        final = run.path / DOCUMENTS_FOLDER
        if not final.exists():
            with staged_folder(final) as staged:
                gone: list[dict[str, Any]] = []
                shown: dict[str, list[dict[str, Any]]] = {}
                figures = {t.stem: _write(t, stages / t.stem, staged, gone, shown) for t in tables}
                if not any(one["out"] for one in figures.values()):
                    raise InputError(
                        f"every document of {config.documents} shares words with an evaluation "
                        "set; are they that set itself?"
                    )
                with TableWriter(staged / "dropped.parquet", DROPPED) as writer:
                    writer.write_rows(sorted(gone, key=lambda row: row["id"]))
                write_json(staged / FIGURES, {"documents": figures, "dropped": shown})
        progress.advance(len(tables))
    made = read_json(final / FIGURES)
    scores = engine.read_parquet([stages / table.stem / SCORES for table in tables])
    tally = Tally(step.index, scores)
    write_json(run.path / CARD, _card(made, tally))
    counts = made["documents"].values()
    return {
        "documents": made["documents"],
        "total_documents": sum(one["out"] for one in counts),
        "total_dropped": sum(one["in"] - one["out"] for one in counts),
        "sets": tally.sets(),
    }


def _card(made: dict[str, Any], tally: Tally) -> dict[str, Any]:
    """As the card of a curation, of this one step."""
    counts = made["documents"].values()
    dropped: Counter[str] = Counter()
    for one in counts:
        dropped.update(one["dropped"])
    stage = {
        "step": Decontaminate.name,
        "in": sum(one["in"] for one in counts),
        "out": sum(one["out"] for one in counts),
        "dropped": dict(sorted(dropped.items())),
        "quarantined": {},
    }
    return {
        "stages": [stage],
        "exhibits": {Decontaminate.name: tally.exhibits()},
        "dropped": {Decontaminate.name: made["dropped"]},
    }


def _judged(table: Path, scores: Path) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Documents and, beside them, reason and value."""
    names = pq.read_schema(table).names
    own = read_batches(table, names)
    columns = ["id", "overlap_set", "overlap_place"]
    waiting = pa.Table.from_batches([], pq.read_schema(scores)).select(columns)
    more = read_batches(scores, columns)
    for batch in own:
        while waiting.num_rows < batch.num_rows:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([next(more)])])
        part = waiting.slice(0, batch.num_rows).combine_chunks().to_batches()[0]
        waiting = waiting.slice(batch.num_rows)
        if not part["id"].cast(pa.string()).equals(batch["id"].cast(pa.string())):
            raise InputError(f"{table} is not sorted by id; name a run folder of curate")
        found = judge_batch(part)
        verdict = {
            "reason": pa.array(found["reason"], pa.string()),
            "value": found["value"],
        }
        yield batch, pa.RecordBatch.from_pydict(verdict)


def _write(
    table: Path,
    stage: Path,
    staged: Path,
    gone: list[dict[str, Any]],
    shown: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Write the rows that stay.

    Args:
        table: of a split.
        stage: what was found in it.
        staged: where it goes.
        gone: gets a row for each document that goes.
        shown: gets a few of them by reason, with the words that are shared.

    Returns:
        How many came, stayed and went, by reason.
    """
    dropped: Counter[str] = Counter()
    given = 0
    with TableWriter(staged / table.name, pq.read_schema(table)) as writer:
        for batch, verdict in _judged(table, stage / SCORES):
            given += batch.num_rows
            goes = pc.is_valid(verdict["reason"])
            writer.write(batch.filter(pc.invert(goes)))
            rows = batch.select(list(_NEEDED)).filter(goes).to_pylist()
            for row, why in zip(rows, verdict.filter(goes).to_pylist(), strict=True):
                text, reason = row.pop("text"), why["reason"]
                dropped[reason] += 1
                gone.append({**row, **why, "step": Decontaminate.name})
                if len(shown.setdefault(reason, [])) < EXAMPLES:
                    words = words_from(text, int(why["value"]), _EXAMPLE_WORDS)
                    shown[reason].append({**row, "value": why["value"], "text": words})
    if given != writer.written + dropped.total():
        raise RuntimeError(f"{given} documents came, {writer.written} stay, {dropped.total()} go")
    return {"in": given, "out": writer.written, "dropped": dict(sorted(dropped.items()))}
