"""What every arm starts from: the teacher, its scores, and the students before any training.

Each piece is a verb of the house in its own run folder, so that a kill costs little.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.verbs import do

from regrow.core import atomic
from regrow.core.metrics_log import MetricsLog
from regrow.core.yaml12 import read_yaml
from regrow.data.shards import ShardSet
from regrow.io.runs import resolve_model, resolve_shards
from regrow.model.config import ModelConfig
from regrow.model.folder import load
from regrow.model.folder import load_config as load_shape
from regrow.model.shapes import non_embedding_parameters
from regrow.train.held_out import held_out

BATCH_AGGREGATIONS = ("l2", "mean", "var")
SEQUENCE_AGGREGATIONS = ("mean", "l2", "var")


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is; :data:`TINY` makes it small."""

    kept: float = 0.5
    """Share of the teacher's non-embedding parameters that a student has."""
    tolerance: float = 0.02
    """How far from it the width student may be, as a share."""
    students: float = 0.08
    """Tokens of a student as a share of the teacher's."""
    short: float = 0.03
    """The same for the child that the scratch twin has to catch up with."""
    light: float = 0.03
    """The same for the candidates of the search."""
    candidates: int = 12
    spread: float = 0.05
    """How far from ``kept`` a candidate may be, as a share of it."""
    samples: int = 512
    """Calibration windows."""
    randoms: int = 5
    """Random prunings for each calibration seed."""
    rates: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {"pruned": (1e-3, 2e-3, 4e-3), "scratch": (2e-3, 4e-3, 8e-3)}
    )
    """Learning rates that are tried on seed 0, ascending, each twice the one before."""
    more_rates: int = 2
    """How many further ones, where the best lies at an end."""
    precision: str = "bf16"
    """Of the students' training; scores are computed in fp32."""
    score_tokens: int = 16_384
    """Test tokens of each source, at most."""
    eval_tokens: int = 4096
    """Validation tokens of each source, at most."""
    speed: tuple[int, int, int] = (128, 64, 9)
    """Tokens of the prompt, new tokens, rounds."""


#: Seconds; the tests run it.
TINY = Size(
    tolerance=0.1,
    students=0.1,
    short=0.05,
    light=0.07,
    candidates=3,
    spread=0.2,
    samples=16,
    randoms=2,
    rates={"pruned": (4e-3, 8e-3), "scratch": (8e-3, 1.6e-2)},
    more_rates=0,
    precision="fp32",
    score_tokens=256,
    eval_tokens=128,
    speed=(8, 4, 2),
)


@dataclass(frozen=True)
class Base:
    """A finished family folder with the stages ``base`` and ``shards``: the teacher.

    Args:
        family: the folder, as ``regrow grow recipes/base.yaml`` makes it.
    """

    family: Path

    @property
    def folder(self) -> Path:
        """The run that made the teacher."""
        return self.family / "base"

    @property
    def shards(self) -> Path:
        """The text that it was trained on, with held-out splits."""
        return self.family / "shards"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What it was trained with."""
        read: dict[str, Any] = read_yaml(self.folder / "config.yaml")[0]
        return read

    @cached_property
    def result(self) -> dict[str, Any]:
        """Its ``result.json``."""
        read: dict[str, Any] = atomic.read_json(self.folder / "result.json")
        return read

    @cached_property
    def shape(self) -> ModelConfig:
        """Its shape."""
        return load_shape(resolve_model(self.folder))

    @property
    def sequence(self) -> int:
        """Tokens of a window."""
        return int(self.settings["data"]["sequence"])

    @property
    def batch(self) -> int:
        """Tokens of a step."""
        return int(self.settings["train"]["batch_tokens"])

    @property
    def weights(self) -> dict[str, float]:
        """The blend of its last phase."""
        return dict(self.settings["data"]["phases"][-1]["weights"])

    @property
    def sha(self) -> str:
        """What tells this teacher from another."""
        return str(self.result["weights_sha256"])[:12]

    def tokens(self, share: float) -> int:
        """A share of the teacher's tokens in whole steps."""
        return max(1, int(self.result["tokens"] * share) // self.batch) * self.batch


def last_quarter(base: Base) -> float:
    """By which share the held-out loss fell over the last quarter of the tokens.

    The loss at three quarters is interpolated between the two nearest evaluations.
    """
    points = [
        (record["tokens"], record["validation"]["loss"])
        for record in MetricsLog(base.folder / "metrics.jsonl").read()
        if "validation" in record
    ]
    end, last = points[-1]
    place = 0.75 * end
    before = max((p for p in points if p[0] <= place), default=points[0])
    after = min(p for p in points if p[0] >= place)
    share = (place - before[0]) / max(1, after[0] - before[0])
    then = before[1] + share * (after[1] - before[1])
    return float((then - last) / then)


def score(model: Path, base: Base, size: Size) -> dict[str, Any]:
    """Test loss of a model in nats a token, over all sources and by source."""
    found = held_out(
        load(model),
        ShardSet.open(resolve_shards(base.shards), "test"),
        None,
        base.sequence,
        8,
        size.score_tokens,
    )
    return {"loss": found["loss"], "losses": found["losses"]}


@dataclass(frozen=True)
class Students:
    """The models that are trained, as they are before; each is made when it is asked for.

    Args:
        base: the teacher.
        work: where their run folders lie.
        size: how large.
    """

    base: Base
    work: Path
    size: Size

    @property
    def key(self) -> str:
        """What results of one teacher and one size have in common."""
        told = json.dumps(asdict(self.size), sort_keys=True)
        return f"{self.base.sha}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"

    def scores(self, seed: int) -> Path:
        """Importance over calibration windows that the seed draws."""
        self.importance(seed)
        return self.work / f"scores-{seed}"

    def importance(self, seed: int) -> dict[str, Any]:
        """The result of the pass itself; seed 0 also gathers what the nine aggregations need."""
        return do(
            "importance",
            self.work / f"scores-{seed}",
            model=str(self.base.folder),
            shards=str(self.base.shards),
            samples=self.size.samples,
            sequence=self.base.sequence,
            weights=self.base.weights,
            sequence_aggregations=SEQUENCE_AGGREGATIONS if not seed else ("mean",),
            seed=seed,
        )

    def _cut(self, folder: Path, **settings: Any) -> dict[str, Any]:
        return do(
            "prune",
            folder,
            model=str(self.base.folder),
            shards=str(self.base.shards),
            split="test",
            max_tokens=self.size.score_tokens,
            sequence=self.base.sequence,
            **settings,
        )

    @cached_property
    def width(self) -> dict[str, int]:
        """The shape of the width student, from its budget."""
        found = self._cut(
            self.work / "pruned-importance-0",
            scores=str(self.scores(0)),
            budget={
                "non_embedding_parameters": self.size.kept,
                "tolerance": self.size.tolerance,
            },
        )["shape"]
        return {name: found[name] for name in ("hidden_size", "intermediate_size")}

    @property
    def config(self) -> ModelConfig:
        """The same as a model's shape."""
        return self.base.shape.replace(**self.width)

    @property
    def layers(self) -> int:
        """Layers of the depth student: nearest to the parameters of the width student."""
        wanted, shape = non_embedding_parameters(self.config), self.base.shape
        return min(
            range(2, shape.layers),
            key=lambda n: abs(non_embedding_parameters(shape.replace(layers=n)) - wanted),
        )

    def pruned(self, seed: int, **more: Any) -> dict[str, Any]:
        """Cut by importance; ``more`` are aggregations.

        Seed 0 is the run that the shape was found in.
        """
        width = self.width
        if not seed and not more:
            return atomic.read_json(self.work / "pruned-importance-0" / "result.json")
        name = "-".join(["pruned-importance", str(seed), *map(str, more.values())])
        return self._cut(self.work / name, scores=str(self.scores(seed)), shape=width, **more)

    def random(self, index: int) -> dict[str, Any]:
        """Cut at random."""
        folder = self.work / f"pruned-random-{index}"
        return self._cut(folder, selection="random", seed=index, shape=self.width)

    def shallow(self, seed: int) -> dict[str, Any]:
        """Layers taken away instead of width: those whose loss on training text says so."""
        folder = self.work / f"pruned-depth-{seed}"
        return self._cut(folder, scores=str(self.scores(seed)), shape={"layers": self.layers})

    def fresh(self, seed: int) -> Path:
        """The width student's shape with random weights."""
        import torch

        from regrow.core.seed import derive
        from regrow.io.tokenizer import Tokenizer
        from regrow.model.decoder import Decoder
        from regrow.model.folder import save

        folder = self.work / f"fresh-{seed}"
        if not folder.exists():
            model = Decoder(self.config)
            model.initialise(torch.Generator().manual_seed(derive(seed, "weights")))
            save(model, folder, Tokenizer.load(resolve_model(self.base.folder)))
        return folder

    def start(self, method: str, seed: int) -> Path:
        """Where the student of a method begins."""
        if method == "importance":
            self.pruned(seed)
            return self.work / f"pruned-importance-{seed}"
        if method == "random":
            self.random(seed * self.size.randoms)
            return self.work / f"pruned-random-{seed * self.size.randoms}"
        if method == "depth":
            self.shallow(seed)
            return self.work / f"pruned-depth-{seed}"
        return self.fresh(seed)


def tiny(family: Path) -> Base:
    """A base of seconds, from a little of the Python installation's text."""
    sources = {
        "kind": "python",
        "domains": ["code", "docstrings"],
        "max_bytes": {"code": 120_000, "docstrings": 40_000},
    }
    do("curate run", family / "corpus", sources=[sources], steps=["exact", "split"])
    corpus, tokenizer = str(family / "corpus"), str(family / "tokenizer")
    do("tokenizer", family / "tokenizer", documents=corpus, vocab_size=384)
    do("tokenize", family / "shards", documents=corpus, tokenizer=tokenizer)
    shape = {"hidden_size": 32, "layers": 4, "heads": 2, "kv_heads": 1, "intermediate_size": 64}
    do(
        "pretrain",
        family / "base",
        model={**shape, "layout": "llama", "tie_embeddings": True, "init_std": 0.1},
        data={
            "shards": str(family / "shards"),
            "sequence": 16,
            "phases": [{"name": "general", "weights": {"code": 0.7, "docstrings": 0.3}}],
        },
        train={"tokens": 8192, "batch_tokens": 128, "micro_batch": 8, "precision": "fp32"},
        optim={"lr": 1e-2},
        eval={"every_tokens": 2048, "tokens": 256},
        guard={"max_grad_norm_sigma": 0},
    )
    return Base(family)
