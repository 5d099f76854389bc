"""What the loop costs over a bare one: same model, batch, optimiser and threads, interleaved.

    python benchmarks/loop_overhead.py [--threads 1] [--rounds 9] [--steps 10] [--precision fp32]

A round is ``steps`` steps of the trainer (data, schedule, log, status) and as many of the bare loop
below, in turn; the figure is the median over rounds of the ratio of their process times (noise-free
on one thread) and of their wall times. Target: at most 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from regrow.core import hardware
from regrow.core.config import Config
from regrow.core.run import Run
from regrow.data.loader import Loader, Phase
from regrow.data.shards import Vocabulary, write_shard
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.objectives.next_token import NextToken
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings, Trainer

SEQUENCE, BATCH, MICRO, VOCAB = 256, 16, 8, 4096
SHAPE = ModelConfig(layers=4, hidden_size=128, heads=4, kv_heads=2, vocab_size=VOCAB)


class NoConfig(Config):
    """A run without settings."""


class Bare:
    """The bare loop: tokens in memory, one autocast, AdamW, clip, nothing else."""

    def __init__(self, tokens: np.ndarray, bf16: bool) -> None:
        self.model = Decoder(SHAPE)
        self.model.initialise(torch.Generator().manual_seed(0))
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.tokens = torch.from_numpy(tokens.astype(np.int64))
        self.bf16 = bf16
        self.position = 0

    def steps(self, count: int) -> None:
        """Train for ``count`` steps."""
        for _ in range(count):
            for _ in range(BATCH // MICRO):
                span = MICRO * SEQUENCE
                x = self.tokens[self.position : self.position + span].view(MICRO, SEQUENCE)
                y = self.tokens[self.position + 1 : self.position + span + 1].view(MICRO, SEQUENCE)
                self.position = (self.position + span) % (len(self.tokens) - span - 1)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                    hidden = self.model.hidden(x)
                    loss, _ = self.model.head.cross_entropy(hidden.flatten(0, 1), y.flatten())
                    loss = loss / (BATCH * SEQUENCE)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)


def make_trainer(
    folder: Path, tokens: np.ndarray, steps: int, threads: int, precision: Literal["fp32", "bf16"]
) -> Trainer:
    """The trainer on the same shape, reading a shard."""
    documents = [(part.tolist(), len(part)) for part in np.array_split(tokens, 200)]
    shard = write_shard(folder / "shards", "a", documents, Vocabulary(VOCAB, 0, "none"))
    loader = Loader({"a": shard}, [Phase("all", {"a": 1.0}, steps * BATCH)], SEQUENCE, 0)
    model = Decoder(SHAPE)
    model.initialise(torch.Generator().manual_seed(0))
    settings = Settings(
        schedule=Schedule("cosine", 1e-3, steps * BATCH * SEQUENCE),
        steps=steps,
        batch_samples=BATCH,
        micro_batch=MICRO,
        sequence=SEQUENCE,
        precision=precision,
        threads=threads,
    )
    run = Run.claim(folder / "run", "bench", NoConfig(), quiet=True)
    return Trainer(NextToken(model), loader, settings, run)


def measure(work: object, *args: int) -> tuple[float, float]:
    """Process and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work(*args)  # type: ignore[operator]
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokens = np.random.default_rng(0).integers(1, VOCAB, 400_000)
    with tempfile.TemporaryDirectory() as name:
        total = options.steps * (options.rounds + 1) + 1
        trainer = make_trainer(Path(name), tokens, total, options.threads, options.precision)
        bare = Bare(tokens, options.precision == "bf16")
        bare.steps(2)
        trainer.train(until_step=2)
        ratios: list[tuple[float, float]] = []
        rates: list[float] = []
        for turn in range(options.rounds):
            until = trainer.step + options.steps

            def ours(until: int = until) -> None:
                trainer.train(until_step=until)

            if turn % 2:
                theirs, mine = measure(bare.steps, options.steps), measure(ours)
            else:
                mine, theirs = measure(ours), measure(bare.steps, options.steps)
            ratios.append((mine[0] / theirs[0], mine[1] / theirs[1]))
            rates.append(options.steps * BATCH * SEQUENCE / theirs[0])
        trainer.run.release()
    figures = {
        "overhead_process_time": statistics.median(r[0] for r in ratios) - 1,
        "overhead_wall": statistics.median(r[1] for r in ratios) - 1,
        "ratios_process_time": [round(r[0], 4) for r in sorted(ratios)],
        "bare_tokens_per_cpu_second": round(statistics.median(rates)),
        "precision": options.precision,
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        **hardware.fingerprint(),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
