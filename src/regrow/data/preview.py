"""``curate plan``: what a curation would leave and cost, from a sample of its documents.

Every source is read whole and every text is compared with all others, in a folder that goes at the
end; so what the steps ``exact`` and ``fuzzy`` take is known, and does not have to be guessed from a
sample, of which it would be no fixed share. The other steps see a sample of clusters: documents
that are copies of one another come into it together or not at all.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.atomic import read_json, write_json
from regrow.core.errors import InputError, RegrowError
from regrow.core.seed import derive
from regrow.data import engine, estimate, gathering
from regrow.data import stages as staging
from regrow.data.card import dropped_examples
from regrow.data.clusters import CLUSTERS
from regrow.data.document import GATHERED
from regrow.data.estimate import Estimate
from regrow.data.jobs import curate
from regrow.data.publish import SplitWriters, merged
from regrow.data.settings.duplicates import DuplicatesConfig, Highest
from regrow.data.settings.plan import CuratePlanConfig
from regrow.data.sources import SOURCES
from regrow.data.stages import Alive, Stage
from regrow.data.steps import STEPS
from regrow.io.parquet import TableWriter

COPIES = ("exact", "fuzzy")
_THIN = 100
_QUARTER = 0.25
_LEAST_TIMED = 50


def preview(config: CuratePlanConfig, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the steps on a sample.

    Args:
        config: settings of the run, and ``sample``.
        tell: called with a line about what happens.

    Returns:
        ``documents`` and ``bytes`` of all sources, ``sample``, ``gather`` (counts, exact),
        ``stages`` (documents that stay, with low and high, in all and by source, and what each rule
        takes), ``text_bytes``, ``cost``, ``exhibits``, ``examples``, ``notes``.

    Raises:
        InputError: no usable document, or none in the sample.
    """
    curate.plan(config)
    engine.configure(config.engine)
    with tempfile.TemporaryDirectory(prefix="regrow-plan-") as name:
        folder = Path(name)
        clock = _Clock()
        gathered = _gather(config, folder, tell)
        clock.stop("gather")
        counts = curate.summed(read_json(one / gathering.COUNTS) for one in gathered)
        curate.require_documents(config, gathered, counts)
        texts = tuple(path for one in gathered for path in gathering.part_tables(one))
        pool = _Pool.read(config, texts)
        if any(step in COPIES for step in config.steps):
            tell(f"compares {len(pool.ids):,} documents")
            pool.compare(config, folder / "all", clock)
        drawn = min(1.0, config.sample if config.sample < 1 else config.sample / len(pool.ids))
        sample = _Sample.cut(pool, drawn, folder / "sample")
        tell(f"runs the steps on {len(sample.rows):,} documents")
        small = _Sample.cut(pool, drawn * _QUARTER, folder / "quarter")
        clock.small = small.timed(config, folder / "quarter-stages")
        done, notes = sample.run(config, folder / "stages")
        found = _Findings(config, pool, sample, done)
        kept = found.text_bytes()
        disk = sum(path.stat().st_size for path in texts)
        return {
            "documents": len(pool.ids),
            "bytes": int(pool.sizes.sum()),
            "sample": {
                "documents": len(sample.rows),
                "share": drawn,
                "clusters": len(np.unique(pool.groups[sample.rows])),
                "bytes": sample.bytes,
            },
            "gather": {k: v for k, v in counts.items() if k != "seconds"},
            "stages": found.stages(),
            "text_bytes": kept.as_counts(),
            "cost": found.cost(clock, kept, disk, folder / "documents"),
            "exhibits": {s.step.name: s.step.exhibits(s.scores, s.folder) for s in done},
            "examples": dropped_examples(done, sample.texts),
            "notes": [*notes, *found.thin()],
        }


class _Clock:
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


def _gather(config: CuratePlanConfig, folder: Path, tell: Callable[[str], None]) -> list[Path]:
    """Read every source; where its texts went."""
    gathered = []
    for unit in [u for s in config.sources for u in SOURCES.get(s.kind)(s)]:
        tell(f"reads {unit.name}")
        place, work = folder / f"gather-{unit.name}", folder / "read"
        place.mkdir()
        counts = gathering.gather(unit, config.pii, place, work)
        write_json(place / gathering.COUNTS, {**counts, "seconds": 0.0})
        gathering.forget(work)
        gathered.append(place)
    return gathered


class _Pool:
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
    def read(cls, config: CuratePlanConfig, texts: tuple[Path, ...]) -> _Pool:
        """From the gathered tables; texts pass by in a stream."""
        frame = engine.read_parquet(texts)
        size = frame["text"].length_bytes().cast("int64").alias("size")
        table = frame.select("id", "source", size).to_arrow().sort_by("id").combine_chunks()
        names = config.source_names()
        sources = np.array([names.index(one) for one in table["source"].to_pylist()])
        ids = table["id"].combine_chunks()
        return cls(texts, ids, sources, table["size"].to_numpy().astype(np.float64), config.seed)

    def compare(self, config: CuratePlanConfig, folder: Path, clock: _Clock) -> None:
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
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((x ^ (x >> np.uint64(31))) / 2**64)


@dataclass(frozen=True, slots=True)
class _Sample:
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
    def cut(cls, pool: _Pool, drawn: float, folder: Path) -> _Sample:
        """Copy the texts of a share of the groups into a folder.

        Raises:
            InputError: they are none.
        """
        folder.mkdir()
        rows = pool.drawn(drawn)
        if not len(rows) and drawn >= 1 / len(pool.ids):
            raise InputError(
                f"sample: {drawn:.2g} of {len(pool.ids):,} documents is none; set more, such as "
                f"sample={min(len(pool.ids), 1000)}"
            )
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


class _Findings:
    """What the sample says of all documents.

    Args:
        config: the settings.
        pool: all documents.
        sample: those that were looked at.
        done: the steps that they went through.
    """

    def __init__(
        self, config: CuratePlanConfig, pool: _Pool, sample: _Sample, done: Sequence[Stage]
    ) -> None:
        self.pool, self.sample, self.done = pool, sample, done
        self.names = config.source_names()
        self.sources, self.groups = pool.sources[sample.rows], pool.groups[sample.rows]
        self.totals = np.bincount(pool.sources, minlength=len(self.names))
        self.seen = np.bincount(self.sources, minlength=len(self.names))
        self.stays = [self._stays(stage) for stage in done]
        shown = (self.totals > 0).sum() + 1
        self.z = estimate.width(len(done) * int(shown) + 1)

    def _stays(self, stage: Stage) -> np.ndarray:
        stays = np.zeros(len(self.sample.ids))
        alive = pq.read_table(stage.folder / staging.ALIVE)["id"]
        stays[pc.index_in(alive, self.sample.ids).to_numpy()] = 1
        return stays

    def _whole(self, stage: int) -> np.ndarray:
        """``(D,)`` which documents would stay if the steps so far only took copies."""
        copies = [s.step.name for s in self.done[: stage + 1] if s.step.name in self.pool.stay]
        return self.pool.stay[copies[-1]] if copies else np.ones(len(self.pool.ids))

    def _known(self, stage: int) -> bool:
        """Whether nothing has to be guessed: only copies were taken so far."""
        return all(s.step.name in self.pool.stay for s in self.done[: stage + 1])

    def _one(self, stage: int, source: int, sizes: np.ndarray) -> Estimate:
        """What stays of a source, in documents or bytes.

        Args:
            stage: number of the step.
            source: number of the source.
            sizes: ``(D,)``, what each document counts.
        """
        whole = self._whole(stage) * sizes
        total = float(whole[self.pool.sources == source].sum())
        rows = self.sources == source
        seen = whole[self.sample.rows][rows]
        if self._known(stage):
            return Estimate(total, total, total)
        if not seen.sum():
            return Estimate(total / 2, 0, total)
        parts = (self.stays[stage] * sizes[self.sample.rows])[rows]
        found = estimate.ratio(parts, seen, self.groups[rows], self.sample.drawn, self.z)
        return found.scaled(total)

    def _all(self, stage: int, sizes: np.ndarray) -> Estimate:
        """What stays of all sources; each document stands for others of its own source."""
        whole = self._whole(stage) * sizes
        total = np.bincount(self.pool.sources, whole, minlength=len(self.names))
        if self._known(stage):
            return Estimate(*[float(total.sum())] * 3)
        own = whole[self.sample.rows]
        seen = np.bincount(self.sources, own, minlength=len(self.names))
        weights = np.divide(total, seen, out=np.zeros(len(total)), where=seen > 0)[self.sources]
        parts = self.stays[stage] * sizes[self.sample.rows] * weights
        unseen = float(total[seen == 0].sum())
        if not seen.sum():
            return Estimate(unseen / 2, 0, unseen)
        found = estimate.ratio(parts, own * weights, self.groups, self.sample.drawn, self.z)
        known = found.scaled(float(total.sum()) - unseen)
        return known.plus(0, found.value * unseen, unseen)

    def stages(self) -> list[dict[str, Any]]:
        """Documents that stay after each step, and what each rule takes."""
        ones = np.ones(len(self.pool.ids))
        return [
            {
                "step": stage.step.name,
                "out": self._all(number, ones).as_counts(),
                "sources": {
                    name: self._one(number, index, ones).as_counts()
                    for index, name in enumerate(self.names)
                    if self.totals[index]
                },
                "dropped": self._dropped(stage),
            }
            for number, stage in enumerate(self.done)
        ]

    def _dropped(self, stage: Stage) -> dict[str, dict[str, int]]:
        """What each rule takes: of the sample, and about how many of all."""
        table = pq.read_table(stage.folder / staging.DROPPED_IDS)
        rows = pc.index_in(table["id"], self.sample.ids).to_numpy()
        stands = (self.totals / np.maximum(self.seen, 1))[self.sources[rows]]
        found: dict[str, list[float]] = {}
        for reason, weight in zip(table["reason"].to_pylist(), stands, strict=True):
            found.setdefault(reason, []).append(weight)
        ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        return {
            reason: {"sampled": len(weights), "estimate": round(sum(weights))}
            for reason, weights in ordered
        }

    def text_bytes(self) -> Estimate:
        """UTF-8 bytes of text in the end."""
        return self._all(len(self.done) - 1, self.pool.sizes)

    def thin(self) -> list[str]:
        """Sources of which the sample says little."""
        return [
            f"{name}: {seen:,} of its {total:,} documents are in the sample; raise sample"
            for name, seen, total in zip(self.names, self.seen, self.totals, strict=True)
            if seen < min(_THIN, total)
        ]

    def cost(self, clock: _Clock, kept: Estimate, disk: int, folder: Path) -> dict[str, Any]:
        """Seconds by step and in all, and bytes on disk."""
        size, whole = self.sample.bytes, float(self.pool.sizes.sum())
        small, seconds = clock.small
        steps = {"gather": clock.whole["gather"]}
        for stage in self.done:
            name = stage.step.name
            steps[name] = clock.whole.get(name) or estimate.line(
                (small, seconds.get(name, 0.0)), (size, stage.counts["seconds"]), whole
            )
        began = time.monotonic()
        written, text = self._write(folder)
        factor = kept.value / max(1, text)
        steps["documents"] = (time.monotonic() - began) * factor
        tables = [p.stat().st_size for s in self.done for p in s.folder.rglob("*.parquet")]
        scores = sum(tables) * whole / size
        return {
            "seconds": {name: round(value, 1) for name, value in steps.items()},
            "total_seconds": round(sum(steps.values()), 1),
            "documents_bytes": round(written * factor),
            "scores_bytes": round(scores),
            "peak_disk_bytes": round(disk + written * factor + scores),
        }

    def _write(self, folder: Path) -> tuple[int, int]:
        """Write the sample's documents as the run would; bytes of their tables, and of text."""
        last = self.done[-1]
        text = int(self.pool.sizes[self.sample.rows][self.stays[-1] > 0].sum())
        if last.alive.ids is None or last.step.name != "split":
            return 0, text
        folder.mkdir()
        scores = [stage.folder / staging.SCORES for stage in self.done]
        with SplitWriters(folder) as writers:
            for table in merged(self.sample.texts, scores, last.alive.ids, self.sample.bytes):
                deque(writers.write(table), maxlen=0)
        return sum(path.stat().st_size for path in folder.iterdir()), text
