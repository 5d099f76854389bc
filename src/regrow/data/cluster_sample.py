"""Documents of a curation that is only planned: all of them without their texts, and a sample.

A sample is one of clusters: documents that are copies of one another come into it together or not
at all, by a hash of the one that stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.errors import RegrowError
from regrow.core.seed import derive
from regrow.data import engine
from regrow.data import stages as staging
from regrow.data.clusters import CLUSTERS
from regrow.data.document import GATHERED
from regrow.data.permutation import mix
from regrow.data.settings.duplicates import DuplicatesConfig, Highest
from regrow.data.settings.plan import CuratePlanConfig
from regrow.data.stages import Alive, Stage
from regrow.data.steps import STEPS
from regrow.io.parquet import TableWriter

COPIES = ("exact", "fuzzy")
_LEAST_TIMED = 50


class Clock:
    """Seconds of what was done on all documents, and of steps on a small sample."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.whole: dict[str, float] = {}
        self.small: tuple[int, dict[str, float]] = (0, {})

    def stop(self, name: str) -> None:
        """Note the seconds since the last stop."""
        now = time.monotonic()
        self.whole[name] = now - self.began
        self.began = now


class Pool:
    """Every document, without its text. Legend: D documents.

    Args:
        texts: the gathered tables.
        ids: ``(D,)``, rising.
        sources: ``(D,)`` numbers of sources.
        sizes: ``(D,)`` bytes of text.
        seed: of the sample.
    """

    def __init__(
        self, texts: tuple[Path, ...], ids: pa.Array, sources: Any, sizes: Any, seed: int
    ) -> None:
        self.texts, self.ids, self.sources, self.sizes = texts, ids, sources, sizes
        self.groups = np.arange(len(ids))
        self.stay: dict[str, np.ndarray] = {}
        self._seed = seed

    @classmethod
    def read(cls, config: CuratePlanConfig, texts: tuple[Path, ...]) -> Pool:
        """From the gathered tables; texts pass by in a stream."""
        frame = engine.read_parquet(texts)
        size = frame["text"].length_bytes().cast("int64").alias("size")
        table = frame.select("id", "source", size).to_arrow().sort_by("id").combine_chunks()
        names = config.source_names()
        sources = np.array([names.index(one) for one in table["source"].to_pylist()])
        ids = table["id"].combine_chunks()
        return cls(texts, ids, sources, table["size"].to_numpy().astype(np.float64), config.seed)

    def compare(self, config: CuratePlanConfig, folder: Path, clock: Clock) -> None:
        """Find all copies: groups of documents, and who stays after each step that looks for them.

        Steps between them are left out; what those would take before is taken from the sample.
        """
        folder.mkdir()
        if isinstance(config.duplicates.keep, Highest):  # by a column that only the sample has
            config = config.replace(duplicates=DuplicatesConfig(scope=config.duplicates.scope))
        alive = Alive(self.texts, "all", None, len(self.ids), {})
        clock.stop("between")
        for number, name in enumerate((s for s in config.steps if s in COPIES), 1):
            stage = staging.do(STEPS.get(name)(config), number, alive, folder, None)
            alive = stage.alive
            table = pq.read_table(stage.folder / CLUSTERS)
            rows = self.rows(table["id"])
            heads = np.arange(len(self.ids))
            heads[rows] = self.rows(table["kept_id"])
            # What was a copy in an earlier step follows the one that stayed.
            self.groups = heads[self.groups]
            stays = np.zeros(len(self.ids))
            stays[self.rows(pq.read_table(stage.folder / staging.ALIVE)["id"])] = 1
            self.stay[name] = stays
            clock.stop(name)

    def rows(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Positions of ids."""
        return np.asarray(pc.index_in(ids, self.ids).to_numpy())

    def drawn(self, share: float) -> np.ndarray:
        """Positions of the documents of a share of groups; a smaller share is part of a larger."""
        seed = derive(self._seed, "plan") % 2**64
        names = self.ids.take(pa.array(np.unique(self.groups))).to_pylist()
        places = _spread(
            np.array([int(one[:16], 16) for one in names], np.uint64) ^ np.uint64(seed)
        )
        whole = np.zeros(len(self.ids))
        whole[np.unique(self.groups)] = places
        return np.flatnonzero(whole[self.groups] < share)


def _spread(x: np.ndarray) -> np.ndarray:
    """64-bit numbers as evenly spread ones in [0, 1) (SplitMix64)."""
    return np.asarray(mix(x + np.uint64(0x9E3779B97F4A7C15)) / 2**64)


@dataclass(frozen=True, slots=True)
class Sample:
    """The documents that the steps see. Legend: N of them.

    Args:
        texts: their tables.
        ids: ``(N,)``, rising.
        rows: ``(N,)`` their positions among all.
        drawn: probability of each group.
        bytes: of their text.
    """

    texts: tuple[Path, ...]
    ids: pa.Array
    rows: np.ndarray
    drawn: float
    bytes: int

    @classmethod
    def cut(cls, pool: Pool, drawn: float, folder: Path) -> Sample:
        """Copy the texts of a share of the groups into a folder."""
        folder.mkdir()
        rows = pool.drawn(drawn)
        ids = pool.ids.take(pa.array(rows))
        tables = []
        for number, path in enumerate(pool.texts):
            target = folder / f"part-{number:05d}.parquet"
            with pq.ParquetFile(path) as file, TableWriter(target, GATHERED) as writer:
                for batch in file.iter_batches():
                    writer.write(batch.filter(pc.is_in(batch["id"], ids)))
            if writer.written:
                tables.append(target)
        return cls(tuple(tables), ids, rows, drawn, int(pool.sizes[rows].sum()))

    def run(self, config: CuratePlanConfig, folder: Path) -> tuple[list[Stage], list[str]]:
        """Do the steps; fewer where one leaves nothing, and a note about it."""
        folder.mkdir()
        alive = Alive(self.texts, "sample", None, len(self.ids), {})
        done: list[Stage] = []
        for number, name in enumerate(config.steps, 1):
            done.append(staging.do(STEPS.get(name)(config), number, alive, folder, None))
            alive = done[-1].alive
            if not alive.rows:
                return done, [f"the step {name} leaves nothing of the sample"]
        return done, []

    def timed(self, config: CuratePlanConfig, folder: Path) -> tuple[int, dict[str, float]]:
        """Bytes, and seconds of each step; nothing where the sample is too small to tell, or where
        a step finds too little in it to learn from."""
        if len(self.rows) < _LEAST_TIMED:
            return 0, {}
        try:
            done, _ = self.run(config, folder)
        except RegrowError:
            return 0, {}
        return self.bytes, {stage.step.name: stage.counts["seconds"] for stage in done}
