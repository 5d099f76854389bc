"""A corpus of a few words, a base trained on it, and configs that continue it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from regrow.core.config import load_config
from regrow.core.run import Run
from regrow.data.shards import Vocabulary, write_shard
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.train.config import ContinueConfig, PretrainConfig
from regrow.train.jobs import pretrain

WORDS = ("tree", "branch", "root", "leaf", "grows", "falls", "and", "the", "old", "green")


def documents(seed: int, count: int) -> list[str]:
    """Lines of random words."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(WORDS), (count, 30), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in row) + ".\n" for row in picks]


def write_corpus(folder: Path, tokenizer: Tokenizer | None = None) -> Path:
    """Shards of two sources with their tokenizer, as a tokenize run would leave them."""
    texts = {"prose": documents(1, 120), "code": documents(2, 60)}
    tokenizer = tokenizer or train_byte_level(iter(texts["prose"]), 300)
    tokenizer.save(folder / "tokenizer")
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    for source, written in texts.items():
        encoded = [(tokenizer.encode(text), len(text.encode())) for text in written]
        write_shard(folder / "shards/train", source, encoded[10:], vocabulary)
        write_shard(folder / "shards/validation", source, encoded[:10], vocabulary)
    return folder


def execute_job(job: Any, config: Any, folder: Path) -> tuple[dict[str, Any], Run]:
    """A job in a claimed folder."""
    run = Run.claim(folder, "test", config, quiet=True)
    try:
        return job.run(config, run), run
    finally:
        run.release()


def pretrain_base(corpus: Path, folder: Path, *words: str) -> dict[str, Any]:
    """A finished pretraining run of one small layer."""
    base = [
        f"data.shards={corpus}",
        "data.sequence=16",
        "model.layers=1",
        "model.hidden_size=32",
        "model.intermediate_size=64",
        "train.tokens=1280",
        "train.batch_tokens=64",
        "train.micro_batch=2",
        "train.precision=fp32",
        "optim.lr=0.01",
    ]
    config = load_config(PretrainConfig, overrides=[*base, *words])
    return execute_job(pretrain, config, folder)[0]


def continue_config(corpus: Path, model: Path, *words: str) -> ContinueConfig:
    """Two phases over 20 steps."""
    base = [
        f"model={model}",
        f"data.shards={corpus}",
        "data.sequence=16",
        "data.phases=[{name: gb, weights: {prose: 3, code: 1}}, {name: qb, weights: {code: 1}}]",
        "train.tokens=1280",
        "train.batch_tokens=64",
        "train.micro_batch=2",
        "train.precision=fp32",
        "log.every_steps=5",
    ]
    return load_config(ContinueConfig, overrides=[*base, *words])
