"""Pruning a folder of random weights against a plain copy of the same files; its peak memory.

The folder has the shape of a preset, is written shard by shard in bf16, and is deleted afterwards.
Importance is measured first, over a few windows of random tokens, one block at a time. The prune
and the copy read the same files in turn; both end when the bytes are on the disk.

    python benchmarks/prune.py                                # 8B to the 4B of width, 45 GB of disk
    python benchmarks/prune.py --preset llama31-8b --layers 4 --rounds 3
    python benchmarks/prune.py --kill 2                       # killed twice, resumed, compared
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrow.core.atomic import fsync_path
from regrow.core.hardware import fingerprint
from regrow.data.shards import Vocabulary, write_shard
from regrow.io import hf
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.folder import describe
from regrow.model.presets import PRESETS
from regrow.model.shapes import parameters, tensor_shapes

SHARD_BYTES = 5_000_000_000


def build(folder: Path, config: ModelConfig, limit: int = SHARD_BYTES, seed: int = 0) -> Path:
    """A folder of random bf16 weights, written one shard at a time.

    Args:
        folder: where to.
        config: the shape.
        limit: bytes of a shard at most.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, shapes = ADAPTERS.get(config.layout).names(config), tensor_shapes(config)
    shards: list[list[tuple[str, tuple[int, ...]]]] = []
    size = limit
    for ours, theirs in names:
        nbytes = 2 * prod(shapes[ours])
        if size + nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append((theirs, shapes[ours]))
        size += nbytes
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(seed)) * 0.02
    pool = pool.to(torch.bfloat16)
    place = 0
    table: dict[str, str] = {}
    for number, shard in enumerate(shards):
        tensors = {}
        for name, shape in shard:
            # A stretch of the pool from another place each time: no two rows are alike.
            place = (place + 7_368_787) % len(pool)
            tensor = torch.empty(prod(shape), dtype=torch.bfloat16)
            rolled = torch.cat([pool[place:], pool[:place]])
            for first in range(0, len(tensor), len(rolled)):
                part = tensor[first : first + len(rolled)]
                part.copy_(rolled[: len(part)])
            tensors[name] = (tensor + 1 if "norm" in name else tensor).view(shape)
        file = hf.shard_name(number, len(shards))
        hf.save_tensors(folder / file, tensors)
        fsync_path(folder / file)
        table |= dict.fromkeys(tensors, file)
    settings, generation = describe(config, torch.bfloat16)
    hf.write_settings(folder, settings, generation)
    if len(shards) > 1:
        hf.write_index(folder, table, 2 * parameters(config))
    return folder


def calibration(folder: Path, config: ModelConfig, tokens: int) -> Path:
    """Shards of random tokens."""
    draw = np.random.default_rng(0)
    rows = [(draw.integers(0, config.vocab_size, tokens).tolist(), tokens) for _ in range(2)]
    vocabulary = Vocabulary(config.vocab_size, config.eos_id or 0, "0" * 64)
    write_shard(folder / "shards" / "train", "random", rows, vocabulary)
    return folder


@dataclass(slots=True)
class Watched:
    """What a command took.

    Args:
        seconds: wall.
        cpu: seconds of the processor.
        peak: bytes in memory at most, pages of mapped files included (VmHWM).
        anonymous: bytes of its own at most, seen every 20 ms.
        killed: whether it was.
        output: what it said.
    """

    seconds: float
    cpu: float
    peak: int
    anonymous: int
    killed: bool
    output: str


def _memory(pid: int) -> tuple[int, int]:
    fields = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value
    return tuple(1024 * int(fields.get(n, "0 kB").split()[0]) for n in ("VmHWM", "RssAnon"))


def watched(words: list[str], kill: Any = None) -> Watched:
    """Run ``regrow`` in a process of its own.

    Args:
        words: what follows ``regrow``.
        kill: called every 20 ms; once it says True the process is killed at once.

    Raises:
        RuntimeError: it failed.
    """
    began, used = time.perf_counter(), _children()
    peak = anonymous = 0
    killed = False
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "regrow", *words], stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            high, own = _memory(process.pid)
            peak, anonymous = max(peak, high), max(anonymous, own)
            if kill is not None and kill():
                process.kill()
                killed = True
            time.sleep(0.02)
        log.seek(0)
        output = log.read()
    if process.returncode and not killed:
        raise RuntimeError(f"regrow {' '.join(words)} failed:\n{output}")
    spent = time.perf_counter() - began
    return Watched(spent, _children() - used, peak, anonymous, killed, output)


def _children() -> float:
    """CPU seconds of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def after_shards(run: Path, count: int, seconds: float) -> Any:
    """A kill some seconds after ``count`` shards of a prune run are there, at the next one."""
    seen: list[float] = []

    def kill() -> bool:
        folder = run / "partial"
        begun = (folder / "compress.json").exists()
        if not seen and begun and len(list(folder.glob("model*.safetensors"))) >= count:
            seen.append(time.perf_counter())
        return bool(seen) and time.perf_counter() - seen[0] >= seconds

    return kill


def plain_copy(source: Path, target: Path) -> float:
    """Seconds until a copy of every file is on the disk."""
    began = time.perf_counter()
    target.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)
        fsync_path(target / path.name)
    return time.perf_counter() - began


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that each turn reads the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def compare(source: Path, export: Path, draws: int = 12) -> Iterator[str]:
    """Tensors of the child that are not the slice of the source that its record names."""
    kept = json.loads((export / "compress.json").read_text())["kept"]
    hidden = torch.tensor(kept["hidden"])
    draw = np.random.default_rng(1)
    with hf.open_weights(source) as whole, hf.open_weights(export) as child:
        names = [name for name in child.names if "layers" in name]
        names = [
            *draw.choice(names, min(draws, len(names)), replace=False),
            "lm_head.weight",
            "model.norm.weight",
        ]
        for name in map(str, names):
            tensor = whole.mapped(name)
            if name.startswith("model.layers."):
                layer, part = name.split(".")[2:4]
                neurons = torch.tensor(kept["neurons"][str(2 * int(layer) + 1)])
                if part == "mlp" and "down" not in name:
                    tensor = tensor[neurons]
                elif part == "mlp":
                    tensor = tensor[:, neurons]
            if tensor.ndim == 1 or "o_proj" in name or "down_proj" in name:
                tensor = tensor[hidden]
            else:
                tensor = tensor[:, hidden]
            if not torch.equal(tensor, child.mapped(name)):
                yield name


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="llama31-8b")
    parser.add_argument("--layers", type=int, help="of the source; the preset's by default")
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--mlp", type=int, default=9216)
    parser.add_argument("--tokens", type=int, default=256, help="of calibration")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kill", type=int, default=0, help="times that the prune is killed")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    config = PRESETS[options.preset]
    if options.layers:
        config = config.replace(layers=options.layers)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        began = time.perf_counter()
        source = build(root / "source", config)
        size = sum(path.stat().st_size for path in source.iterdir())
        print(f"{parameters(config):,} parameters, {size / 1e9:.2f} GB", end=" ")
        print(f"written in {time.perf_counter() - began:.0f} s", flush=True)
        text = calibration(root / "text", config, options.tokens + 1)
        width = min(64, options.tokens)
        settings = [
            f"shards={text}", f"samples={options.tokens // width}", f"sequence={width}",
            "streamed=true", "--run", str(root / "scores"), "--quiet",
        ]  # fmt: skip
        scored = watched(["importance", str(source), *settings])
        print(
            f"importance over {options.tokens} tokens: {scored.seconds:.0f} s, peak "
            f"{scored.peak / 2**30:.2f} GiB, own {scored.anonymous / 2**30:.2f} GiB",
            flush=True,
        )
        ratios = []
        for turn in range(options.rounds):
            run = root / f"pruned-{turn}"
            words = [
                "prune", str(source), f"scores={root / 'scores'}",
                f"shape.hidden_size={options.hidden}", f"shape.intermediate_size={options.mlp}",
                "--run", str(run), "--quiet",
            ]  # fmt: skip
            forget(source)
            parts = [watched(words, after_shards(run, n, 1.0)) for n in range(options.kill)]
            parts.append(watched(words))
            spent, cpu = sum(p.seconds for p in parts), sum(p.cpu for p in parts)
            peak = max(part.peak for part in parts)
            own = max(part.anonymous for part in parts)
            wrong = list(compare(source, run / "export"))
            made = json.loads((run / "result.json").read_text())
            written = sum(path.stat().st_size for path in (run / "export").iterdir())
            shards = [
                json.loads(line)["shards"]
                for line in (run / "events.jsonl").read_text().splitlines()
                if '"cut"' in line
            ]
            shutil.rmtree(run)
            forget(source)
            copied = plain_copy(source, root / "copy")
            shutil.rmtree(root / "copy")
            ratios.append(spent / copied)
            print(
                f"prune to {made['parameters']:,}: {spent:.1f} s, {cpu:.1f} of the CPU "
                f"({written / 1e9:.2f} GB written), "
                f"copy {copied:.1f} s, ratio {spent / copied:.2f}; peak {peak / 2**30:.2f} GiB, "
                f"own {own / 2**30:.2f} GiB; killed {sum(p.killed for p in parts)} times, the last "
                f"made {shards[-1]}; tensors that differ: {wrong or 'none'}",
                flush=True,
            )
        print(json.dumps({"ratios": ratios, "load": os.getloadavg(), **fingerprint()}))


if __name__ == "__main__":
    main()
