"""How many processes train together, and whether a shape can be divided among them; no torch."""

from __future__ import annotations

import os

from regrow.model.config import ModelConfig


def process_count() -> int:
    """Processes that torchrun started; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def tensor_problems(config: ModelConfig, processes: int) -> list[str]:
    """Why a shape cannot be cut into so many parts; nothing where it can."""
    found = []
    sizes: dict[str, int] = {}
    if "*" in config.pattern:
        sizes["kv_heads"] = config.kv_heads
    if "-" in config.pattern:
        sizes["intermediate_size"] = config.intermediate_size
    if config.mamba is not None:
        sizes["mamba.groups"] = config.mamba.groups
    for name, size in sizes.items():
        if size % processes:
            found.append(f"parallel.tp: {processes} does not divide {name} {size}")
    return found
