"""What can only be said once every part of a source was read: repeated ids, and the cap.

Both go by id, which is a hash, so neither depends on how records lie in files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrow.data.document import Rejected
from regrow.data.sources.pool import FULL_ENOUGH, OVER_CAP
from regrow.io.parquet import read_batches

SAME_TEXT = "same id and text as another"
OTHER_TEXT = "id stands twice with other text"
_ROWS = 1024

_Placed: TypeAlias = tuple[int, dict[str, Any]]  # where a row stands in all tables, and the row


@dataclass(frozen=True, slots=True)
class Settled:
    """Which rows of a source's tables stay.

    Args:
        keep: for each table whether each of its rows stays, ``(rows,)`` bool.
        rejected: one for each row that does not.
    """

    keep: list[np.ndarray]
    rejected: list[Rejected]


def settle(source: str, tables: Sequence[Path], max_bytes: int | None) -> Settled:
    """Decide over the documents of all parts of one source.

    An id that stands more than once keeps one row, the one whose text has the smallest hash;
    rows with the same text are dropped, rows with another are quarantined. Then documents are
    taken in the order of their ids until their texts fill ``max_bytes``; one that does not fit is
    passed over, until 95 % are filled.

    Args:
        source: its name.
        tables: parquet files with the columns of ``GATHERED``, in any order.
        max_bytes: of UTF-8 text; None for all.

    Returns:
        The rows that stay, and those that do not with their reasons. Holds 16 bytes a document, 24
        with a cap.
    """
    numbers = [_ids(path, sized=max_bytes is not None) for path in tables]
    ids = np.concatenate([np.empty(0, "S16"), *(ids for ids, _ in numbers)])
    starts = np.cumsum([0, *(len(ids) for ids, _ in numbers)])
    keep = np.ones(len(ids), dtype=bool)
    order = np.argsort(ids, kind="stable")
    rejected: list[Rejected] = []
    repeated = _repeated(ids, order)
    for group in _grouped(_rows(tables, starts, repeated, None)):
        for number, (position, row) in enumerate(group[1:], 1):
            keep[position] = False
            same = row["text"] == group[0][1]["text"]
            reason = SAME_TEXT if same else OTHER_TEXT
            rejected.append(Rejected(source, row["file"], number, reason, broken=not same))
    if max_bytes is not None:
        sizes = np.concatenate([np.empty(0, np.int64), *(sizes for _, sizes in numbers)])
        order = order[keep[order]]
        over = np.sort(order[~_fits(sizes[order], max_bytes)])
        keep[over] = False
        rejected.extend(
            Rejected(source, row["file"], 0, OVER_CAP, known_id=row["id"])
            for _, row in _rows(tables, starts, over, ["id", "file"])
        )
    return Settled([keep[a:b] for a, b in pairwise(starts)], rejected)


def _ids(path: Path, sized: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ids as 16 bytes each, and the bytes of text where they are wanted."""
    ids, sizes = [np.empty(0, "S16")], [np.empty(0, np.int64)]
    for batch in read_batches(path, ["id", "text"] if sized else ["id"], rows=_ROWS):
        ids.append(np.array([bytes.fromhex(one) for one in batch["id"].to_pylist()], "S16"))
        if sized:
            sizes.append(pc.binary_length(batch["text"]).to_numpy().astype(np.int64))
    return np.concatenate(ids), np.concatenate(sizes)


def _repeated(ids: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Positions of all rows whose id stands more than once, rising."""
    same = ids[order][1:] == ids[order][:-1]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]]))


def _rows(
    tables: Sequence[Path], starts: np.ndarray, positions: np.ndarray, columns: list[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows at rising ``positions`` of all tables together."""
    for path, first, end in zip(tables, starts, starts[1:], strict=False):
        wanted = positions[(positions >= first) & (positions < end)]
        if not len(wanted):
            continue
        at = int(first)
        for batch in read_batches(path, columns, rows=_ROWS):
            inside = wanted[(wanted >= at) & (wanted < at + batch.num_rows)]
            rows = batch.take(pa.array(inside - at, pa.int64())).to_pylist()
            yield from zip(inside.tolist(), rows, strict=True)
            at += batch.num_rows


def _grouped(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[list[_Placed]]:
    """Rows of one id together, the one that stays first: by hash of text, then of all the rest."""
    groups: dict[str, list[tuple[bytes, int, dict[str, Any]]]] = {}
    for position, row in rows:
        rest = repr(sorted((key, value) for key, value in row.items() if key != "text"))
        rank = hashlib.blake2b(row["text"].encode()).digest() + rest.encode()
        groups.setdefault(row["id"], []).append((rank, position, row))
    for group in groups.values():
        group.sort(key=lambda ranked: ranked[0])
        yield [(position, row) for _, position, row in group]


def _fits(sizes: np.ndarray, max_bytes: int) -> np.ndarray:
    """Which of these documents are taken, in their order: bool, ``(documents,)``."""
    taken = np.cumsum(sizes) <= max_bytes
    used = int(sizes[taken].sum())
    for index in np.flatnonzero(~taken & (sizes <= max_bytes - used)):
        if used >= FULL_ENOUGH * max_bytes:
            break
        if used + sizes[index] <= max_bytes:
            taken[index] = True
            used += int(sizes[index])
    return taken
