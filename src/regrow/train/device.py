"""Where tensors live, how precise the arithmetic is, how many threads do it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regrow.core import hardware
from regrow.core.errors import ConfigError

# A flip between two attempts of one recipe would change its bits, so the lead has to be wide.
_TURNS = 16
_CLEARLY = 1.3
_MOST_ROWS = 1024

Precision = Literal["fp32", "bf16"]


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: ``cuda`` was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("train.device is cuda, but torch finds no GPU here; use auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def faster_precision(module: nn.Module, rows: int, device: torch.device) -> Precision:
    """What this machine multiplies faster at the module's own sizes.

    That a CPU has bf16 instructions says little: at small widths, and on some machines at all
    widths, its fp32 products are faster. So both are timed, in turns, and bf16 has to win clearly,
    since a tie is not worth the bits.

    Args:
        module: its median matrix is the one that is timed.
        rows: rows of the other factor, the tokens of a micro-batch.
        device: a GPU is taken at its word.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not hardware.has_bf16() or _median_matrix(module) is None:
        return "fp32"
    times = _product_times(module, rows)
    return "bf16" if times[torch.float32] / times[torch.bfloat16] >= _CLEARLY else "fp32"


def product_rate(module: nn.Module, rows: int) -> float:
    """FLOP per second of one CPU thread at the module's median matrix, in its faster precision.

    Args:
        module: whose matrix.
        rows: rows of the other factor, the tokens of a micro-batch.
    """
    times = _product_times(module, rows)
    shape = _median_matrix(module)
    assert shape is not None
    return 2 * min(rows, _MOST_ROWS) * math.prod(shape) / min(times.values())


def _median_matrix(module: nn.Module) -> torch.Size | None:
    """Its shape."""
    matrices = sorted((p for p in module.parameters() if p.dim() == 2), key=Tensor.numel)
    return matrices[len(matrices) // 2].shape if matrices else None


def _product_times(module: nn.Module, rows: int) -> dict[torch.dtype, float]:
    """Least seconds of one product with the median matrix, on one thread, in each precision."""
    shape = _median_matrix(module)
    assert shape is not None
    precisions = [torch.float32, *([torch.bfloat16] if hardware.has_bf16() else [])]
    factors = {
        dtype: (
            torch.ones(min(rows, _MOST_ROWS), shape[1], dtype=dtype),
            torch.ones(shape, dtype=dtype).t(),
        )
        for dtype in precisions
    }
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in factors}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread's own time does not depend on who else is computing
    for turn in range(_TURNS):
        for dtype, (left, right) in factors.items():
            started = time.thread_time()
            left @ right
            if turn:  # the first one also chooses kernels and allocates
                times[dtype].append(time.thread_time() - started)
    torch.set_num_threads(threads)
    return {dtype: min(taken) for dtype, taken in times.items()}


def resolve_threads(threads: int | Literal["auto"]) -> int:
    """``auto`` means the cores that affinity, cgroup quota and ``OMP_NUM_THREADS`` allow.

    More threads than cores is no small loss: OpenMP's barriers then wait for the scheduler.
    """
    if threads != "auto":
        return threads
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = hardware.cpu_count()
    return min(cores, int(asked)) if asked.isdigit() and int(asked) > 0 else cores


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters live."""
    return next(module.parameters()).device


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch (named tuple of tensors, or whatever has ``.to``) on ``device``."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, tuple):
        moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
        return type(batch)(*moved)
    return batch.to(device)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's own generators, from which dropout and the like draw."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """The reverse of :func:`rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
