"""``curate plan``: what a curation would leave and cost, from a sample of its documents.

Every source is read whole, into a folder that goes at the end; the steps see a sample only. Which
documents these are goes by one MinHash of each text: equal texts have the same one, near duplicates
of Jaccard similarity J with probability J. So copies come into the sample together or not at all,
and what duplicates lose scales with the sample like everything else; where a near duplicate was
parted from its copy, the loss is raised by 1 / J.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
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
from regrow.data.estimate import Estimate, Floats
from regrow.data.jobs import curate
from regrow.data.lsh import resolve
from regrow.data.minhash import jaccard, normalised, shingle_hashes
from regrow.data.publish import SplitWriters, merged
from regrow.data.settings.plan import CuratePlanConfig
from regrow.data.sources import SOURCES
from regrow.data.stages import Alive, Stage
from regrow.data.steps import STEPS
from regrow.io.parquet import TableWriter

_EMPTY = 0xFFFFFFFF  # of a text without any letter or digit
_MEASURED = 1000  # pairs whose similarity is computed
_LEAST_SIMILAR = 0.5  # two copies may hang together by others between them
_THIN = 100
_QUARTER = 0.25
_LEAST_TIMED = 50


@dataclass(frozen=True, slots=True)
class _Pool:
    """Every document, without its text. Legend: D documents.

    Args:
        ids: ``(D,)``, rising.
        sources: ``(D,)`` numbers of sources.
        keys: ``(D,)`` what copies have in common.
        sizes: ``(D,)`` bytes of text.
        places: ``(D,)`` in [0, 1), of the keys: the documents below p are a sample of share p.
    """

    ids: pa.Array
    sources: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    places: np.ndarray


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
        gathered, read_seconds = _gather(config, folder, tell)
        counts = curate.summed(read_json(one / gathering.COUNTS) for one in gathered)
        curate.require_documents(config, gathered, counts)
        texts = [path for one in gathered for path in gathering.part_tables(one)]
        began = time.monotonic()
        pool = _pool(config, texts)
        total = len(pool.ids)
        drawn = min(1.0, config.sample if config.sample < 1 else config.sample / total)
        chosen = pool.places < drawn
        if not chosen.any():
            raise InputError(
                f"sample: {config.sample:g} of {total:,} documents is none; set more, such as "
                f"sample={min(total, 1000)}"
            )
        tell(f"runs the steps on {int(chosen.sum()):,} of {total:,} documents")
        sample = _Sample.cut(pool, chosen, drawn, texts, folder / "sample")
        steps = [STEPS.get(step)(config) for step in config.steps]
        quarter = pool.places < drawn * _QUARTER
        timed = _timed(config, pool, quarter, drawn, texts, folder)
        done, notes = sample.run(steps, folder / "stages")
        found = _Findings(config, pool, sample, done)
        notes = [*notes, *found.thin()]
        told = {
            "documents": total,
            "bytes": int(pool.sizes.sum()),
            "sample": {
                "documents": len(sample.ids),
                "share": drawn,
                "groups": len(np.unique(sample.keys)),
                "bytes": int(sample.sizes.sum()),
            },
            "gather": {k: v for k, v in counts.items() if k != "seconds"},
            "stages": found.stages(),
            "text_bytes": found.text_bytes(),
            "exhibits": {s.step.name: s.step.exhibits(s.scores, s.folder) for s in done},
            "examples": dropped_examples(done, sample.texts),
        }
        disk = sum(path.stat().st_size for path in texts)
        told["cost"] = found.cost(read_seconds, timed, disk, folder)
        told["seconds"] = round(read_seconds + time.monotonic() - began, 1)
        return {**told, "notes": notes}


def _gather(
    config: CuratePlanConfig, folder: Path, tell: Callable[[str], None]
) -> tuple[list[Path], float]:
    """Read every source; where the texts went, and how long it took."""
    began = time.monotonic()
    gathered = []
    for unit in [u for s in config.sources for u in SOURCES.get(s.kind)(s)]:
        tell(f"reads {unit.name}")
        place, work = folder / f"gather-{unit.name}", folder / "read"
        place.mkdir()
        counts = gathering.gather(unit, config.pii, place, work)
        write_json(place / gathering.COUNTS, {**counts, "seconds": 0.0})
        gathering.forget(work)
        gathered.append(place)
    return gathered, time.monotonic() - began


def _pool(config: CuratePlanConfig, texts: Sequence[Path]) -> _Pool:
    """Ids, sources, sizes and keys of all documents; the texts are read once, in a stream."""
    lsh = resolve(config.fuzzy)
    frame = engine.read_parquet(texts)
    text = normalised(frame["text"])
    if lsh.unit == "character":
        size, text = max(1, lsh.n // 5), text  # words of about as many characters
    else:
        size = lsh.n
    seed = derive(config.seed, "plan") % 2**32
    key = engine.expressions().minhash(
        text, num_hashes=1, ngram_size=size, seed=seed, hash_function="xxhash3_64"
    )
    frame = frame.select("id", "source", frame["text"].length_bytes().alias("size"), key.alias("k"))
    table = frame.to_arrow().sort_by("id").combine_chunks()
    keys = table["k"].combine_chunks().flatten().to_numpy().astype(np.uint64)
    own = np.array([int(one[:15], 16) for one in table["id"].to_pylist()], np.uint64)
    keys = np.where(keys == _EMPTY, own + np.uint64(_EMPTY + 1), keys)
    names = config.source_names()
    sources = np.array([names.index(one) for one in table["source"].to_pylist()])
    sizes = table["size"].to_numpy().astype(np.float64)
    return _Pool(table["id"].combine_chunks(), sources, keys, sizes, _places(keys))


def _places(keys: np.ndarray) -> np.ndarray:
    """Keys as evenly spread numbers in [0, 1); a minimum of hashes is none (SplitMix64)."""
    x = keys + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((x ^ (x >> np.uint64(31))) / 2**64)


@dataclass(frozen=True, slots=True)
class _Sample:
    """The documents that the steps see. Legend: N of them.

    Args:
        texts: their tables.
        ids: ``(N,)``, rising.
        sources: ``(N,)``.
        keys: ``(N,)``.
        sizes: ``(N,)``.
        drawn: probability of each key.
    """

    texts: tuple[Path, ...]
    ids: pa.Array
    sources: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    drawn: float

    @classmethod
    def cut(
        cls, pool: _Pool, chosen: np.ndarray, drawn: float, texts: Sequence[Path], folder: Path
    ) -> _Sample:
        """Copy the chosen documents' texts into a folder."""
        folder.mkdir()
        ids = pool.ids.filter(pa.array(chosen))
        tables = []
        for number, path in enumerate(texts):
            target = folder / f"part-{number:05d}.parquet"
            with pq.ParquetFile(path) as file, TableWriter(target, GATHERED) as writer:
                for batch in file.iter_batches():
                    writer.write(batch.filter(pc.is_in(batch["id"], ids)))
            if writer.written:
                tables.append(target)
        return cls(
            tuple(tables), ids, pool.sources[chosen], pool.keys[chosen], pool.sizes[chosen], drawn
        )

    def run(self, steps: Sequence[Any], folder: Path) -> tuple[list[Stage], list[str]]:
        """Do the steps; fewer where one leaves nothing, and a note about it."""
        folder.mkdir()
        alive = Alive(self.texts, "sample", None, len(self.ids), {})
        done: list[Stage] = []
        for number, step in enumerate(steps, 1):
            done.append(staging.do(step, number, alive, folder, None))
            alive = done[-1].alive
            if not alive.rows:
                return done, [f"the step {step.name} leaves nothing of the sample"]
        return done, []

    def rows(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Positions of ids in the sample."""
        return np.asarray(pc.index_in(ids, self.ids).to_numpy(zero_copy_only=False))


def _timed(
    config: CuratePlanConfig,
    pool: _Pool,
    chosen: np.ndarray,
    drawn: float,
    texts: Sequence[Path],
    folder: Path,
) -> tuple[float, dict[str, float]]:
    """Bytes of a quarter of the sample, and the seconds of each step on it; 0 where it is too
    small, or where a step finds too little in it to learn from."""
    if chosen.sum() < _LEAST_TIMED:
        return 0.0, {}
    sample = _Sample.cut(pool, chosen, drawn * _QUARTER, texts, folder / "quarter")
    steps = [STEPS.get(step)(config) for step in config.steps]
    try:
        done, _ = sample.run(steps, folder / "quarter-stages")
    except RegrowError:
        return 0.0, {}
    return float(sample.sizes.sum()), {s.step.name: s.counts["seconds"] for s in done}


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
        self.sample, self.done = sample, done
        self.names = config.source_names()
        self.totals = np.bincount(pool.sources, minlength=len(self.names))
        self.seen = np.bincount(sample.sources, minlength=len(self.names))
        self.bytes = np.bincount(pool.sources, pool.sizes, minlength=len(self.names))
        self.seen_bytes = np.bincount(sample.sources, sample.sizes, minlength=len(self.names))
        self.weights = (self.totals / np.maximum(self.seen, 1))[sample.sources]
        self.z = estimate.width(len(done) * (int((self.seen > 0).sum()) + 1) + 1)
        self.alive = [self._alive(stage) for stage in done]
        self.parted = np.zeros(len(sample.ids))
        self.kept = np.arange(len(sample.ids))
        for stage in done:
            if (stage.folder / CLUSTERS).exists():
                self._part(config, stage)

    def _alive(self, stage: Stage) -> np.ndarray:
        stays = np.zeros(len(self.sample.ids), bool)
        stays[self.sample.rows(pq.read_table(stage.folder / staging.ALIVE)["id"])] = True
        return stays

    def _part(self, config: CuratePlanConfig, stage: Stage) -> None:
        """How many copies a dropped one stands for that came into the sample without theirs."""
        table = pq.read_table(stage.folder / CLUSTERS)
        gone = table.filter(pc.not_equal(table["id"], table["kept_id"]))
        rows, kept = self.sample.rows(gone["id"]), self.sample.rows(gone["kept_id"])
        if not len(rows):
            return
        self.kept[rows] = kept
        looked = np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).astype(int)
        ids = pa.concat_arrays(
            [self.sample.ids.take(pa.array(part[looked])) for part in (rows, kept)]
        )
        wanted = engine.from_columns({"id": ids.unique().to_pylist()})
        frame = engine.read_parquet(self.sample.texts).join(wanted, on="id", how="semi")
        lsh = resolve(config.fuzzy)
        shingles = {
            row["id"]: shingle_hashes(row["text"], lsh)
            for row in engine.rows(frame.select("id", normalised(frame["text"]).alias("text")))
        }
        names = self.sample.ids.to_pylist()
        more = np.array(
            [
                1 / max(_LEAST_SIMILAR, jaccard(shingles[names[a]], shingles[names[b]])) - 1
                for a, b in zip(rows[looked], kept[looked], strict=True)
            ]
        )
        self.parted[rows] = more.mean()
        self.parted[rows[looked]] = more

    def _values(self, stage: int, factor: float) -> Floats:
        """``(N,)`` 1 where a document stays; below 0 where it also takes along others that were
        parted from it, as long as what it was a copy of stays.

        Args:
            stage: number of the step.
            factor: of the correction.
        """
        stays = self.alive[stage]
        values = stays.astype(np.float64)
        if self.sample.drawn < 1:
            follows = ~stays & stays[self.kept]
            values[follows] -= factor * self.parted[follows]
        return values

    def _share(self, stage: int, rows: np.ndarray, weights: Floats) -> Estimate:
        """Of the documents at ``rows``; the interval holds no and a double correction."""
        none, found, double = (
            estimate.share(
                self._values(stage, factor)[rows],
                weights[rows],
                self.sample.keys[rows],
                self.sample.drawn,
                self.z,
            )
            for factor in (0.0, 1.0, 2.0)
        )
        return found.united(none).united(double)

    def _all(self, stage: int, weights: Floats, totals: np.ndarray) -> Estimate:
        """Of all sources; of those that are not in the sample nothing is known."""
        known = float(totals[self.seen > 0].sum())
        unknown = float(totals.sum()) - known
        every = np.ones(len(self.sample.ids), bool)
        found = self._share(stage, every, weights)
        return found.scaled(known).plus(0, found.value * unknown, unknown)

    def stages(self) -> list[dict[str, Any]]:
        """Documents that stay after each step, and what each rule takes."""
        told = []
        for number, stage in enumerate(self.done):
            sources: dict[str, Any] = {}
            for index, name in enumerate(self.names):
                if not self.totals[index]:
                    continue
                rows = self.sample.sources == index
                if rows.any():
                    found = self._share(number, rows, self.weights).scaled(self.totals[index])
                    sources[name] = found.as_counts()
                else:
                    sources[name] = {"estimate": None, "low": 0, "high": int(self.totals[index])}
            told.append(
                {
                    "step": stage.step.name,
                    "out": self._all(number, self.weights, self.totals).as_counts(),
                    "sources": sources,
                    "dropped": self._dropped(stage),
                }
            )
        return told

    def _dropped(self, stage: Stage) -> dict[str, dict[str, int]]:
        """What each rule takes: of the sample, and about how many of all."""
        table = pq.read_table(stage.folder / staging.DROPPED_IDS)
        rows = self.sample.rows(table["id"])
        stands = self.weights[rows] * (1 + self.parted[rows] * (self.sample.drawn < 1))
        found: dict[str, list[float]] = {}
        for reason, weight in zip(table["reason"].to_pylist(), stands, strict=True):
            found.setdefault(reason, []).append(weight)
        ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        return {
            reason: {"sampled": len(weights), "estimate": round(sum(weights))}
            for reason, weights in ordered
        }

    def text_bytes(self) -> dict[str, int]:
        """UTF-8 bytes of text in the end."""
        by_byte = self.bytes / np.maximum(self.seen_bytes, 1)
        weights = by_byte[self.sample.sources] * self.sample.sizes
        return self._all(len(self.done) - 1, weights, self.bytes).as_counts()

    def thin(self) -> list[str]:
        """Sources of which the sample says little."""
        return [
            f"{name}: {seen} of its {total:,} documents are in the sample; raise sample"
            for name, seen, total in zip(self.names, self.seen, self.totals, strict=True)
            if seen < min(_THIN, total)
        ]

    def cost(
        self, read_seconds: float, timed: tuple[float, dict[str, float]], disk: int, folder: Path
    ) -> dict[str, Any]:
        """Seconds by step and in all, and bytes on disk."""
        size, whole = float(self.sample.sizes.sum()), float(self.bytes.sum())
        quarter, seconds = timed
        steps = {
            s.step.name: estimate.slope(
                (quarter, seconds.get(s.step.name, 0.0)), (size, s.counts["seconds"]), whole
            )
            for s in self.done
        }
        factor = whole / max(1.0, size)
        began = time.monotonic()
        written = self._write(folder / "documents")
        steps = {"gather": read_seconds, **steps, "documents": 0.0}
        steps["documents"] = (time.monotonic() - began) * factor
        scores = sum(p.stat().st_size for s in self.done for p in s.folder.rglob("*.parquet"))
        return {
            "seconds": {name: round(value, 1) for name, value in steps.items()},
            "total_seconds": round(sum(steps.values()), 1),
            "documents_bytes": round(written * factor),
            "scores_bytes": round(scores * factor),
            "peak_disk_bytes": round(disk + (written + scores) * factor),
        }

    def _write(self, folder: Path) -> int:
        """Write the sample's documents as the run would; the bytes of their tables."""
        last = self.done[-1]
        if last.alive.ids is None or not last.alive.rows or last.step.name != "split":
            return 0
        folder.mkdir()
        scores = [stage.folder / staging.SCORES for stage in self.done]
        size = int(self.sample.sizes.sum())
        with SplitWriters(folder) as writers:
            for table in merged(self.sample.texts, scores, last.alive.ids, size):
                Counter(split for split, _ in writers.write(table))
        written = sum(path.stat().st_size for path in folder.iterdir())
        shutil.rmtree(folder)
        return written
