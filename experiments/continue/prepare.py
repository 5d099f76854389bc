"""From the text to a base that the arms continue: every stage is a verb of the house in its own
run folder, so that a kill costs at most a checkpoint's worth of work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from experiments.verbs import do

from regrow.core import atomic
from regrow.core.metrics_log import MetricsLog
from regrow.data.shards import Vocabulary, write_shard
from regrow.io.tokenizer import Tokenizer

from .questions import SPLITS, Pair, pairs, unique  # noqa: TID252 (the folder's name is a keyword)
from .text import SOURCES, write_sources  # noqa: TID252

Say = Callable[[str], None]

#: Blend A: 70 English, 15 other languages, 15 code, in percent of the tokens.
ENGLISH = {"packages": 20.0, "reference": 5.0, "books": 25.0, "speeches": 20.0}
BLEND_A = {**ENGLISH, "languages": 15.0, "code": 15.0}
#: The general blend: documentation up, books and speeches down; the same 15 and 15.
GENERAL = {
    "packages": 38.0,
    "reference": 12.0,
    "books": 10.0,
    "speeches": 10.0,
    "languages": 15.0,
    "code": 15.0,
}
QA = "questions"
QA_SHARE = 0.25
SATURATED = 0.02


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is; the smoke test makes it small."""

    vocab: int = 4096
    hidden: int = 128
    layers: int = 4
    sequence: int = 256
    base_batch: int = 1024
    batch: int = 1024
    ladder: tuple[int, ...] = (12_288_000, 24_576_000)
    """Tokens of the base: the first that saturates is continued, else the last."""
    continued: float = 0.2
    """Tokens of an arm as a share of the base's."""
    score_tokens: int = 65_536
    """Held-out tokens of each source, at most."""
    max_bytes: Mapping[str, int] = field(default_factory=dict)
    """Of the domains of the Python installation."""
    lr: float = 3e-3


def shards(work: Path, data: Path, size: Size) -> Path:
    """Shards of all sources and of the questions, with their tokenizer; returns their folder."""
    final = work / "data"
    if final.exists():
        return final
    write_sources(data, work / "text")
    python = {
        "kind": "python",
        "domains": ["code", "reference", "packages"],
        "max_bytes": dict(size.max_bytes),
    }
    folders = [{"kind": "folder", "name": s, "path": str(work / "text" / s)} for s in SOURCES]
    split = {"train": 0.8, "validation": 0.08, "test": 0.12}
    steps = ["exact", "split"]
    do("curate run", work / "corpus", sources=[python, *folders], steps=steps, split=split)
    corpus, tokenizer = str(work / "corpus"), str(work / "tokenizer")
    do("tokenizer", work / "tokenizer", documents=corpus, vocab_size=size.vocab)
    do("tokenize", work / "shards", documents=corpus, tokenizer=tokenizer)
    spoken = Tokenizer.load(work / "tokenizer" / "export")
    asked = questions(work)
    with atomic.staged_folder(final) as staged:
        for path in sorted((work / "shards" / "shards").rglob("*")):
            target = staged / "shards" / path.relative_to(work / "shards" / "shards")
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
        vocabulary = Vocabulary(spoken.vocab_size, spoken.end, spoken.sha256)
        for name, found in asked.items():
            encoded = [(spoken.encode(p.text), len(p.text.encode())) for p in found]
            write_shard(staged / "shards" / name, QA, encoded, vocabulary)
        spoken.save(staged / "tokenizer")
    return final


def questions(work: Path) -> dict[str, list[Pair]]:
    """The pairs of each split, by the split of the code that they are from."""
    found: dict[str, list[Pair]] = {}
    for split in SPLITS:
        table = pq.read_table(
            work / "corpus" / "documents" / f"{split}.parquet", columns=["text", "source", "file"]
        )
        found[split] = [
            pair
            for row in table.to_pylist()
            if row["source"] == "code"
            for pair in pairs(_module(row["file"]), row["text"])
        ]
    return unique(found)  # type: ignore[arg-type]


def _module(key: str) -> str:
    path = key.removeprefix("stdlib/").removesuffix(".py").removesuffix("/__init__")
    return path.replace("/", ".")


def base(work: Path, size: Size, say: Say) -> tuple[Path, dict[str, Any]]:
    """The first base of the ladder that is saturated, else the last; and how far each was."""
    tried = []
    folder = work
    for tokens in size.ladder:
        folder = work / f"base-{tokens}"
        do("pretrain", folder, **base_settings(work / "data", tokens, size))
        gain = last_quarter(folder)
        tried.append({"tokens": tokens, "last_quarter_gain": gain})
        say(f"base of {tokens:,} tokens: the last quarter improved held-out loss by {gain:.2%}")
        if gain < SATURATED:
            break
    return folder, {**tried[-1], "saturated": tried[-1]["last_quarter_gain"] < SATURATED}


def base_settings(data: Path, tokens: int, size: Size) -> dict[str, Any]:
    """Settings of the pretraining: blend A, warmup 5 %, cosine to a tenth."""
    return {
        "model": {
            "layout": "nemotron",
            "hidden_size": size.hidden,
            "layers": size.layers,
            "heads": 4,
            "kv_heads": 2,
            "intermediate_size": 4 * size.hidden,
        },
        "data": {
            "shards": str(data),
            "sequence": size.sequence,
            "phases": [{"name": "A", "weights": BLEND_A}],
        },
        "train": {
            "tokens": tokens,
            "batch_tokens": size.base_batch,
            "micro_batch": size.base_batch // size.sequence,
            "precision": "fp32",
        },
        "optim": {"lr": size.lr, "min_ratio": 0.1, "warmup_tokens": tokens // 20},
        "eval": {"every_tokens": tokens // 4, "tokens": size.score_tokens},
        "save": {"every_tokens": max(size.base_batch, min(300_000, tokens // 8))},
        "log": {"every_steps": 50},
    }


def last_quarter(folder: Path) -> float:
    """By which share the held-out loss (mean of English, languages, code) fell at the end."""
    losses = [
        record["validation"]["losses"]
        for record in MetricsLog(folder / "metrics.jsonl").read()
        if "validation" in record
    ]
    before, after = (mean_general(entry) for entry in losses[-2:])
    return (before - after) / before


def english(losses: Mapping[str, float]) -> float:
    """The English sources in blend A's shares."""
    return sum(share * losses[name] for name, share in ENGLISH.items()) / sum(ENGLISH.values())


def mean_general(losses: Mapping[str, float]) -> float:
    """Mean of English, the other languages, and code."""
    return (english(losses) + losses["languages"] + losses["code"]) / 3
