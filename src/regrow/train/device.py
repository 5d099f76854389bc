"""Where tensors live, how precise the arithmetic is, how many threads do it."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regrow.core import hardware
from regrow.core.errors import ConfigError

# A flip between two attempts of one recipe would change its bits, so the lead has to be wide.
_TURNS = 16
_CLEARLY = 1.3


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: ``cuda`` was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("train.device is cuda, but torch finds no GPU here; use auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def faster_precision(module: nn.Module, rows: int, device: torch.device) -> Literal["fp32", "bf16"]:
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
    matrices = sorted((p for p in module.parameters() if p.dim() == 2), key=Tensor.numel)
    if not hardware.has_bf16() or not matrices:
        return "fp32"
    weight = matrices[len(matrices) // 2].detach()
    rows = min(rows, 1024)
    factors = {
        dtype: (torch.ones(rows, weight.shape[1], dtype=dtype), weight.to(dtype).t())
        for dtype in (torch.float32, torch.bfloat16)
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
    ratio = min(times[torch.float32]) / min(times[torch.bfloat16])
    return "bf16" if ratio >= _CLEARLY else "fp32"


def resolve_threads(threads: int | Literal["auto"]) -> int:
    """``auto`` means the cores that affinity, cgroup quota and ``OMP_NUM_THREADS`` allow.

    More threads than cores is no small loss: OpenMP's barriers then wait for the scheduler.
    """
    if threads != "auto":
        return threads
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = hardware.cpu_count()
    return min(cores, int(asked)) if asked.isdigit() and int(asked) > 0 else cores


def autocast(
    precision: Literal["fp32", "bf16"], device: torch.device
) -> AbstractContextManager[Any]:
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
