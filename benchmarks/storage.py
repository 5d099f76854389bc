"""Checkpoints against writing and flushing the same bytes; the loader against random
windows of one memory map.

Turn by turn in one process; ratios are medians of the rounds.

    python benchmarks/storage.py checkpoint --megabytes 256
    python benchmarks/storage.py loader --sequence 512
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from turns import ratio, rounds

from regrow.core.hardware import fingerprint
from regrow.data.loader import Loader, Phase
from regrow.data.shards import ShardWriter, Vocabulary
from regrow.train import checkpoint


def saving(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Save of a model with two moments, its verification, and both limits."""
    numbers = options.megabytes * (1 << 20) // 12
    rows = max(1, numbers // 1024 // 8)
    model = {f"layer{i}.weight": torch.randn(rows, 1024) for i in range(8)}
    moments = {f"{n}/{k}": torch.randn_like(t) for n, t in model.items() for k in ("m", "v")}
    state = checkpoint.State(model, moments, {"cpu": torch.get_rng_state()})
    step = 0

    def save() -> None:
        nonlocal step
        step += 1
        checkpoint.save(folder / "checkpoints", step, state)

    def plain() -> None:
        for name, tensors in (("model", model), ("optimizer", moments)):
            path = folder / f"{name}.safetensors"
            safetensors.torch.save_file(tensors, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def verify() -> None:
        assert not checkpoint.problems(checkpoint.step_folder(folder / "checkpoints", step))

    def hashing() -> None:
        for name in ("model", "optimizer"):
            hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()

    save()
    plain()
    spent = rounds(
        {"save": save, "write": plain, "verify": verify, "sha256": hashing},
        options.rounds,
        time.perf_counter,
    )
    return {
        "bytes": state.bytes(),
        "seconds": {name: statistics.median(values) for name, values in spent.items()},
        "save_over_write": ratio(spent["save"], spent["write"]),
        "verify_over_sha256": ratio(spent["verify"], spent["sha256"]),
    }


def loading(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Batches of the loader, and the same bytes taken from a memory map in order."""
    generator = np.random.default_rng(0)
    (folder / "train").mkdir()
    vocabulary = Vocabulary(8192, 0, "f" * 64)
    for name in ("first", "second"):
        with ShardWriter(folder / "train", name, vocabulary) as writer:
            for _ in range(2000):
                writer.add(generator.integers(1, 8192, 2000).tolist(), 8000)
    from regrow.data.shards import ShardSet

    shards = dict(ShardSet.open(folder, "train"))
    batch, count = options.batch, 200
    phase = Phase("all", {"first": 0.7, "second": 0.3}, batch * count)
    loader = Loader(shards, [phase], options.sequence, seed=0)
    tokens = shards["first"].tokens

    def ours() -> None:
        for first in range(0, batch * count, batch):
            loader.batch(first, batch)

    def plain() -> None:
        span = options.sequence + 1
        for _ in range(count):
            starts = generator.integers(0, len(tokens) - span, batch)
            rows = np.stack([tokens[s : s + span].astype(np.int64) for s in starts])
            torch.from_numpy(rows[:, :-1].copy())
            torch.from_numpy(rows[:, 1:].copy())

    spent = rounds({"loader": ours, "memory map": plain}, options.rounds, time.perf_counter)
    read = batch * count * options.sequence
    return {
        "tokens_per_second": {n: read / statistics.median(v) for n, v in spent.items()},
        "speed_of_memory_map": ratio(spent["memory map"], spent["loader"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["checkpoint", "loader"])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        figures = (saving if options.what == "checkpoint" else loading)(options, folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({**figures, "load": os.getloadavg()[0], "machine": fingerprint()}, indent=1))


if __name__ == "__main__":
    main()
