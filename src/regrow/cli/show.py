"""Plans, results and errors on the terminal: messages to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

from regrow.core.errors import RegrowError
from regrow.core.plan import Plan
from regrow.core.progress import amount_text, duration


def say(text: str) -> None:
    """One line to stderr, where progress goes as well."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """A result object as the last line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """One line of a result that people read."""
    sys.stdout.write(text + "\n")


def figure(name: str, value: Any) -> str:
    """A figure with the unit that its name carries, rounded for reading."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "-"
    if isinstance(value, (int, float)):
        if name.endswith("bytes") or "_bytes" in name:
            return bytes_text(value)
        if name.endswith("seconds") or name == "seconds":
            return duration(value)
        if name.startswith("flops") or name.endswith("flops"):
            return flops_text(value)
        if isinstance(value, float):
            return f"{value:.4g}"
        return f"{value:,}" if abs(value) < 1e7 else f"{value:,} ({amount_text(value)})"
    if isinstance(value, dict):
        unit = name if name.endswith(("_flops", "_bytes")) else ""  # of all, by child or source
        return ", ".join(f"{k} {figure(unit or k, v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(figure(name, item) for item in value)
    return str(value)


def bytes_text(value: float) -> str:
    """``12 kB`` or ``3.4 GB``, in powers of ten."""
    for limit, divisor, unit in (
        (1e3, 1, "B"),
        (1e6, 1e3, "kB"),
        (1e9, 1e6, "MB"),
        (1e12, 1e9, "GB"),
    ):
        if value < limit:
            return f"{value / divisor:.3g} {unit}"
    return f"{value / 1e12:.3g} TB"


def flops_text(value: float) -> str:
    """``93.999 GFLOP``; ``7.52e+23 FLOP`` where there is no prefix that people know."""
    for limit, divisor, unit in (
        (1e6, 1.0, ""),
        (1e9, 1e6, "M"),
        (1e12, 1e9, "G"),
        (1e15, 1e12, "T"),
        (1e18, 1e15, "P"),
    ):
        if value < limit:
            return f"{value / divisor:.5g} {unit}FLOP"
    return f"{value:.3g} FLOP"


def plan_lines(plan: Plan) -> list[str]:
    """A plan as text: its title, its figures in a column, its notes."""
    lines = [plan.title]
    width = max((len(name) for name in plan.figures), default=0)
    for name, value in plan.figures.items():
        if isinstance(value, dict) and len(value) > 3:
            lines.append(f"  {name}")
            inner = max(map(len, map(str, value)))
            lines += [
                f"    {key!s:<{inner}}  {figure(str(key), item)}" for key, item in value.items()
            ]
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            lines.append(f"  {name}")
            lines += [f"    {figure(name, item)}" for item in value]
        else:
            lines.append(f"  {name:<{width}}  {figure(name, value)}")
    return [*lines, *(f"  note: {note}" for note in plan.notes)]


def say_error(error: RegrowError) -> None:
    """An error with all of its problems."""
    say(f"error: {error}")
