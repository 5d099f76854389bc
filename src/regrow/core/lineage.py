"""Who descends from whom, read from the ``lineage.json`` of runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.inputs import fingerprint
from regrow.core.run import Run, read_status

# A run's parent in the family is the model that it changed; what taught it or what it read is
# recorded beside, but draws no branch.
PARENT_ROLES = ("model", "student")
# Where a sweep keeps the runs of its values.
TRIALS = "trials"


def record(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """The content of ``lineage.json`` for a finished run."""
    parents = [
        {"role": i["role"], "run": i["run"], "path": i["path"], "sha256": i["sha256"]}
        for i in run.inputs
    ]
    export = run.export
    return {
        "verb": run.verb,
        "run": str(run.path),
        "config_sha256": run.config_hash,
        "parents": parents,
        "export_sha256": fingerprint(export, "export")["sha256"] if export.exists() else None,
        **{key: result[key] for key in ("tokens", "flops", "seconds") if key in result},
    }


@dataclass(slots=True)
class Node:
    """One run in the tree."""

    path: Path
    verb: str
    state: str
    lineage: dict[str, Any]
    result: dict[str, Any]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)


def find_runs(root: Path) -> list[Path]:
    """Run folders at or below ``root``, sorted by path."""
    return sorted(p.parent for p in root.rglob("config.yaml") if (p.parent / "lock").exists())


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = atomic.read_json(path)
    except (OSError, ValueError):
        return {}
    return value


def node(path: Path) -> Node:
    """A run folder as a tree node without its links."""
    status, lineage = read_status(path), _read(path / "lineage.json")
    verb = lineage.get("verb") or status.get("verb", "?")
    return Node(path, verb, status.get("state", "started"), lineage, _read(path / "result.json"))


def tree(root: Path) -> list[Node]:
    """The runs below ``root`` that have no parent among them, each with its descendants.

    A parent is the run folder that was recorded, as long as it still holds what was read; else,
    when a family was moved, the run whose export has the hash of what was read. Trials of a
    sweep are left out: the sweep itself stands for the one that was kept.
    """
    nodes = [node(path) for path in find_runs(root) if path.parent.name != TRIALS]
    by_export = {n.lineage["export_sha256"]: n for n in nodes if n.lineage.get("export_sha256")}
    by_path = {n.path.resolve(): n for n in nodes}
    for child in nodes:
        for parent in child.lineage.get("parents", ()):
            if parent["role"] not in PARENT_ROLES:
                continue
            found = by_path.get(Path(parent["run"]).resolve()) if parent["run"] else None
            if found is None or found.lineage.get("export_sha256") != parent["sha256"]:
                found = by_export.get(parent["sha256"], found)
            if found is not None and found is not child:
                child.parent = found
                found.children.append(child)
                break
    return [n for n in nodes if n.parent is None]
