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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regrow.core.atomic import read_json, write_json
from regrow.core.errors import InputError
from regrow.data import engine, estimate, gathering
from regrow.data import stages as staging
from regrow.data.card import dropped_examples
from regrow.data.cluster_sample import COPIES, Clock, Pool, Sample
from regrow.data.estimate import Estimate
from regrow.data.jobs import curate
from regrow.data.publish import SplitWriters, merged
from regrow.data.settings.plan import CuratePlanConfig
from regrow.data.sources import SOURCES
from regrow.data.stages import Stage

_THIN = 100
_QUARTER = 0.25


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
        clock = Clock()
        gathered = _gather(config, folder, tell)
        clock.stop("gather")
        counts = curate.summed(read_json(one / gathering.COUNTS) for one in gathered)
        curate.require_documents(config, gathered, counts)
        texts = tuple(path for one in gathered for path in gathering.part_tables(one))
        pool = Pool.read(config, texts)
        if any(step in COPIES for step in config.steps):
            tell(f"compares {len(pool.ids):,} documents")
            pool.compare(config, folder / "all", clock)
        drawn = min(1.0, config.sample if config.sample < 1 else config.sample / len(pool.ids))
        sample = Sample.cut(pool, drawn, folder / "sample")
        if not len(sample.rows):
            raise InputError(
                f"sample: {drawn:.2g} of {len(pool.ids):,} documents is none; set more, such as "
                f"sample={min(len(pool.ids), 1000)}"
            )
        tell(f"runs the steps on {len(sample.rows):,} documents")
        small = Sample.cut(pool, drawn * _QUARTER, folder / "quarter")
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
    engine.let_go()
    return gathered


class _Findings:
    """What the sample says of all documents.

    Args:
        config: the settings.
        pool: all documents.
        sample: those that were looked at.
        done: the steps that they went through.
    """

    def __init__(
        self, config: CuratePlanConfig, pool: Pool, sample: Sample, done: Sequence[Stage]
    ) -> None:
        self.pool, self.sample, self.done = pool, sample, done
        self.names = config.source_names()
        self.sources, self.groups = pool.sources[sample.rows], pool.groups[sample.rows]
        self.totals = np.bincount(pool.sources, minlength=len(self.names))
        self.seen = np.bincount(self.sources, minlength=len(self.names))
        self.stays = [self._stays(stage) for stage in done]
        # Cells are what a group holds of a source. Legend: C of them.
        pairs = self.groups * len(self.names) + self.sources
        places, self.cells = np.unique(pairs, return_inverse=True)
        self.cell_groups, self.cell_sources = np.divmod(places, len(self.names))
        shown = (self.totals > 0).sum() + 1
        # Twice as many, for those that are sums of two.
        self.z = estimate.width(2 * (len(done) * int(shown) + 1))

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

    def _stay(self, stage: int, sizes: np.ndarray, source: int | None = None) -> Estimate:
        """What stays, in documents or bytes.

        Told as a share of what the copies leave, which is known of all. More than that may stay
        where a step before the copies takes another one than the policy would have: that is told
        as a share of everything.

        Args:
            stage: number of the step.
            sizes: ``(D,)``, what each document counts.
            source: its number; None for all.
        """
        whole = self._whole(stage) * sizes
        mine = self.pool.sources == source if source is not None else np.ones(len(sizes), bool)
        if self._known(stage):
            return Estimate(*[float(whole[mine].sum())] * 3)
        own, every = (self._by_cell(one[self.sample.rows]) for one in (whole, sizes))
        stays = self._by_cell(self.stays[stage] * sizes[self.sample.rows])
        picked = self.cell_sources == source if source is not None else np.ones(len(own), bool)
        found = self._share(np.minimum(stays, own), own, picked, whole * mine)
        more = np.maximum(stays - own, 0)
        if more[picked].any():
            other = self._share(more, every, picked, sizes * mine)
            found = found.plus(other.low, other.value, other.high)
        return Estimate(found.value, found.low, min(found.high, float(sizes[mine].sum())))

    def _by_cell(self, values: np.ndarray) -> np.ndarray:
        """Sums of ``(N,)`` over cells, ``(C,)``."""
        return np.bincount(self.cells, values, minlength=len(self.cell_sources))

    def _share(
        self, parts: np.ndarray, whole: np.ndarray, picked: np.ndarray, sizes: np.ndarray
    ) -> Estimate:
        """A part of the whole, scaled up; each cell stands for others of its own source.

        Args:
            parts, whole: ``(C,)``.
            picked: ``(C,)``, which cells count.
            sizes: ``(D,)``, of which ``whole`` is the sample's.
        """
        total = np.bincount(self.pool.sources, sizes, minlength=len(self.names))
        sources, groups = self.cell_sources[picked], self.cell_groups[picked]
        seen = np.bincount(sources, whole[picked], minlength=len(self.names))
        unseen = float(total[seen == 0].sum())
        if not seen.sum():
            return Estimate(unseen / 2, 0, unseen)
        weights = np.divide(total, seen, out=np.zeros(len(total)), where=seen > 0)[sources]
        found = estimate.ratio(
            parts[picked] * weights, whole[picked] * weights, groups, self.sample.drawn, self.z
        )
        known = found.scaled(float(total.sum()) - unseen)
        return known.plus(0, found.value * unseen, unseen)

    def stages(self) -> list[dict[str, Any]]:
        """Documents that stay after each step, and what each rule takes."""
        ones = np.ones(len(self.pool.ids))
        return [
            {
                "step": stage.step.name,
                "out": self._stay(number, ones).as_counts(),
                "sources": {
                    name: self._stay(number, ones, index).as_counts()
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
        return self._stay(len(self.done) - 1, self.pool.sizes)

    def thin(self) -> list[str]:
        """Sources of which the sample says little."""
        return [
            f"{name}: {seen:,} of its {total:,} documents are in the sample; raise sample"
            for name, seen, total in zip(self.names, self.seen, self.totals, strict=True)
            if seen < min(_THIN, total)
        ]

    def cost(self, clock: Clock, kept: Estimate, disk: int, folder: Path) -> dict[str, Any]:
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
