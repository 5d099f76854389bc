"""A base that has learnt a little, and settings of a family that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regrow.compress.family_config import FamilyConfig
from regrow.core.config import load_config
from regrow.grow.execute import execute
from regrow.train.config import PretrainConfig

TIMED = ("seconds", "run", "source")


def pretrained(folder: Path, shards: Path) -> Path:
    """A run folder with a base of three layers."""
    config = load_config(
        PretrainConfig,
        base={
            "model": {
                "layers": 3, "hidden_size": 48, "intermediate_size": 80, "heads": 4, "kv_heads": 2,
                "head_dim": 12, "tie_embeddings": True, "max_positions": 256,
            },
            "data": {"shards": str(shards), "sequence": 32},
            "train": {"tokens": 8192, "batch_tokens": 256, "micro_batch": 8, "precision": "fp32"},
            "optim": {"lr": 8e-3},
            "eval": {"tokens": 256},
        },
    )  # fmt: skip
    execute("pretrain", config, folder, quiet=True)
    return folder


def family_config(base: Path, shards: Path, **settings: Any) -> FamilyConfig:
    """Two children, three candidates each, trials of eight steps."""
    budget = {"tolerance": 0.1, "hidden_align": 8, "mlp_align": 8}
    children = {
        "half": {"budget": {**budget, "non_embedding_parameters": 0.5}},
        "third": {"budget": {**budget, "non_embedding_parameters": 0.3}},
    }
    made: dict[str, Any] = {
        "model": str(base),
        "data": {"shards": str(shards), "sequence": 32, "seed": 5},
        "train": {
            "tokens": 1024, "batch_tokens": 128, "micro_batch": 2, "precision": "fp32",
            "threads": 1,
        },
        "optim": {"lr": 3e-3},
        "eval": {"tokens": 256},
        "save": {"every_tokens": 256},
        "samples": 16,
        "children": children,
    }  # fmt: skip
    made |= settings
    searched = any("budget" in child for child in made["children"].values())
    if searched:
        made = {"candidates": 3, "trial": {"tokens": 1024, "score_tokens": 256}} | made
    return load_config(FamilyConfig, base=made)


def without_times(value: Any, folder: Path) -> Any:
    """A result without what differs between two equal runs."""
    if isinstance(value, dict):
        return {k: without_times(v, folder) for k, v in value.items() if k not in TIMED}
    if isinstance(value, list):
        return [without_times(item, folder) for item in value]
    return value
