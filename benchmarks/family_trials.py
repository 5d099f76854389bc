"""CPU seconds of lightweight retraining: candidates side by side against one after the other.

    python benchmarks/family_trials.py [--candidates 4] [--steps 24] [--rounds 3]

The teacher has the main job's shape. ``independent``: every candidate is trained to the end and
asks the teacher for itself. ``shared``: the same in lock-step on one teacher's passes. ``halving``:
shared, and the worse half goes after a quarter and after half of the steps; of four candidates one
is left then. Rounds alternate between the three; the least of each is told, as a ratio to the
first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import regrow
from regrow.compress.family_config import FamilyConfig
from regrow.compress.family_step import ChildStep
from regrow.core.config import load_config
from regrow.core.run import Run
from regrow.data.shards import Vocabulary, write_shard
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.search.log import TrialLog

TEACHER = ModelConfig(
    layers=4, hidden_size=128, intermediate_size=384, heads=4, kv_heads=2, head_dim=32,
    vocab_size=4096, tie_embeddings=True, init_std=0.05,
)  # fmt: skip
WAYS = ("independent", "shared", "halving")


def inputs(folder: Path) -> tuple[Path, Path]:
    """A random teacher and random text."""
    model = Decoder(TEACHER)
    model.initialise(torch.Generator().manual_seed(0))
    regrow.save(model, folder / "model")
    vocabulary = Vocabulary(TEACHER.vocab_size, 0, "0" * 64)
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("validation", 4)):
        rows = [(rng.integers(1, 4096, 2000).tolist(), 8000) for _ in range(count)]
        write_shard(folder / "text" / "shards" / split, "noise", rows, vocabulary)
    return folder / "model", folder / "text"


def settings(model: Path, text: Path, candidates: int, steps: int, halving: bool) -> FamilyConfig:
    """Trials of ``steps`` steps."""
    return load_config(
        FamilyConfig,
        base={
            "model": str(model),
            "data": {"shards": str(text), "sequence": 128},
            "train": {
                "tokens": 512, "batch_tokens": 512, "micro_batch": 4, "precision": "fp32",
                "threads": 1,
            },
            "save": {"every_tokens": 0},
            "eval": {"tokens": 512},
            "samples": 8,
            "candidates": candidates,
            "trial": {"tokens": 512 * steps, "halving": halving, "score_tokens": 512},
            "children": {
                "half": {"budget": {"non_embedding_parameters": 0.5, "tolerance": 0.2}},
            },
        },
    )  # fmt: skip


def measure(way: str, config: FamilyConfig, folder: Path) -> float:
    """CPU seconds of the search; importance and cutting are done before."""
    run = Run.claim(folder, "family", config, quiet=True)
    try:
        step = ChildStep(
            config, run, TrialLog(folder / "trials.jsonl"), "half", config.model, TEACHER,
            config.model,
        )  # fmt: skip
        plain = step.lockstep

        def lockstep(device: torch.device) -> Any:
            made = plain(device)
            if way == "independent":
                made.teacher.capacity = 0
            return made

        step.lockstep = lockstep  # type: ignore[method-assign]
        scores = step.scores()
        began = time.process_time()
        step.search(scores)
        return time.process_time() - began
    finally:
        run.release()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        model, text = inputs(Path(name))
        for turn in range(args.rounds):
            for way in WAYS:
                config = settings(model, text, args.candidates, args.steps, way == "halving")
                seconds[way].append(measure(way, config, Path(name) / f"{way}-{turn}"))
    least = {way: min(values) for way, values in seconds.items()}
    made = {
        "candidates": args.candidates,
        "steps": args.steps,
        "cpu_seconds": {way: round(value, 2) for way, value in least.items()},
        "ratio": {way: round(value / least["independent"], 3) for way, value in least.items()},
    }
    print(json.dumps(made))


if __name__ == "__main__":
    main()
