"""Progress on a terminal as a bar, elsewhere as one line per interval."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

INTERVAL_SECONDS = 10.0


class Progress(Protocol):
    """What a job sees of the progress display."""

    def advance(self, amount: float, **fields: Any) -> None:
        """Count ``amount`` more units done; ``fields`` are shown beside (loss, lr)."""


def duration(seconds: float) -> str:
    """``7s``, ``2m05s`` or ``3h07m``."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def amount_text(amount: float) -> str:
    """``950``, ``12.3k``, ``4.56M``, ``7.8B``."""
    for limit, divisor, suffix in (
        (1e3, 1, ""),
        (1e6, 1e3, "k"),
        (1e9, 1e6, "M"),
        (1e12, 1e9, "B"),
    ):
        if abs(amount) < limit:
            return f"{amount / divisor:.3g}{suffix}" if divisor > 1 else f"{amount:g}"
    return f"{amount / 1e12:.3g}T"


def _fields_text(fields: dict[str, Any]) -> str:
    parts = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields.items())
    return "  ".join(parts)


class _Silent:
    def advance(self, amount: float, **fields: Any) -> None:
        pass


class _Lines:
    """One line now and then, for logs and pipes."""

    def __init__(self, label: str, total: float, unit: str, stream: TextIO) -> None:
        self.label, self.total, self.unit, self.stream = label, total, unit, stream
        self.done = 0.0
        self.started = self.last = time.monotonic()

    def advance(self, amount: float, **fields: Any) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= INTERVAL_SECONDS:
            self.last = now
            self.line(now, fields)

    def line(self, now: float, fields: dict[str, Any]) -> None:
        rate = self.done / max(now - self.started, 1e-9)
        left = duration((self.total - self.done) / rate) if rate > 0 else "?"
        share = 100 * self.done / self.total if self.total else 100.0
        text = (
            f"{self.label}: {share:3.0f} %  {amount_text(self.done)}/{amount_text(self.total)} "
            f"{self.unit}  {amount_text(rate)} {self.unit}/s  {_fields_text(fields)}  {left} left"
        )
        self.stream.write(" ".join(text.split()) + "\n")
        self.stream.flush()


class _Bar:
    """A rich bar; the task's ``fields`` column carries loss and the like."""

    def __init__(self, bar: Any, task: Any, unit: str) -> None:
        self.bar, self.task, self.unit, self.done = bar, task, unit, 0.0
        self.started = time.monotonic()

    def advance(self, amount: float, **fields: Any) -> None:
        self.done += amount
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        text = f"{amount_text(rate)} {self.unit}/s  {_fields_text(fields)}"
        self.bar.update(self.task, advance=amount, text=text)


@contextmanager
def progress(label: str, total: float, unit: str, quiet: bool = False) -> Iterator[Progress]:
    """Show how far a loop is, with its rate and the time left.

    Args:
        label: what is going on, in a word or two.
        total: units in all.
        unit: the unit's short name ("tok").
        quiet: show nothing.
    """
    stream = sys.stderr
    if quiet:
        yield _Silent()
    elif stream.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True)) as bar:
            yield _Bar(bar, bar.add_task(label, total=total, text=""), unit)
    else:
        yield _Lines(label, total, unit, stream)
