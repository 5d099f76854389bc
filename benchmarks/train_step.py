"""One training step of our decoder, eager and compiled, against transformers' class on the same
weights.

All run in one process, turn by turn, on the same tokens, with the same optimiser, clipping and
threads, so that whatever else the machine does falls on all. A matrix product of known size is
timed in each round too: the share of its rate is what the step gets of the machine's arithmetic.

    python benchmarks/train_step.py                        # hidden 128, 6 layers, bf16 autocast
    python benchmarks/train_step.py --preset reference     # the 4.8 M model, 512 tokens a row
    python benchmarks/train_step.py --dtype fp32 --no-compile --json out.json

The best path is the faster of the two; targets for the reference model in bf16: at least 1.30 times
transformers, and 45 % of the matmul rate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.hardware import fingerprint
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.folder import save
from regrow.model.shapes import flops_per_token, non_embedding_parameters
from regrow.train.compiled import compile_blocks, missing_compiler

PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "layout": "llama", "layers": 6, "hidden_size": 128, "heads": 4, "kv_heads": 2,
        "intermediate_size": 384, "vocab_size": 4096, "sequence": 256, "batch": 16,
    },
    "reference": {
        "layout": "nemotron", "layers": 7, "hidden_size": 256, "heads": 8, "kv_heads": 2,
        "intermediate_size": 1024, "vocab_size": 8192, "sequence": 512, "batch": 4,
    },
}  # fmt: skip
SHAPE = ("layout", "layers", "hidden_size", "heads", "kv_heads", "intermediate_size", "vocab_size")


def peer(model: Decoder) -> nn.Module:
    """The stock transformers model with the same weights."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        stock: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return stock.train()


def loss_of(model: Decoder, tokens: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """Mean loss of a decoder, through its chunked head."""

    def loss() -> Tensor:
        total, count = model.head.cross_entropy(model.hidden(tokens), targets)
        return total / count

    return loss


def stepper(model: nn.Module, loss: Callable[[], Tensor], autocast: bool) -> Callable[[], float]:
    """A function that does one whole step and returns its loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return value.item()

    return step


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one comparison."""
    torch.set_num_threads(options.threads)
    config = ModelConfig(**{name: getattr(options, name) for name in SHAPE})
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    stock = peer(model)
    generator = torch.Generator().manual_seed(1)
    row = (options.batch, options.sequence + 1)
    text = torch.randint(config.vocab_size, row, generator=generator)
    tokens, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def stock_loss() -> Tensor:
        result: Tensor = stock(tokens, labels=tokens, shift_labels=targets, use_cache=False).loss
        return result

    bf16 = options.dtype == "bf16"
    steps = {
        "regrow": stepper(model, loss_of(model, tokens, targets), bf16),
        "transformers": stepper(stock, stock_loss, bf16),
    }
    missing = missing_compiler(torch.device("cpu")) if options.compile else "not asked for"
    if missing is None:
        fused = Decoder(config)
        fused.load_state_dict(model.state_dict())
        compile_blocks(fused)
        steps["compiled"] = stepper(fused, loss_of(fused, tokens, targets), bf16)
    square = torch.randn(2048, 2048, dtype=torch.bfloat16 if bf16 else torch.float32)
    steps_first = {name: step() for name, step in steps.items()}
    wall: dict[str, list[float]] = {name: [] for name in (*steps, "matmul")}
    cpu: dict[str, list[float]] = {name: [] for name in (*steps, "matmul")}
    load_before = os.getloadavg()[0]
    jobs: dict[str, Callable[[], Any]] = {**steps, "matmul": lambda: square @ square}
    for number in range(options.rounds + 1):
        for name in jobs if number % 2 else reversed(jobs):
            seconds, used = timed(jobs[name])
            if number:  # the first round warms up
                wall[name].append(seconds)
                cpu[name].append(used)
    rate = 2 * 2048**3 / statistics.median(wall["matmul"])
    count = tokens.numel()
    flops = flops_per_token(config, options.sequence, causal=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in steps:
        seconds = statistics.median(wall[name])
        rows[name] = {
            "seconds": seconds,
            "cpu_seconds": statistics.median(cpu[name]),
            "tokens_per_second": count / seconds,
            "matmul_share": count / seconds * flops / rate,
            "cpu_matmul_share": statistics.median(cpu["matmul"])
            / statistics.median(cpu[name])
            * (count * flops / (2 * 2048**3)),
            "first_loss": steps_first[name],
        }
    ours = [name for name in steps if name != "transformers"]
    for name in ours:
        by_wall, by_cpu = (
            [b / a for a, b in zip(spent[name], spent["transformers"], strict=True)]
            for spent in (wall, cpu)
        )
        rows[name] |= {
            "ratio": statistics.median(by_wall),
            "ratio_range": [min(by_wall), max(by_wall)],
            "cpu_ratio": statistics.median(by_cpu),
        }
    return {
        "shape": {name: getattr(options, name) for name in (*SHAPE, "sequence", "batch")},
        "non_embedding_parameters": non_embedding_parameters(config),
        "dtype": options.dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "steps": rows,
        "best_path": max(ours, key=lambda name: rows[name]["cpu_ratio"]),
        "not_compiled": missing,
        "matmul_gflops": rate / 1e9,
        "load": [load_before, os.getloadavg()[0]],
        "machine": fingerprint(),
        "torch": torch.__version__,
    }


def parse() -> argparse.Namespace:
    """Options; a shape option overrides the preset's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--layout", choices=["llama", "nemotron"])
    for name in (*SHAPE[1:], "sequence", "batch"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    for name, value in PRESETS[options.preset].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> None:
    """Measure and print one table."""
    options = parse()
    figures = measure(options)
    shape = ", ".join(f"{name} {value}" for name, value in figures["shape"].items())
    print(f"{shape}; {figures['dtype']}, {figures['threads']} threads, {figures['rounds']} rounds")
    print(
        f"{'':14} {'ms/step':>9} {'tokens/s':>10} {'of matmul':>10} {'by CPU s':>9} {'CPU s':>8} "
        f"{'loss':>8}"
    )
    for name, row in figures["steps"].items():
        print(
            f"{name:14} {row['seconds'] * 1e3:9.1f} {row['tokens_per_second']:10.0f} "
            f"{row['matmul_share']:10.1%} {row['cpu_matmul_share']:9.1%} "
            f"{row['cpu_seconds']:8.3f} {row['first_loss']:8.4f}"
        )
    for name, row in figures["steps"].items():
        if name != "transformers":
            low, high = row["ratio_range"]
            best = ", the best path" if name == figures["best_path"] else ""
            print(
                f"transformers over {name}: {row['ratio']:.3f} ({low:.2f} to {high:.2f}), in CPU "
                f"seconds {row['cpu_ratio']:.3f}{best}"
            )
    if figures["not_compiled"]:
        print(f"not compiled: {figures['not_compiled']}")
    print(
        f"matmul {figures['matmul_gflops']:.0f} GFLOP/s; load {figures['load'][0]:.1f} to "
        f"{figures['load'][1]:.1f}"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
