"""The Mamba-2 block and hybrids against transformers' CPU path and against attention.

Everything runs turn by turn in one process on the same weights, tokens and threads; memory is
measured in a fresh process for each candidate. Ratios are theirs over ours, medians of the rounds.

    python benchmarks/mamba2.py train      # a training step, at several chunks of theirs
    python benchmarks/mamba2.py memory     # growth of resident memory in one step
    python benchmarks/mamba2.py decode     # single steps with a cache
    python benchmarks/mamba2.py context    # hybrid against transformer of equal size at 8192 tokens
    python benchmarks/mamba2.py packed     # packed documents against one document a row
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from train_step import peer, stepper, timed
from turns import ratio, rounds

from regrow.core.hardware import fingerprint
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import (
    decode_flops_per_token,
    flops_per_token,
    kv_bytes_per_token,
    parameters,
    state_bytes,
    weight_bytes,
)
from regrow.model.twin import equal_transformer

THEIR_CHUNKS = (256, 128, 64, 32)
SIZES = MambaConfig(state=128, head_dim=64, heads=8, groups=1, chunk=64)
#: Eight mixers, one of them attention, each followed by an MLP.
HYBRID = "M-M-M-M-M-*-M-M-"


def mamba_shape() -> ModelConfig:
    """Four Mamba-2 blocks of width 256."""
    return ModelConfig(layers=4, pattern="MMMM", hidden_size=256, vocab_size=512, mamba=SIZES)


def hybrid_shape(context: int) -> ModelConfig:
    """Width 256, four heads of 64 in its one attention block."""
    return ModelConfig(
        layers=len(HYBRID),
        pattern=HYBRID,
        hidden_size=256,
        heads=4,
        vocab_size=512,
        mamba=SIZES,
        max_positions=context + 64,
    )


def make(config: ModelConfig) -> Decoder:
    """A fresh model."""
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    return model


def set_chunk(stock: nn.Module, chunk: int) -> None:
    """Change the chunk of transformers' scan."""
    for layer in stock.backbone.layers:  # type: ignore[union-attr]
        layer.mixer.chunk_size = chunk


def text(config: ModelConfig, time: int) -> tuple[Tensor, Tensor]:
    """Random tokens and the tokens that follow them, (1, time) each."""
    generator = torch.Generator().manual_seed(1)
    row = torch.randint(config.vocab_size, (1, time + 1), generator=generator)
    return row[:, :-1].contiguous(), row[:, 1:].contiguous()


def our_step(
    model: Decoder, tokens: Tensor, targets: Tensor, documents: Tensor | None = None
) -> Callable[[], float]:
    """One optimiser step of ours."""

    def loss() -> Tensor:
        total, count = model.head.cross_entropy(model.hidden(tokens, documents), targets)
        return total / count

    return stepper(model, loss, autocast=False)


def their_step(stock: nn.Module, tokens: Tensor, targets: Tensor) -> Callable[[], float]:
    """One optimiser step of transformers'."""

    def loss() -> Tensor:
        logits: Tensor = stock(tokens, use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return stepper(stock, loss, autocast=False)


def matmul_rate(threads: int) -> float:
    """FLOP a CPU second of a square product in fp32."""
    square = torch.randn(2048, 2048)
    each = [timed(lambda: square @ square)[1] for _ in range(5)]
    return 2 * 2048**3 / min(each[1:])


def train(options: argparse.Namespace) -> dict[str, Any]:
    """A whole step of four Mamba-2 blocks."""
    config = mamba_shape()
    model = make(config)
    stock = peer(model)
    tokens, targets = text(config, options.sequence)
    theirs = their_step(stock, tokens, targets)

    def with_chunk(chunk: int) -> Callable[[], float]:
        def step() -> float:
            set_chunk(stock, chunk)
            return theirs()

        return step

    jobs: dict[str, Callable[[], Any]] = {"regrow": our_step(model, tokens, targets)}
    jobs |= {f"transformers, chunk {chunk}": with_chunk(chunk) for chunk in THEIR_CHUNKS}
    spent = rounds(jobs, options.rounds)
    floor = options.sequence * flops_per_token(config, options.sequence) / matmul_rate(1)
    return {
        "cpu_seconds": {name: statistics.median(values) for name, values in spent.items()},
        "ratios": {name: ratio(spent[name], spent["regrow"]) for name in jobs if name != "regrow"},
        "matmul_share": floor / statistics.median(spent["regrow"]),
    }


def _peak(name: str, sequence: int, threads: int, channel: Any) -> None:
    torch.set_num_threads(threads)
    config = mamba_shape()
    model = make(config)
    if name == "regrow":
        step = our_step(model, *text(config, sequence))
        warm = our_step(model, *text(config, 64))
    else:
        stock = peer(model)
        set_chunk(stock, int(name.rpartition(" ")[2]))
        step = their_step(stock, *text(config, sequence))
        warm = their_step(stock, *text(config, 64))
    warm()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _high_water()
    step()
    channel.send(_high_water() - before)


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Growth of resident memory in one step, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in ("regrow", *(f"transformers, chunk {chunk}" for chunk in THEIR_CHUNKS)):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(
            target=_peak, args=(name, options.sequence, options.threads, send)
        )
        process.start()
        peaks[name] = receive.recv()
        process.join()
    ours = peaks["regrow"]
    shares = {name: {"ratio": ours / peak} for name, peak in peaks.items() if name != "regrow"}
    return {"peak_bytes": peaks, "shares": shares}


def stepping(model: Decoder, context: int) -> Callable[[], None]:
    """A function that makes one token after ``context`` others, again and again."""
    cache = model.new_cache(1, context + 8192)
    cache.length = context  # what was seen does not matter for the time
    token = torch.zeros(1, 1, dtype=torch.int64)

    def step() -> None:
        with torch.no_grad():
            model(token, cache=cache)
        cache.length = context

    return step


def decode(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of four Mamba-2 blocks, each side with its own cache and no generation loop."""
    from transformers.cache_utils import DynamicCache

    config = mamba_shape()
    model = make(config).eval()
    stock = peer(model).eval()
    tokens, _ = text(config, 64)
    with torch.no_grad():
        theirs = DynamicCache(config=stock.config)
        stock(tokens, past_key_values=theirs, use_cache=True)
    ours = stepping(model, 64)
    token = torch.zeros(1, 1, dtype=torch.int64)

    def their_steps() -> None:
        with torch.no_grad():
            for _ in range(options.steps):
                stock(token, past_key_values=theirs, use_cache=True)

    def our_steps() -> None:
        for _ in range(options.steps):
            ours()

    spent = rounds({"regrow": our_steps, "transformers": their_steps}, options.rounds)
    rates = {name: options.steps / statistics.median(values) for name, values in spent.items()}
    moved = weight_bytes(config, 4) + 2 * state_bytes(config, 4)
    return {
        "tokens_per_cpu_second": rates,
        "ratios": {"transformers": ratio(spent["transformers"], spent["regrow"])},
        "bytes_per_step": moved,
        "bytes_per_second": moved * rates["regrow"],
    }


def context(options: argparse.Namespace) -> dict[str, Any]:
    """Hybrid and transformer of equal parameters, both ours."""
    length = options.context
    hybrid = hybrid_shape(length)
    dense = equal_transformer(hybrid)
    models = {"hybrid": make(hybrid), "transformer": make(dense)}
    figures: dict[str, Any] = {
        name: {
            "parameters": parameters(model.config),
            "flops_per_token": flops_per_token(model.config, length, causal=True),
            "decode_flops": decode_flops_per_token(model.config, length),
            "cache_bytes": length * kv_bytes_per_token(model.config, 4)
            + state_bytes(model.config, 4),
        }
        for name, model in models.items()
    }
    jobs: dict[str, Callable[[], Any]] = {
        name: our_step(model, *text(hybrid, length)) for name, model in models.items()
    }
    spent = rounds(jobs, options.rounds)
    figures["train"] = ratio(spent["transformer"], spent["hybrid"])
    rate = matmul_rate(1)
    for name, model in models.items():
        floor = length * flops_per_token(model.config, length, causal=True) / rate
        figures[name]["train_cpu_seconds"] = statistics.median(spent[name])
        figures[name]["matmul_share"] = floor / statistics.median(spent[name])
    figures["decode"] = {}
    for seen in (512, 2048, length, 4 * length):
        steps = {name: stepping(model.eval(), seen) for name, model in models.items()}

        def repeated(step: Callable[[], None]) -> Callable[[], None]:
            def several() -> None:
                for _ in range(options.steps):
                    step()

            return several

        spent = rounds({name: repeated(step) for name, step in steps.items()}, options.rounds)
        figures["decode"][seen] = ratio(spent["transformer"], spent["hybrid"]) | {
            f"{name}_ms": 1e3 * statistics.median(values) / options.steps
            for name, values in spent.items()
        }
    return figures


def packed(options: argparse.Namespace) -> dict[str, Any]:
    """A step on documents of about 200 tokens against the same row as one document."""
    config = mamba_shape()
    model = make(config)
    tokens, targets = text(config, options.sequence)
    documents = (torch.arange(options.sequence) // 200)[None]
    jobs: dict[str, Callable[[], Any]] = {
        "one document": our_step(model, tokens, targets),
        "packed": our_step(model, tokens, targets, documents),
    }
    spent = rounds(jobs, options.rounds)
    return {"ratios": {"packed": ratio(spent["packed"], spent["one document"])}}


def main() -> None:
    """Measure one comparison and print its figures."""
    kinds = {f.__name__: f for f in (train, memory, decode, context, packed)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequence", type=int, default=2048, help="tokens of a training row")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=40, help="tokens made in one round")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {
        "what": options.what,
        "threads": options.threads,
        "load": os.getloadavg()[0],
        "machine": fingerprint(),
        "torch": torch.__version__,
        **kinds[options.what](options),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
