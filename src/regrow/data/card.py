"""The card of a curation: what each stage took away, and what it looked like.

``card.json`` holds plain numbers, texts and exhibits; the page of the run draws it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.data import engine, exhibits
from regrow.data.stages import DROPPED_IDS, Stage

EXAMPLES = 10
_CHARACTERS = 300
_LENGTHS = np.logspace(1, 6, 41)


def card(
    stages: Sequence[Stage],
    counts: Sequence[dict[str, Any]],
    texts: Sequence[Path],
    published: Published,
    dropped: Path,
) -> dict[str, Any]:
    """Everything that the card says.

    Args:
        stages: finished steps in their order.
        counts: of the gathering and of every stage.
        texts: gathered tables.
        published: what was seen of the documents that stayed.
        dropped: the table of all that were dropped.
    """
    return {
        "stages": [dict(one) for one in counts],
        "yields": _yields([one["step"] for one in counts], published, dropped),
        "lengths": exhibits.histogram(
            "characters of a document that stayed", published.lengths(), _LENGTHS
        ),
        "licences": published.licences(),
        "exhibits": {s.step.name: s.step.exhibits(s.scores, s.folder) for s in stages},
        "dropped": dropped_examples(stages, texts),
    }


class Published:
    """What the card says of the documents that stayed, gathered while they are written."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._licences: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        self._lengths.update(pc.utf8_length(batch["text"]).to_pylist())
        sizes = pc.binary_length(batch["text"]).to_pylist()
        pairs = zip(batch["source"].to_pylist(), batch["licence"].to_pylist(), strict=True)
        for pair, size in zip(pairs, sizes, strict=True):
            row = self._licences[pair]
            row[0] += 1
            row[1] += size

    def documents(self) -> Counter[str]:
        """Documents of each source."""
        found: Counter[str] = Counter()
        for (source, _), (number, _) in self._licences.items():
            found[source] += number
        return found

    def lengths(self) -> np.ndarray:
        """Characters of each document."""
        return np.repeat(
            np.array(list(self._lengths), np.float64), np.array(list(self._lengths.values()), int)
        )

    def licences(self) -> list[dict[str, Any]]:
        """Documents and bytes by source and licence, the largest first."""
        rows = [
            {"source": source, "licence": licence, "documents": n, "bytes": size}
            for (source, licence), (n, size) in self._licences.items()
        ]
        return sorted(rows, key=lambda row: (-row["bytes"], row["source"], row["licence"]))


def _yields(steps: Sequence[str], published: Published, dropped: Path) -> list[dict[str, Any]]:
    """Documents of each source after each stage: those that stayed, and what later stages took."""
    gone: Counter[tuple[str, str]] = Counter()
    with pq.ParquetFile(dropped) as file:
        for batch in file.iter_batches(columns=["step", "source"]):
            gone.update(zip(batch["step"].to_pylist(), batch["source"].to_pylist(), strict=True))
    left = published.documents()
    left.update(dict.fromkeys({source for _, source in gone}, 0))
    found = []
    for step in reversed(steps):
        found.append({"step": step, "sources": dict(sorted(left.items()))})
        for source in left:
            left[source] += gone[step, source]
    return found[::-1]


def dropped_examples(stages: Sequence[Stage], texts: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """A few documents that each rule took away: the first by id, which is as good as at random."""
    chosen: dict[str, tuple[str, str, float | None]] = {}
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        shown: Counter[str] = Counter()
        with pq.ParquetFile(stage.folder / DROPPED_IDS) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    if shown[row["reason"]] < EXAMPLES:
                        shown[row["reason"]] += 1
                        chosen[row["id"]] = (stage.step.name, row["reason"], row["value"])
    if not chosen:
        return found
    wanted = engine.from_columns({"id": list(chosen)})
    frame = engine.read_parquet(texts).select("id", "source", "file", "text")
    rows = engine.rows(frame.join(wanted, on="id", how="semi"))
    for row in sorted(rows, key=lambda row: row["id"]):
        step, reason, value = chosen[row["id"]]
        text = row["text"]
        short = text[:_CHARACTERS] + ("…" if len(text) > _CHARACTERS else "")
        example = {"id": row["id"], "source": row["source"], "file": row["file"]}
        found.setdefault(step, {}).setdefault(reason, []).append(
            {**example, "value": value, "text": short}
        )
    return found
