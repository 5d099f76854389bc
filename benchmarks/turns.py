"""Jobs timed turn by turn: what else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def rounds(
    jobs: Mapping[str, Callable[[], Any]],
    count: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """CPU seconds of each job, in alternating order, after a warm-up; of wall by another clock."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(count + 1):
        for name in jobs if number % 2 else reversed(jobs):
            began = clock()
            jobs[name]()
            if number:
                spent[name].append(clock() - began)
    return spent


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """``slow`` over ``fast``, round by round: median, lowest and highest."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": statistics.median(each), "low": min(each), "high": max(each)}
