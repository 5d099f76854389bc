"""From a seed to what every arm of it needs: the pool without what is measured, the sets, the
tokenizer, the classifier; each a run folder, so that a kill costs one of them at most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from experiments.curate import world
from experiments.verbs import do

from regrow.core import atomic
from regrow.data.clusters import CLUSTERS
from regrow.io.parquet import read_batches
from regrow.io.tokenizer import Tokenizer

ARMS = Path(__file__).parent / "arms"
RAW = ("pages", "dump", "archives")
_CLEAN = "clean.json"


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is; the smoke test makes it small."""

    world: world.Size = field(default_factory=world.Size)
    small: float = 0.12
    """Scale of the pool that the arms of two epochs and more are trained on."""
    vocab: int = 4096
    tokenizer_bytes: int = 6_000_000
    tokens: int = 600_000
    """Training tokens of the n-gram model."""
    decoder_tokens: int = 3_072_000
    hidden: int = 128
    layers: int = 4
    sequence: int = 256
    batch: int = 1024
    lr: float = 3e-3


def curate(folder: Path, config: str, *words: str) -> None:
    """A run of ``curate run``, made where it is not there.

    Args:
        folder: of the run.
        config: a file of ``arms/``.
        words: overrides, as on the command line.
    """
    do("curate run", folder, [ARMS / f"{config}.yaml"], words)


class Seed:
    """The folders of one seed.

    Args:
        data: the folder that ``REGROW_DATA`` names.
        work: where they lie.
        seed: of all draws.
        size: see there.
        small: whether the pool is the small one.
    """

    def __init__(self, data: Path, work: Path, seed: int, size: Size, small: bool = False) -> None:
        self.data, self.seed, self.size, self.small = data, seed, size, small
        self.folder = work / (f"small-{seed}" if small else f"seed-{seed}")
        self.world = self.folder / "world"

    def prepare(self) -> dict[str, Any]:
        """Everything that is not there yet; what was removed as a copy of a held-out text."""
        own = self.size.world
        if self.small:
            own = replace(own, scale=own.scale * self.size.small)
        world.build(self.data, self.world, self.seed, own)
        removed = self._clean()
        curate(self.folder / "sets", "sets", *self._sets())
        curate(self.folder / "arm-raw", "raw", *self.pool())
        if not self.small:
            do("curate annotate", self.folder / "classifier", attribute="quality",
               labels=str(self.world / "labels.jsonl"), seed=self.seed)  # fmt: skip
        do("tokenizer", self.folder / "tokenizer", documents=str(self.folder / "arm-raw"),
           vocab_size=self.size.vocab, sample_bytes=self.size.tokenizer_bytes)  # fmt: skip
        return removed

    def pool(self, first: int = 0) -> list[str]:
        """Overrides that name the raw files and the seed."""
        places = (self.world / "pages", self.world / "dump", self.data / "warc-samples")
        paths = [f"sources.{first + n}.path={place}" for n, place in enumerate(places)]
        return [*paths, f"seed={self.seed}"]

    def _sets(self) -> list[str]:
        """Overrides that name the files of the sets."""
        names = world.SETS
        return [f"sources.{n}.path={self.world}/sets/{s}.jsonl" for n, s in enumerate(names)]

    def _clean(self) -> dict[str, Any]:
        """Take documents that share a cluster with a text of a set out of the raw files."""
        if (self.world / _CLEAN).exists():
            return dict(atomic.read_json(self.world / _CLEAN))
        folder = self.folder / "contamination"
        sets = self._sets()
        curate(folder, "contamination", *sets, *self.pool(len(sets)))
        found = contaminated(folder)
        for file in found:
            if file.startswith("pages/"):
                (self.world / file).unlink(missing_ok=True)
        gone = {file.removeprefix("dump#") for file in found}
        for path in sorted((self.world / "dump").glob("*.jsonl")):
            kept = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
                    if json.loads(line)["id"] not in gone]  # fmt: skip
            atomic.write_bytes(path, "".join(kept).encode())
        removed = {"documents": len(found), "files": sorted(found)}
        atomic.write_json(self.world / _CLEAN, removed)
        return removed

    def index(self) -> dict[str, dict[str, Any]]:
        """``file`` of a raw document to what it is."""
        lines = (self.world / "index.jsonl").read_text(encoding="utf-8").splitlines()
        return {line["file"]: line for line in map(json.loads, lines)}

    def tokenizer(self) -> Tokenizer:
        """That all arms of the seed share."""
        return Tokenizer.load(self.folder / "tokenizer" / "export")

    def sets(self) -> dict[str, dict[str, list[str]]]:
        """Set to kind to texts, of the sets that are measured, in English."""
        kinds = {}
        for name in world.SETS:
            lines = (self.world / "sets" / f"{name}.jsonl").read_text(encoding="utf-8")
            for line in map(json.loads, lines.splitlines()):
                kinds[f"{name}#{line['id']}"] = line["kind"]
        made: dict[str, dict[str, list[str]]] = {name: {} for name in world.SETS}
        for row in rows(self.folder / "sets", ("source", "file", "text")):
            made[row["source"]].setdefault(kinds[row["file"]], []).append(row["text"])
        return made


def rows(run: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The training documents of a run of ``curate run``, by id."""
    for batch in read_batches(run / "documents" / "train.parquet", columns):
        yield from batch.to_pylist()


def contaminated(run: Path) -> set[str]:
    """``file`` of the pool's documents that share a cluster with a document of a set.

    Args:
        run: of ``curate run`` on the sets and the pool, with the step ``fuzzy``.
    """
    found = next((run / "stages").glob(f"*-fuzzy-*/{CLUSTERS}"))
    component = dict(zip(*_columns(found, "id", "component"), strict=True))
    documents = run / "documents"
    origin: dict[str, tuple[str, str]] = {}
    for name in ("train", "dropped"):
        ids, files, sources = _columns(documents / f"{name}.parquet", "id", "file", "source")
        origin |= dict(zip(ids, zip(files, sources, strict=True), strict=True))
    held = {component[id] for id, (_, source) in origin.items()
            if source not in RAW and id in component}  # fmt: skip
    return {file for id, (file, source) in origin.items()
            if source in RAW and component.get(id) in held}  # fmt: skip


def _columns(path: Path, *names: str) -> list[list[Any]]:
    table = pq.read_table(path, columns=list(names))
    return [table[name].to_pylist() for name in names]


def raw_tokens(seed: Seed) -> int:
    """Tokens of the raw pool, end marks counted."""
    texts = [row["text"] for row in rows(seed.folder / "arm-raw", ("text",))]
    return sum(len(ids) + 1 for ids in seed.tokenizer().encode_batch(texts))
