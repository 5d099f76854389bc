"""Utilisation of a GPU by the training loop, and by a bare loop on the same model.

A decoder of about a billion parameters in bf16, at 4096 tokens a row, with compiled blocks. Both
loops run in one process, turn by turn: ours (data from shards, schedule, guard, records) and the
bare one (tokens in memory, autocast, AdamW, clip, nothing else). ``mfu`` counts forward and
backward FLOPs, attention whole and recomputation not, over the peak of the card; ``of_matmul`` the
same over the rate of a large matrix product in the same run, which needs no table of peaks.

    python benchmarks/gpu_train.py                  # writes benchmarks/results/<gpu>.json
    python benchmarks/gpu_train.py --no-compile
    python benchmarks/gpu_train.py --smoke          # a tiny shape, wherever: it runs, no figures

Target: at least 40 % on one H100 or H200, at least 0.95 of the bare loop.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrow.core.config import Config
from regrow.core.hardware import fingerprint
from regrow.core.run import Run
from regrow.data.loader import Loader, Phase
from regrow.data.shards import Vocabulary, write_shard
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import flops_per_token, parameters
from regrow.train.compiled import compile_blocks, missing_compiler
from regrow.train.objectives.next_token import NextToken
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings, Trainer

BILLION: dict[str, Any] = {
    "layout": "llama", "layers": 16, "hidden_size": 2048, "heads": 16, "kv_heads": 8,
    "intermediate_size": 8192, "vocab_size": 32768, "sequence": 4096, "batch": 4, "micro": 2,
    "product": 8192,
}  # fmt: skip
SMOKE: dict[str, Any] = {
    "layout": "llama", "layers": 2, "hidden_size": 32, "heads": 4, "kv_heads": 2,
    "intermediate_size": 64, "vocab_size": 128, "sequence": 32, "batch": 4, "micro": 2,
    "product": 64,
}  # fmt: skip
#: Dense bf16 FLOP per second by the makers' data sheets, by a part of the device's name.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


class NoConfig(Config):
    """A run without settings."""


def peak_of(name: str) -> float:
    """Peak of a card by its name; 0 where it is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), 0.0)


def make_model(shape: dict[str, Any], device: torch.device) -> Decoder:
    """Fresh weights; the same each time."""
    names = ("sequence", "batch", "micro", "product")
    config = ModelConfig(
        **{k: v for k, v in shape.items() if k not in names},
        max_positions=shape["sequence"],
    )
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    return model.to(device)


def bare_loop(
    model: Decoder, tokens: torch.Tensor, shape: dict[str, Any], device: torch.device
) -> Callable[[int], None]:
    """A function that trains for some steps with nothing around."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    micro, sequence = shape["micro"], shape["sequence"]
    span, position = micro * sequence, 0

    def steps(count: int) -> None:
        nonlocal position
        for _ in range(count):
            for _ in range(shape["batch"] // micro):
                x = tokens[position : position + span].view(micro, sequence)
                y = tokens[position + 1 : position + span + 1].view(micro, sequence)
                position = (position + span) % (len(tokens) - span - 1)
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    hidden = model.hidden(x)
                    loss, _ = model.head.cross_entropy(hidden.flatten(0, 1), y.flatten())
                (loss / (shape["batch"] * sequence)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return steps


def make_trainer(
    model: Decoder, text: np.ndarray, shape: dict[str, Any], steps: int, folder: Path, peak: float
) -> Trainer:
    """Our loop, reading a shard."""
    documents = [(part.tolist(), len(part)) for part in np.array_split(text, 50)]
    vocabulary = Vocabulary(shape["vocab_size"], 0, "none")
    shard = write_shard(folder / "shards", "a", documents, vocabulary)
    samples = steps * shape["batch"]
    loader = Loader({"a": shard}, [Phase("all", {"a": 1.0}, samples)], shape["sequence"], 0)
    settings = Settings(
        schedule=Schedule("cosine", 1e-4, samples * shape["sequence"]),
        steps=steps,
        batch_samples=shape["batch"],
        micro_batch=shape["micro"],
        sequence=shape["sequence"],
        precision="bf16",
        flops_per_token=flops_per_token(model.config, shape["sequence"]),
        peak_flops=peak,
    )
    run = Run.claim(folder / "run", "bench", NoConfig(), quiet=True)
    return Trainer(NextToken(model), loader, settings, run)


def product_rate(size: int, device: torch.device) -> float:
    """FLOP per second of a square matrix product in bf16."""
    left = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    times = [timed(lambda: left @ left, device) for _ in range(10)]
    return float(2 * size**3 / min(times))


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done it."""
    for moment in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        if moment == 0:
            began = time.perf_counter()
            work()
    return time.perf_counter() - began


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    shape = SMOKE if options.smoke else BILLION
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else fingerprint()["cpu"]
    peak = options.peak_flops or (peak_of(name) if device.type == "cuda" else 0.0)
    span = shape["sequence"]
    text = np.random.default_rng(0).integers(1, shape["vocab_size"], 200 * span)
    missing = missing_compiler(device) if options.compile else "not asked for"
    ours, theirs = make_model(shape, device), make_model(shape, device)
    if missing is None:
        compile_blocks(ours)
        compile_blocks(theirs)
    total = options.steps * (options.rounds + 1)
    trainer = make_trainer(ours, text, shape, total + 1, folder, peak)
    bare = bare_loop(theirs, torch.from_numpy(text).to(device), shape, device)
    spent: dict[str, list[float]] = {"regrow": [], "bare": []}

    def loop() -> None:
        trainer.train(until_step=trainer.step + options.steps)

    jobs = {"regrow": loop, "bare": lambda: bare(options.steps)}
    for number in range(options.rounds + 1):
        for which in jobs if number % 2 else reversed(jobs):
            seconds = timed(jobs[which], device)
            if number:  # the first round compiles
                spent[which].append(seconds / options.steps)
    trainer.run.release()
    rate = product_rate(shape["product"], device)
    tokens = shape["batch"] * span
    flops = tokens * flops_per_token(ours.config, span)
    rows = {}
    for which, seconds_each in spent.items():
        seconds = statistics.median(seconds_each)
        rows[which] = {
            "seconds_per_step": seconds,
            "tokens_per_second": tokens / seconds,
            "mfu": flops / seconds / peak if peak else None,
            "of_matmul": flops / seconds / rate,
        }
    pairs = zip(spent["bare"], spent["regrow"], strict=True)
    peak_memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {
        "device": name,
        "shape": shape,
        "parameters": parameters(ours.config),
        "loops": rows,
        "regrow_over_bare": statistics.median(b / o for b, o in pairs),
        "peak_flops": peak,
        "matmul_flops": rate,
        "peak_memory_bytes_of_both": peak_memory,
        "not_compiled": missing,
        "steps": options.steps,
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "machine": fingerprint(),
        "torch": torch.__version__,
    }


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--smoke", action="store_true", help="a tiny shape, to see that it runs")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-flops", type=float, default=0.0, help="of a card not in the table")
    parser.add_argument("--json", type=Path, help="by default benchmarks/results/<gpu>.json")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print, and keep the figures of a GPU."""
    options = parse()
    if not options.smoke and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --smoke runs a tiny shape on the CPU, without figures")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    text = json.dumps(figures, indent=1)
    print(text)
    path = options.json
    if path is None and not options.smoke:
        slug = re.sub(r"[^a-z0-9]+", "-", figures["device"].lower()).strip("-")
        path = Path(__file__).parent / "results" / f"{slug}.json"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
