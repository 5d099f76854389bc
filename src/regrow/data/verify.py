"""True similarity of the members of a cluster with its root, and a cut where it is too low.

Sets of shingles, as 64-bit hashes, go to one file on the driver's disk (8 bytes a shingle of the
members, however many texts there are); two sets at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.data import engine
from regrow.data.components import MEMBERS, components
from regrow.data.lsh import Lsh
from regrow.data.minhash import Hashes, jaccard, normalised, shingle_hashes

SLACK = 0.1
"""How far below the threshold a member may be: it was found with another one than the root."""


def verified(
    frame: engine.Frame,
    lsh: Lsh,
    least: float,
    folder: Path,
    edges: engine.Frame,
    members: engine.Frame,
) -> tuple[engine.Frame, dict[str, int]]:
    """Components in which each member has at least a similarity with the smallest id.

    Members that have less are cut off, and put together anew by the edges among themselves, until
    none is cut off any more.

    Args:
        frame: ``id`` and ``text`` of all documents.
        lsh: what is a shingle.
        least: similarity below which a member is cut off.
        folder: to be made, for what is used twice.
        edges: ``first`` and ``second``.
        members: the components of ``edges``.

    Returns:
        ``id`` and ``component`` of the components that are left, and what was counted.
    """
    folder.mkdir()
    table = members.sort("id").to_arrow()
    sets = _Sets(frame, table, lsh, folder)
    kept: list[pa.Table] = []
    pairs = cut = rounds = 0
    while table.num_rows:
        similar = np.array([sets.similarity(*pair) for pair in _pairs(table)])
        root = pc.equal(table["id"], table["component"]).to_numpy()
        stays = similar >= least
        pairs += int((~root).sum())
        cut += int((~stays).sum())
        kept.append(table.filter(pa.array(stays)))
        if stays.all():
            break
        rounds += 1
        gone = engine.from_arrow(table.filter(pa.array(~stays)).select(["id"]))
        left = edges.join(gone.select(gone["id"].alias("first")), on="first", how="semi")
        left = left.join(gone.select(gone["id"].alias("second")), on="second", how="semi")
        edges = engine.stored(left, folder / f"edges-{rounds}")
        table = components(edges, folder / f"components-{rounds}").sort("id").to_arrow()
    found = pa.concat_tables(kept).cast(MEMBERS) if kept else MEMBERS.empty_table()
    # A root whose members were all cut off is a document without a copy.
    sizes = found.group_by("component").aggregate([("id", "count")])
    several = sizes.filter(pc.greater(sizes["id_count"], 1))["component"]
    found = found.filter(pc.is_in(found["component"], value_set=several.combine_chunks()))
    return engine.from_arrow(found), {"pairs compared": pairs, "pairs cut": cut, "rounds": rounds}


def _pairs(table: pa.Table) -> Any:
    return zip(table["id"].to_pylist(), table["component"].to_pylist(), strict=True)


class _Sets:
    """Shingles of every member, in a file."""

    def __init__(self, frame: engine.Frame, members: pa.Table, lsh: Lsh, folder: Path) -> None:
        wanted = folder / "wanted.parquet"
        pq.write_table(members.select(["id"]), wanted)
        normal = frame.select("id", normalised(frame["text"]).alias("normal"))
        shingled = engine.map_batches(
            normal,
            partial(shingle_batch, lsh, str(wanted)),
            ("id", "normal"),
            pa.schema([("shingles", pa.large_list(pa.uint64()))]),
        )
        self._places: dict[str, tuple[int, int]] = {}
        file = folder / "shingles.bin"
        size = 0
        with file.open("wb") as out:
            for batch in engine.batches(shingled.where(shingled["shingles"].not_null())):
                lists = batch["shingles"]
                for name, count in zip(
                    batch["id"].to_pylist(), pc.list_value_length(lists).to_pylist(), strict=True
                ):
                    self._places[name] = (size, size + count)
                    size += count
                out.write(lists.flatten().to_numpy().tobytes())
        self._data = np.memmap(file, np.uint64, "r") if size else np.empty(0, np.uint64)

    def __getitem__(self, name: str) -> Hashes:
        start, end = self._places[name]
        return np.asarray(self._data[start:end])

    def similarity(self, one: str, other: str) -> float:
        return 1.0 if one == other else jaccard(self[one], self[other])


def shingle_batch(lsh: Lsh, wanted: str, batch: pa.RecordBatch) -> Mapping[str, Any]:
    """Sets of shingles of those texts of a batch that are wanted; null for the others."""
    member = pc.is_in(batch["id"].cast(pa.large_string()), value_set=_ids(wanted)).to_pylist()
    texts = batch["normal"]
    return {
        "shingles": [
            shingle_hashes(texts[row].as_py(), lsh) if found else None
            for row, found in enumerate(member)
        ]
    }


@cache
def _ids(path: str) -> pa.Array:
    return pq.read_table(path)["id"].cast(pa.large_string()).combine_chunks()
