"""The importance pass against the plain forward pass to the hidden states, on the same batches.

Both run in one process, turn by turn; the ratio is of CPU seconds (and wall seconds) of whole
passes: the median over rounds, and of each side's best round, which a busy machine disturbs least.
``--profile`` shows where the importance pass spends its time.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import torch

from regrow.compress.importance import Observer
from regrow.data.loader import Batch
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder

#: Target of the ratio.
TARGET = 1.15
SHAPES = {
    "small": ModelConfig(layers=4, hidden_size=128, heads=4, kv_heads=2, vocab_size=4096),
    "reference": ModelConfig(
        layout="nemotron", layers=6, hidden_size=256, heads=4, kv_heads=2, vocab_size=4096
    ),
    "wide": ModelConfig(layers=4, hidden_size=768, heads=12, kv_heads=4, vocab_size=4096),
    "deep": ModelConfig(layers=24, hidden_size=256, heads=4, kv_heads=2, vocab_size=4096),
    "hybrid": ModelConfig(
        layers=9, pattern="M-M-M*-M-", hidden_size=256, intermediate_size=1024, heads=4,
        kv_heads=2, vocab_size=4096, mamba=MambaConfig(state=64, head_dim=64, groups=2),
    ),
}  # fmt: skip
VARIANTS = {
    "default": {},
    "pre_act": {"neuron_site": "pre_act"},
    "mean, l2, var": {"aggregations": ("mean", "l2", "var")},
}


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(name: str, args: argparse.Namespace) -> None:
    config = SHAPES[name]
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    model.eval()
    draw = torch.Generator().manual_seed(1)
    shape = (args.batch, args.sequence)
    batches = [
        Batch(ids, ids, None)
        for ids in (torch.randint(4096, shape, generator=draw) for _ in range(args.batches))
    ]

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model.hidden(batch.tokens)

    for variant, settings in VARIANTS.items():
        if variant != "default" and not args.variants:
            continue
        observer = Observer(model, **settings)

        def scored(observer: Observer = observer) -> None:
            with observer.attached():
                for batch in batches:
                    observer.observe(batch)

        plain(), scored()
        cpu, wall, best = [], [], {plain: math.inf, scored: math.inf}
        for turn in range(args.rounds):
            order = (plain, scored) if turn % 2 else (scored, plain)
            figures = {work: timed(work) for work in order}
            best = {work: min(best[work], figures[work][0]) for work in order}
            cpu.append(figures[scored][0] / figures[plain][0])
            wall.append(figures[scored][1] / figures[plain][1])
        middle = statistics.median(cpu)
        print(
            f"{name:10} {variant:14} CPU {middle:.3f} ({min(cpu):.3f} to {max(cpu):.3f}), best "
            f"{best[scored] / best[plain]:.3f}  "
            f"wall {statistics.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})  "
            f"{'met' if middle <= TARGET else 'missed'}",
            flush=True,
        )
        if args.profile:
            with torch.profiler.profile() as profile:
                scored()
            print(profile.key_averages().table("self_cpu_time_total", row_limit=18))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--variants", action="store_true", help="other sites and aggregations too")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, threads {args.threads}")
    print(f"importance pass over the forward pass; target {TARGET}; median of {args.rounds} rounds")
    for name in args.shapes:
        compare(name, args)


if __name__ == "__main__":
    main()
