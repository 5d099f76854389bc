"""The table of copies, ``clusters.parquet``: what exact and fuzzy duplicates have in common.

Columns: ``id``, ``component`` (the smallest id of the cluster), ``kept_id`` (the copy that stays)
and ``why`` (how that one differs, or ``kept``); sorted by id, documents without a copy left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from regrow.core.atomic import read_json, write_json
from regrow.data import engine, exhibits
from regrow.data.components import components
from regrow.data.keep import KEPT, Keep

CLUSTERS = "clusters.parquet"
SUMMARY = "summary.json"
WORK = "work"
Refine = Callable[[engine.Frame, engine.Frame], tuple[engine.Frame, dict[str, int]]]
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "component", "kept_id", "why")])
_SHOWN = 20
_SIZES = (2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 1025)


class Clusters:
    """How the copies of one step are put together and told apart.

    Args:
        column: name of the column of copies.
        reason: what a verdict begins with, such as ``same text as one that is``.
        scope: ``global`` or ``per_source``.
        keep: the policy.
    """

    def __init__(self, column: str, reason: str, scope: str, keep: Keep) -> None:
        self.column, self.reason, self.scope, self.keep = column, reason, scope, keep

    def write(
        self,
        marks: engine.Frame,
        within: engine.Frame,
        across: engine.Frame,
        folder: Path,
        refine: Refine | None = None,
    ) -> None:
        """Put copies together, choose who stays, and write ``clusters.parquet``.

        Args:
            marks: ``id`` and what the policy goes by, of all documents.
            within: edges within sources.
            across: edges between them.
            folder: where the table goes; ``folder/work`` is for what is used twice.
            refine: takes edges and their components, and gives better components and figures.

        Raises:
            InputError: the policy has nothing to go by.
        """
        self.keep.check(marks)
        work = folder / WORK
        edges = {"global": within.concat(across), "per_source": within}
        found = {scope: components(graph, work / scope) for scope, graph in edges.items()}
        figures: dict[str, Any] = {"copies": {s: _copies(members) for s, members in found.items()}}
        members = found[self.scope]
        if refine is not None:
            members, figures["refined"] = refine(edges[self.scope], members)
        chosen = self.keep.choose(members.join(marks, on="id"), work / "keys")
        engine.write_sorted(chosen, folder / CLUSTERS, SCHEMA)
        write_json(folder / SUMMARY, figures)

    def makes(self) -> pa.Schema:
        """What ``scores`` gives beside ``id``."""
        return pa.schema([(self.column, pa.int64())])

    def scores(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """``id``, and how many documents its cluster has, itself included."""
        name = self.column
        clusters = engine.read_parquet([folder / CLUSTERS])
        sizes = clusters.groupby("component").agg(clusters["id"].count().alias(name))
        sized = clusters.select("id", "component").join(sizes, on="component").select("id", name)
        found = frame.select("id").join(sized, on="id", how="left")
        filled = engine.expressions().fill_null(found[name].cast("int64"), 1)
        return found.select("id", filled.alias(name))

    def verdicts(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """All but one of each cluster go, with the size of the cluster as value."""
        clusters = engine.read_parquet([folder / CLUSTERS])
        gone = clusters.where(clusters["why"] != KEPT).select("id", "why")
        found = scores.select("id", self.column).join(gone, on="id", how="left")
        functions = engine.expressions()
        goes = found["why"].not_null()
        reason = functions.when(goes, functions.concat(f"{self.reason} ", found["why"]))
        value = functions.when(goes, found[self.column].cast("float64"))
        return found.select(
            "id", reason.otherwise(None).alias("reason"), value.otherwise(None).alias("value")
        )


def _copies(members: engine.Frame) -> int:
    """Documents that would go if every component kept one."""
    roots = engine.num_rows(members.where(members["id"] == members["component"]))
    return engine.num_rows(members) - roots


def cluster_exhibits(folder: Path, what: str) -> list[dict[str, Any]]:
    """Sizes of clusters, the largest ones, why copies went, and how many by scope."""
    table = engine.read_parquet([folder / CLUSTERS])
    by_size = table.groupby("component", "kept_id").agg(table["id"].count().alias("copies"))
    by_size = engine.collected(by_size)
    counted = by_size.groupby("copies").agg(by_size["component"].count().alias("clusters"))
    sizes = {row["copies"]: row["clusters"] for row in engine.rows(counted)}
    largest = engine.rows(by_size.sort(["copies", "component"], desc=[True, False]).limit(_SHOWN))
    reasons = table.groupby("why").agg(table["id"].count().alias("documents"))
    why = {row["why"]: row["documents"] for row in engine.rows(reasons)}
    rows = []
    for low, after in zip(_SIZES, (*_SIZES[1:], None), strict=True):
        inside = {s: n for s, n in sizes.items() if s >= low and (after is None or s < after)}
        if inside:
            label = f"{low} or more" if after is None else f"{low} to {after - 1}"
            label = str(low) if after == low + 1 else label
            rows.append([label, sum(inside.values()), sum(s * n for s, n in inside.items())])
    scopes = read_json(folder / SUMMARY)["copies"]
    kept = sum(sizes.values())
    return [
        exhibits.table(
            f"{what}: copies that would go",
            ["scope", "documents"],
            [["global", scopes["global"]], ["per_source", scopes["per_source"]]],
        ),
        exhibits.table(f"{what}: size of clusters", ["copies", "clusters", "documents"], rows),
        exhibits.table(
            f"{what}: how the copy that stays differs from those that go",
            ["the one that stays is", "documents that go"],
            [[name, n] for name, n in sorted(why.items()) if name != KEPT],
        ),
        exhibits.table(
            f"{what}: largest clusters, of {kept}",
            ["cluster", "copies", "kept"],
            [[row["component"], row["copies"], row["kept_id"]] for row in largest],
        ),
    ]
