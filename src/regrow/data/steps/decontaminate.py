"""Decontamination: documents that hold a run of words of an evaluation set go.

The whole document goes, not the run alone: its text is never changed after it was gathered, and
what stands around a question is often its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regrow.data import engine, exhibits
from regrow.data.evaluation_sets import open_sets
from regrow.data.overlap import Index, opened
from regrow.data.settings.decontaminate import OverlapConfig

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

_MADE = pa.schema(
    [
        ("overlap_set", pa.string()),
        ("overlap_place", pa.int64()),
        ("overlap_words", pa.int64()),
        ("overlap_items", pa.string()),
    ]
)
_SHOWN = 20
_BETWEEN = " "  # of items in a column; no set's name has one


class Decontaminate:
    """Adds what a document shares with evaluation sets.

    ``overlap_words`` counts its words that lie in a shared run, ``overlap_place`` the words before
    the first such run, ``overlap_set`` names the set of that run, ``overlap_items`` all items
    (``set:item``, with blanks between them).

    Args:
        config: ``decontaminate`` names the sets.

    Raises:
        ConfigError: no set, or one that is not known.
        InputError: a set whose files do not exist or hold no such field.
    """

    name = "decontaminate"
    version = 1
    per_document = True
    _selects_first = False

    def __init__(self, config: CurateConfig) -> None:
        self._begin(config.decontaminate, "decontaminate.against")
        before = config.steps_before(self.name)
        self._selects_first = "select" in before and config.select.target.where is not None

    @classmethod
    def of(cls, settings: OverlapConfig, setting: str = "against") -> Decontaminate:
        """The step outside of a curation.

        Args:
            settings: the sets.
            setting: where they stand, for messages.
        """
        step = cls.__new__(cls)
        step._begin(settings, setting)
        return step

    def _begin(self, settings: OverlapConfig, setting: str) -> None:
        self.settings = settings
        self.sets = open_sets(settings.sets(), settings.data, setting)

    @cached_property
    def index(self) -> Index:
        """The sets' runs of words.

        Raises:
            InputError: a set that is broken, or has nothing that can be looked for.
        """
        named = ((one.name, one.read()) for one in self.sets)
        return Index.build(named, self.settings.words, self.settings.short_words)

    def notes(self) -> list[str]:
        """What a reader of the plan should know; reads the sets.

        Raises:
            InputError: a set that is broken, or has nothing that can be looked for.
        """
        _ = self.index  # read now: a broken set is told before anything is written
        if self._selects_first:
            return [
                "select.target.where may choose documents that hold words of an evaluation set; "
                "put decontaminate before select in steps"
            ]
        return []

    def reads(self) -> tuple[str, ...]:
        """The text."""
        return ("text",)

    def makes(self) -> pa.Schema:
        """What is shared with the sets."""
        return _MADE

    def key(self) -> Any:
        """The runs that are looked for."""
        return self.index.digest

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Write the runs into ``folder`` and look for them."""
        self.index.save(folder)
        return engine.map_batches(frame, _Look(folder, self.index.digest), ("text",), _MADE)

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Whoever shares a run goes; the value is the run's place."""
        del folder
        reads = ("overlap_set", "overlap_place")
        return engine.judged(scores, judge_batch, reads)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """How much of each set was found, and the items that were found most often."""
        return Tally(Index.load(folder), scores).exhibits()


def judge_batch(batch: pa.RecordBatch) -> Mapping[str, Any]:
    """Reason and value of a batch with ``overlap_set`` and ``overlap_place``."""
    sets = batch["overlap_set"].to_pylist()
    return {
        "reason": [None if name is None else f"words of {name}" for name in sets],
        "value": batch["overlap_place"].cast(pa.float64()),
    }


class Tally:
    """How much of each set documents hold.

    Args:
        index: of the sets.
        scores: of all documents; they are read once.
    """

    def __init__(self, index: Index, scores: engine.Frame) -> None:
        self.index = index
        self.items = Counter[str]()
        """Documents that share a run with an item."""
        self.documents = Counter[str]()
        """Documents that share a run with any item of a set."""
        words = [np.zeros(0, np.int64)]
        for batch in engine.batches(scores.where(~scores["overlap_set"].is_null())):
            for found in batch["overlap_items"].to_pylist():
                of = found.split(_BETWEEN)
                self.items.update(of)
                self.documents.update({one.partition(":")[0] for one in of})
            words.append(batch["overlap_words"].to_numpy())
        self.words = np.concatenate(words)

    def sets(self) -> dict[str, dict[str, Any]]:
        """By set: its items, how many are too short to be looked for, how many were found, their
        share of those that were looked for, and the documents that hold any."""
        index, figures, before = self.index, {}, 0
        found = Counter(item.partition(":")[0] for item in self.items)
        for name, end, looked_for in zip(index.names, index.ends, index.looked_for, strict=True):
            figures[name] = {
                "items": end - before,
                "too_short": end - before - looked_for,
                "found": found[name],
                "share": round(found[name] / looked_for, 4),
                "documents": self.documents[name],
            }
            before = end
        return figures

    def exhibits(self) -> list[dict[str, Any]]:
        """Tables of the sets and of the items that were found most often."""
        columns = ["set", "items", "too short", "found", "share found", "documents"]
        rows = [[name, *figures.values()] for name, figures in self.sets().items()]
        shown = [exhibits.table("evaluation sets found in documents", columns, rows)]
        if self.items:
            often = sorted(self.items.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
            shown.append(exhibits.table("items found most often", ["item", "documents"], often))
            edges = np.geomspace(1, max(10_000, self.words.max() + 1), 41)
            title = "words that a document shares"
            shown.append(exhibits.histogram(title, self.words, edges))
        return shown


@dataclass(frozen=True, slots=True)
class _Look:
    """What a batch shares; small, so that it can be sent to other processes."""

    folder: Path
    digest: str

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        index = opened(self.folder, self.digest)
        found = index.find(batch["text"].to_pylist())
        sets: list[str | None] = [None] * batch.num_rows
        items: list[str | None] = [None] * batch.num_rows
        for row, numbers in found.items.items():
            of = [index.names[number] for number in index.set_of(numbers)]
            items[row] = _BETWEEN.join(
                f"{name}:{index.ids[number].replace(_BETWEEN, '_')}"
                for name, number in zip(of, numbers.tolist(), strict=True)
            )
            sets[row] = index.names[int(index.set_of(found.first_items[row : row + 1])[0])]
        return {
            "overlap_set": sets,
            "overlap_place": pa.array(found.place, pa.int64(), mask=found.place < 0),
            "overlap_words": found.words,
            "overlap_items": items,
        }
