"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")


def _cgroup_cores() -> float | None:
    """Cores that the cgroup's quota allows; None without a quota."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((_CGROUP / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((_CGROUP / "cpu/cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def cpu_count() -> int:
    """Cores this process may use: its affinity, bounded by the cgroup's quota; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = affinity or os.cpu_count() or 1
    quota = _cgroup_cores()
    return max(1, min(cores, round(quota))) if quota else cores


def memory_bytes() -> int:
    """Memory this process may use, in bytes: the machine's, bounded by the cgroup's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (_CGROUP / name).read_text().strip()
        except OSError:
            continue
        if text != "max":
            total = min(total, int(text))
    return total


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    words = (
        line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))
    )
    return frozenset(next(words, ()))


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16, AMX, or Arm's BF16)."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def fingerprint() -> dict[str, Any]:
    """What a reader needs to know of the machine beside any timing."""
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "memory_bytes": memory_bytes(),
        "bf16": has_bf16(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
