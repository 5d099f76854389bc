"""What became of one document of a curation: read from the tables of its run folder.

A document is named by its id, by as much of the beginning of one as tells it from the others, or by
its file. Tables are sorted by id, so that little of them is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.errors import InputError
from regrow.core.registry import nearest
from regrow.core.run import require_run
from regrow.core.yaml12 import read_yaml
from regrow.data.clusters import CLUSTERS
from regrow.data.document import DOCUMENTS, GATHERED, SPLITS
from regrow.data.keep import KEPT
from regrow.data.stages import ALIVE, SCORES

KEPT_FATE, DROPPED_FATE, COPY_FATE, BROKEN_FATE = "kept", "dropped", "duplicate", "quarantined"
_HEX = re.compile(r"[0-9a-f]{4,32}")
_BOUND = re.compile(r"(?:below|above) (-?[\d.]+(?:e[+-]?\d+)?)$")
_RANK = re.compile(r"(\w+) (?:not )?in the highest ")
_GATHER = "gather"
_EXCERPT = 400
_SHOWN = 20
_SEARCHED = 20_000


def explain(run: Path, name: str) -> dict[str, Any]:
    """Everything that a run knows of a document.

    Args:
        run: a finished run folder of ``curate run`` or ``curate decontaminate``.
        name: an id, at least four digits of its beginning, or a file as the column ``file`` has it.

    Returns:
        ``id``, ``fate`` (``kept``, ``dropped``, ``duplicate`` or ``quarantined``), where it came
        from, ``step``, ``reason``, ``value`` and ``bound`` where it went, ``clusters`` (of each
        step that looks for copies: who stays, and why), ``scores`` by step, ``excerpt`` where the
        text is still there. Of a file with several documents ``documents``, with the fate of each.

    Raises:
        InputError: no finished run of ``curate run``, no such document, or several that begin so.
    """
    tables = _Tables(require_run(run))
    if _HEX.fullmatch(name):
        ids = tables.ids(name)
        if len(ids) > 1:
            raise InputError(f"{len(ids):,} documents of {run} begin with {name}", ids[:_SHOWN])
        if ids:
            return _one(tables, ids[0])
    rows = tables.of_file(name)
    if len(rows) == 1:
        return _one(tables, rows[0]["id"])
    if rows:
        return {"file": name, "documents": rows}
    hint = nearest(name, tables.files())
    raise InputError(
        f"{run} has no document {name!r}{hint}; name its id (32 hex digits, or the first four or "
        f"more), or its file as the tables of documents/ have it{tables.before()}"
    )


class _Tables:
    """The tables of a finished run.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        documents = run / "documents"
        self.splits = [documents / f"{split}.parquet" for split in SPLITS]
        self.dropped = documents / "dropped.parquet"
        self.quarantine = documents / "quarantine.jsonl"
        if not self.dropped.exists():
            raise InputError(
                f"{run} has no documents/dropped.parquet; name a finished run of curate run or of "
                "curate decontaminate"
            )
        self.config, _ = read_yaml(run / "config.yaml")

    def stages(self) -> Iterator[tuple[str, Path]]:
        """Each step's name and folder, in their order."""
        folder = self.run / "stages"
        if "steps" not in self.config:  # of curate decontaminate: a folder a split
            for path in sorted(folder.glob(f"*/{SCORES}")):
                yield "decontaminate", path.parent
            return
        for number, step in enumerate(self.config["steps"], 1):
            found = sorted(folder.glob(f"{number:02d}-{step}-*"))
            if found:
                yield step, max(found, key=lambda path: path.stat().st_mtime_ns)

    def before(self) -> str:
        """Where documents may have gone earlier, for a message."""
        earlier = self.config.get("documents")
        return f"; what went earlier is explained by {earlier}" if earlier else ""

    def broken(self) -> Iterator[dict[str, Any]]:
        """What could not be read."""
        if not self.quarantine.exists():
            return
        with self.quarantine.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def ids(self, start: str) -> list[str]:
        """Ids that begin so, in order."""
        found = {
            row["id"] for path in (*self.splits, self.dropped) for row in _rows(path, start, ["id"])
        }
        found.update(one["id"] for one in self.broken() if one["id"].startswith(start))
        return sorted(found)

    def document(self, name: str) -> dict[str, Any] | None:
        """The row of one that stayed."""
        return next((row for path in self.splits for row in _rows(path, name)), None)

    def gone(self, name: str) -> dict[str, Any] | None:
        """The row of one that went."""
        return next(iter(_rows(self.dropped, name)), None)

    def of_file(self, file: str) -> list[dict[str, Any]]:
        """Id and fate of every document of a file."""
        within = [("file", "==", file)]
        found: dict[str, dict[str, Any]] = {}
        for path in filter(Path.exists, self.splits):
            ids = pq.read_table(path, columns=["id"], filters=within)["id"]
            found |= {name: {"fate": KEPT_FATE} for name in ids.to_pylist()}
        for row in pq.read_table(self.dropped, filters=within).to_pylist():
            found[row["id"]] = _fate(self, row)
        for one in self.broken():
            if one["file"] == file:
                found[one["id"]] = {"fate": BROKEN_FATE, "step": _GATHER, "reason": one["reason"]}
        return [{"id": name, **fate} for name, fate in sorted(found.items())]

    def files(self) -> list[str]:
        """Some files, for a hint."""
        found: set[str] = set()
        for path in filter(Path.exists, (*self.splits, self.dropped)):
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(columns=["file"]):
                    found.update(batch["file"].to_pylist())
                    if len(found) >= _SEARCHED:
                        return sorted(found)
        return sorted(found)


def _rows(path: Path, start: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a table sorted by id whose id begins so."""
    if not path.exists():
        return []
    within = [("id", ">=", start), ("id", "<", start + "g")]  # "g" comes after every hex digit
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns, filters=within).to_pylist()
    return rows


def _fate(tables: _Tables, row: dict[str, Any]) -> dict[str, Any]:
    """What became of the document that a row of the dropped is about."""
    clusters = dict(tables.stages())
    copy = row["step"] in clusters and (clusters[row["step"]] / CLUSTERS).exists()
    bound = _BOUND.search(row["reason"])
    return {
        "fate": COPY_FATE if copy else DROPPED_FATE,
        "step": row["step"],
        "reason": row["reason"],
        "value": row["value"],
        "bound": float(bound.group(1)) if bound else None,
    }


def _one(tables: _Tables, name: str) -> dict[str, Any]:
    told: dict[str, Any] = {"id": name}
    row = tables.document(name)
    if row is not None:
        told |= {"fate": KEPT_FATE, "split": row["split"]}
        told |= {key: row[key] for key in GATHERED.names if key not in ("id", "text")}
        told |= {"text_bytes": len(row["text"].encode()), "excerpt": row["text"][:_EXCERPT]}
        own = {key: value for key, value in row.items() if key not in DOCUMENTS.names}
    else:
        gone = tables.gone(name)
        if gone is None:
            broken = next(one for one in tables.broken() if one["id"] == name)
            return told | {"fate": BROKEN_FATE, "step": _GATHER, **broken}
        told |= _fate(tables, gone)
        told |= {key: gone[key] for key in ("file", "source")}
        if rank := _RANK.match(told["reason"]):
            folder = dict(tables.stages())[told["step"]]
            told["bound"] = _last_kept(folder, rank.group(1), name, told["value"])
        own = {}
    told["clusters"] = [
        cluster
        for step, folder in tables.stages()
        if (cluster := _cluster(tables, step, folder, name)) is not None
    ]
    told["scores"] = {}
    for step, folder in tables.stages():
        found = _rows(folder / SCORES, name)
        if found:
            told["scores"][step] = {k: v for k, v in found[0].items() if k != "id"}
    if not told["scores"] and own:
        told["scores"]["documents"] = own
    return told


def _last_kept(folder: Path, column: str, name: str, value: float) -> float | None:
    """The figure next to ``value`` that stayed, where a share of the best figures of a group does.

    Args:
        folder: of the step.
        column: of the figures.
        name: id of the document that went.
        value: its figure.
    """
    group = f"{column}_group"
    within = None
    if group in pq.read_schema(folder / SCORES).names:
        within = [(group, "==", _rows(folder / SCORES, name, [group])[0][group])]
    scores = pq.read_table(folder / SCORES, columns=["id", column], filters=within)
    alive = pq.read_table(folder / ALIVE)["id"]
    kept = pc.min_max(scores.filter(pc.is_in(scores["id"], alive))[column]).as_py()
    if kept["min"] is None:
        return None
    low, high = float(kept["min"]), float(kept["max"])
    return high if value > high else low


def _cluster(tables: _Tables, step: str, folder: Path, name: str) -> dict[str, Any] | None:
    """The copies that a document was found among."""
    path = folder / CLUSTERS
    rows = _rows(path, name)
    if not rows:
        return None
    row = rows[0]
    members = pq.read_table(path, filters=[("component", "==", row["component"])])
    rest = sorted(members.to_pylist(), key=lambda one: (one["why"] != KEPT, one["id"]))
    return {
        "step": step,
        "component": row["component"],
        "copies": members.num_rows,
        "kept_id": row["kept_id"],
        "why": row["why"],
        "members": [
            {"id": one["id"], "why": one["why"], **_origin(tables, one["id"])}
            for one in rest[:_SHOWN]
        ],
    }


def _origin(tables: _Tables, name: str) -> dict[str, Any]:
    """Where a document came from, and its date while its row is there."""
    row = tables.document(name) or tables.gone(name) or {}
    return {key: row.get(key) for key in ("source", "file", "date")}


def explained(told: dict[str, Any]) -> list[str]:
    """The same in lines for people."""
    if "documents" in told:
        lines = [f"{told['file']}: {len(told['documents']):,} documents"]
        for one in told["documents"]:
            why = f": {one['step']}, {one['reason']}" if "reason" in one else ""
            lines.append(f"  {one['id']}  {one['fate']}{why}")
        return lines
    lines = [f"{told['id']}: {_sentence(told)}"]
    for key in ("source", "file", "record", "split", "kind", "language", "licence", "date", "url"):
        if told.get(key) not in (None, ""):
            lines.append(f"  {key:<9} {told[key]}")
    for cluster in told.get("clusters", ()):
        lines.extend(_cluster_lines(cluster, told["id"]))
    for step, columns in told.get("scores", {}).items():
        shown = {k: v for k, v in columns.items() if v is not None}
        if shown:
            lines.append(f"  {step}: " + ", ".join(f"{k} {_short(v)}" for k, v in shown.items()))
    if told.get("excerpt"):
        text = " ".join(told["excerpt"].split())
        lines.append(f"  text: {text}{'…' if told['text_bytes'] > _EXCERPT else ''}")
    return lines


def _sentence(told: dict[str, Any]) -> str:
    if told["fate"] == KEPT_FATE:
        return "kept"
    if told["fate"] == BROKEN_FATE:
        return f"quarantined when it was read: {told.get('detail') or told['reason']}"
    how = "dropped as a duplicate" if told["fate"] == COPY_FATE else "dropped"
    said = f"{how} by the step {told['step']}: {told['reason']}"
    if told["value"] is None:
        return said
    if told["fate"] == COPY_FATE:
        return f"{said} ({told['value']:g} copies)"
    last = ""
    if _RANK.match(told["reason"]) and told["bound"] is not None:
        last = f"; the last that stayed has {_short(told['bound'])}"
    return f"{said} (it has {_short(told['value'])}{last})"


def _cluster_lines(cluster: dict[str, Any], name: str) -> list[str]:
    if cluster["why"] == KEPT:
        head = f"is the copy that stays, of {cluster['copies']}"
    else:
        head = f"one of {cluster['copies']} copies; {cluster['kept_id']} stays, {cluster['why']}"
    lines = [f"  {cluster['step']}: {head}"]
    for one in cluster["members"]:
        mark = "this" if one["id"] == name else ("stays" if one["why"] == KEPT else "")
        date = f", {one['date']}" if one["date"] else ""
        lines.append(f"    {mark:<5} {one['id']}  {one['source']}: {one['file']}{date}")
    if cluster["copies"] > len(cluster["members"]):
        lines.append(f"          and {cluster['copies'] - len(cluster['members']):,} more")
    return lines


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
