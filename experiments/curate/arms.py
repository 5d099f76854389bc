"""The arms: a configuration of ``curate run`` each, and the tokens that a model is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from experiments.curate import world
from experiments.curate.prepare import RAW, Seed, curate, rows
from experiments.verbs import do

from regrow.data.shards import ShardSet

Ints = npt.NDArray[np.int64]
SHARES = {"High": 0.70, "Medium": 0.25, "Low": 0.05}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make training text of the pool.

    Args:
        label: as the tables say it.
        config: file of ``arms/`` that makes its documents.
        after: arm whose scores it can use again, and whose size it takes where it is random.
        shares: quality to share of the tokens; empty where documents are drawn evenly.
        target: set that the selection is by.
        small: whether it is of the small pool, for twice the raw pool's tokens.
    """

    label: str
    config: str
    after: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    target: str = ""
    small: bool = False


#: In the order of running: what is reused comes first.
ARMS = {
    "raw": Arm("raw", "raw"),
    "dedup": Arm("dedup", "dedup"),
    "filter": Arm("+ filter", "filter"),
    "dsir": Arm("+ DSIR", "dsir", "filter", target="target"),
    "attr": Arm("+ attributes (full pipeline)", "attr", "dsir", SHARES, "target"),
    "random": Arm("control: random, as many bytes as + DSIR", "random", "dsir"),
    "shuffled": Arm(
        "control: DSIR to a random target", "dsir-target-shuffled", "filter", target=world.ASIDE
    ),
    "attr-filter": Arm("attributes on + filter, without DSIR", "attr-filter", "filter", SHARES),
    "raw-2": Arm("raw, two epochs", "raw", small=True),
    "dedup-2": Arm("dedup, as many tokens", "dedup", small=True),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an arm is trained on.

    Args:
        documents: token ids of each, end mark last.
        files: what each is, ``(documents,)``.
        epochs: how often each bucket was gone through.
    """

    documents: list[Ints]
    files: list[str]
    epochs: dict[str, float]

    @property
    def tokens(self) -> int:
        """Ids in all."""
        return sum(map(len, self.documents))


def curated(seed: Seed, name: str) -> Path:
    """The arm's run of ``curate run``, made where it is not there."""
    arm = ARMS[name]
    folder = seed.folder / f"arm-{name.removesuffix('-2')}"
    words = seed.pool()
    if arm.config == "random":
        # Chosen by ids, which are hashes: a random part of each source.
        kept = _source_bytes(seed.folder / f"arm-{arm.after}")
        words += [f"sources.{n}.max_bytes={kept[s]}" for n, s in enumerate(RAW) if kept.get(s)]
    elif arm.after:
        words.append(f"reuse={seed.folder / f'arm-{arm.after}'}")
    if arm.target:
        words.append(f"select.target.files=[{seed.world}/sets/{arm.target}.jsonl]")
    if arm.shares:
        words.append(f"attributes.quality={seed.folder / 'classifier'}")
    curate(folder, arm.config, *words)
    return folder


def _source_bytes(run: Path) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for row in rows(run, ("source", "text")):
        sizes[row["source"]] += len(row["text"].encode())
    return sizes


def drawn(
    seed: Seed, folder: Path, documents: Path, shares: Mapping[str, float], tokens: int
) -> Drawn:
    """Whole documents, epoch after epoch, by the verb ``tokenize``.

    Args:
        seed: whose tokenizer is used.
        folder: of the run.
        documents: a run of ``curate run``.
        shares: quality to share of the tokens; empty for no buckets.
        tokens: in all, end marks counted; each bucket ends between two documents.
    """
    sample: dict[str, Any] = {"total_tokens": tokens, "seed": seed.seed}
    if shares:
        sample |= {"buckets": ["quality"], "method": "manual", "weights": dict(shares)}
        sample["min_share"] = 0.0
    tokenizer = str(seed.folder / "tokenizer")
    told = do("tokenize", folder, documents=str(documents), tokenizer=tokenizer, sample=sample)
    buckets = told["sample"]["buckets"]
    spoken = seed.tokenizer()
    known = {row["text"]: row["file"] for row in rows(documents, ("text", "file"))}
    found: list[Ints] = []
    for shard in ShardSet.open(folder, "train").values():
        if shard.num_documents:  # a bucket of a few tokens may have got none
            found += np.split(np.asarray(shard.tokens, np.int64), shard.document_starts[1:])
    files = [known[spoken.decode(ids[:-1].tolist())] for ids in found]
    return Drawn(found, files, epochs(buckets, told["sample"]["sampled_tokens"], shares))


def epochs(
    buckets: Mapping[str, Mapping[str, Any]], tokens: int, shares: Mapping[str, float]
) -> dict[str, float]:
    """How often each bucket was gone through; all together where there are no qualities."""
    if shares:
        return {name: buckets[name]["sampled_epochs"] for name in shares}
    return {"all": tokens / sum(bucket["available_tokens"] for bucket in buckets.values())}


def mixture(seed: Seed, sample: Drawn) -> dict[str, Any]:
    """Tokens by kind, and those in planted copies."""
    index = seed.index()
    kinds: Counter[str] = Counter()
    copies = 0
    for ids, file in zip(sample.documents, sample.files, strict=True):
        known = index.get(file)
        kinds[known["kind"] if known else "archives"] += len(ids)
        copies += len(ids) if known and known["copy"] else 0
    return {"kinds": dict(sorted(kinds.items())), "copies": copies}


def removed(seed: Seed, run: Path) -> dict[str, Any]:
    """Documents of each class in the pool, and how many each step took.

    Returns:
        ``pool``: class to number; ``steps``: step to class to number. Classes: ``copies``
        (planted near-duplicates of any kind), and without them ``links``, ``foreign``, ``code``,
        ``english``.
    """
    index = seed.index()
    pool = Counter(class_of(line) for line in index.values())
    steps: dict[str, Counter[str]] = {}
    table = pq.read_table(run / "documents" / "dropped.parquet", columns=["file", "step"])
    for file, step in zip(table["file"].to_pylist(), table["step"].to_pylist(), strict=True):
        if file in index:
            steps.setdefault(step, Counter())[class_of(index[file])] += 1
    return {"pool": dict(pool), "steps": {name: dict(found) for name, found in steps.items()}}


def class_of(line: Mapping[str, Any]) -> str:
    """What a document is to the table of what was removed."""
    if line["copy"]:
        return "copies"
    return {"farm": "links", "foreign": "foreign", "code": "code"}.get(line["kind"], "english")


def groups() -> dict[str, tuple[str, ...]]:
    """Kinds as the table of mixtures puts them together."""
    named = (*world.TARGET_KINDS, *world.OUT_KINDS)
    rest = tuple(kind for kind in world.ENGLISH if kind not in named)
    return {
        "kinds of held_in": world.TARGET_KINDS,
        "kinds of held_out": world.OUT_KINDS,
        "other English": (*rest, "archives"),
        "links": ("farm",),
        "foreign": ("foreign",),
        "code": ("code",),
    }
