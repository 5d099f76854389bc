"""Counts between edges as columns, with the bounds that decide drawn over them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from regrow.report.axes import Axis, Scale, scale
from regrow.report.drawing import Box, Drawing, text_width
from regrow.report.format import axis_amount, count, short
from regrow.report.plots import WIDTHS

_WIDTH, _HEIGHT = WIDTHS[1], 190.0
_SIZE = 12.0
_RATIO = 1.01  # neighbouring bins differ by more where edges are spaced by ratios
_EVEN = 1e-6


def histogram_chart(
    edges: Sequence[float],
    counts: Sequence[float],
    bounds: Sequence[float],
    *,
    title: str,
    unit: str = "",
) -> Drawing:
    """A column a bin; the horizontal axis is logarithmic where the edges are.

    Args:
        edges: rising, one more than ``counts``.
        counts: documents of each bin.
        bounds: values to mark; those outside the edges stand at the nearest end.
        title: for those who cannot see it.
        unit: of the values.
    """
    drawing = Drawing(_WIDTH, _HEIGHT, title)
    top, bottom = 34.0, _HEIGHT - (40.0 if unit else 26.0)
    vertical = scale(counts, Axis("", axis_amount, zero=True), bottom, top)
    ticks = vertical.ticks(3)
    left = 14 + max((text_width(axis_amount(tick), _SIZE) for tick in ticks), default=20.0)
    right = _WIDTH - 10
    for tick in ticks:
        place = vertical(tick)
        drawing.line(left, place, right, place, "grid")
        drawing.text(left - 8, place + 4, axis_amount(tick), size=_SIZE, anchor="end", css="muted")
    across = Scale(edges[0], edges[-1], left, right, log=_spaced_by_ratio(edges))
    for (low, high), number in zip(pairwise(edges), counts, strict=True):
        if number:
            x0, x1, y = across(low), across(high), vertical(number)
            box = Box(x0 + 0.5, min(y, bottom - 1), max(1.0, x1 - x0 - 1), max(1.0, bottom - y))
            tip = f"{short(low)} to {short(high)}: {count(number)}"
            drawing.rect(box, "bar c0", tip=tip)
    drawing.line(left, bottom, right, bottom, "axis")
    _bounds(drawing, bounds, across, edges, top, bottom)
    _ticks(drawing, across, bottom)
    if unit:
        middle = (left + right) / 2
        drawing.text(middle, _HEIGHT - 4, unit, size=_SIZE, anchor="middle", css="muted")
    return drawing


def _spaced_by_ratio(edges: Sequence[float]) -> bool:
    if len(edges) < 3 or edges[0] <= 0:
        return False
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    even = abs(first - last) <= _EVEN * max(abs(first), abs(last))
    return not even and edges[1] / edges[0] > _RATIO


def _bounds(
    drawing: Drawing,
    bounds: Sequence[float],
    across: Scale,
    edges: Sequence[float],
    top: float,
    bottom: float,
) -> None:
    """A line a bound, its value above it; the second one's beside it where they would touch."""
    end = -1e9
    for bound in sorted(bounds)[:4]:
        at = across(min(max(bound, edges[0]), edges[-1]))
        drawing.line(at, top - 6, at, bottom, "bound")
        words = short(bound)
        half = text_width(words, _SIZE) / 2
        x = max(min(at, drawing.width - half - 2), end + half + 8, half)
        if x + half <= drawing.width:
            drawing.text(x, top - 10, words, size=_SIZE, anchor="middle", css="bold")
            end = x + half


def _ticks(drawing: Drawing, across: Scale, bottom: float) -> None:
    end = -1e9
    for tick in across.ticks(max(2, int((across.end - across.start) / 64))):
        place, words = across(tick), axis_amount(tick)
        half = text_width(words, _SIZE) / 2
        if place - half < end + 8 or place + half > drawing.width:
            continue
        drawing.line(place, bottom, place, bottom + 4, "axis")
        drawing.text(place, bottom + 17, words, size=_SIZE, anchor="middle", css="muted")
        end = place + half
