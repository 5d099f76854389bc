"""Where tensors live, how precise the arithmetic is, how many threads do it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regrow.core import hardware
from regrow.core.errors import ConfigError


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: ``cuda`` was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("train.device is cuda, but torch finds no GPU here; use auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def resolve_precision(
    name: Literal["auto", "fp32", "bf16"], device: torch.device
) -> Literal["fp32", "bf16"]:
    """``auto`` means bf16 where the device multiplies it in hardware."""
    if name != "auto":
        return name
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else hardware.has_bf16()
    return "bf16" if able else "fp32"


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
