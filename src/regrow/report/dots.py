"""A chart of a few values a row on one axis: who is lower, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regrow.report.axes import Axis, Scale, scale
from regrow.report.drawing import Drawing, shorten, text_width
from regrow.report.plots import WIDTHS, colour_class

Shape = Literal["disc", "ring", "diamond", "cross"]
_SIZE = 12.0
_FAR = 2.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One value: its shape says what it is."""

    shape: Shape
    value: float


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row.

    Args:
        name: on the left.
        marks: the first two are joined by a line; those are what the row compares.
        note: on the right.
        colour: number in the palette.
    """

    name: str
    marks: tuple[Mark, ...]
    note: str = ""
    colour: int = 0


def dot_chart(
    rows: Sequence[Row],
    axis: Axis,
    legend: Sequence[tuple[Shape, str]],
    *,
    title: str,
    width: float = WIDTHS[0],
) -> Drawing:
    """Rows of marks over one axis.

    A mark far beyond the compared ones would squeeze them together: it is drawn at the right edge
    as an arrow with its figure.
    """
    drawing = Drawing(width, 0, title)
    narrow = width < 560
    top = _legend(drawing, legend, width) + 10
    pitch = 64.0 if narrow else 44.0
    shown, far = _split(rows)
    notes = max((text_width(row.note, 13) for row in rows), default=0.0) + 16
    names = max((text_width(row.name, 13, bold=True) for row in rows), default=0.0) + 20
    left = 10.0 if narrow else min(names, width * 0.36)
    right = width - (12 if narrow else max(notes, 40.0))
    # Far marks stand in a strip of their own, between the axis and the notes.
    arrows = (
        max(36.0, *(text_width(axis.write(value), _SIZE) for value in far)) + 10 if far else 0.0
    )
    where = scale(shown, axis, left + 8, right - arrows - 8)
    bottom = top + pitch * len(rows)
    for tick in where.ticks(max(2, int((right - left) / 90))):
        place, words = where(tick), axis.write(tick)
        drawing.line(place, top, place, bottom, "grid")
        drawing.text(place, bottom + 18, words, size=_SIZE, anchor="middle", css="muted")
    drawing.text(
        (left + right) / 2, bottom + 38, axis.title, size=_SIZE, anchor="middle", css="muted"
    )
    for index, row in enumerate(rows):
        y = top + pitch * (index + 0.5)
        if narrow:
            name = shorten(row.name, width - notes - 8, 13, bold=True)
            drawing.text(0, y - 14, name, size=13, bold=True, tip=row.name)
            drawing.text(width, y - 14, row.note, size=13, anchor="end", css="figure")
            y += 15
        else:
            name = shorten(row.name, left - 14, 13, bold=True)
            drawing.text(0, y + 4, name, size=13, bold=True, tip=row.name)
            drawing.text(right + 14, y + 4, row.note, size=13, css="figure")
        _row(drawing, row, far, where, axis, left, right, y)
    drawing.height = bottom + 46
    return drawing


def _split(rows: Sequence[Row]) -> tuple[list[float], set[float]]:
    """Values on the axis, and those too far to the right for it."""
    compared = [mark.value for row in rows for mark in row.marks[:2]]
    every = [mark.value for row in rows for mark in row.marks]
    if not compared:
        return every, set()
    reach = max(compared) - min(compared)
    limit = max(compared) + max(_FAR * reach, 0.1 * abs(max(compared)))
    return [v for v in every if v <= limit], {v for v in every if v > limit}


def _row(
    drawing: Drawing,
    row: Row,
    far: set[float],
    where: Scale,
    axis: Axis,
    left: float,
    right: float,
    y: float,
) -> None:
    colour = colour_class(row.colour)
    drawing.line(left, y, right, y, "grid")
    near = [mark for mark in row.marks if mark.value not in far]
    pair = [mark.value for mark in row.marks[:2] if mark.value not in far]
    if len(pair) == 2:
        drawing.line(where(pair[0]), y, where(pair[1]), y, f"line {colour}")
    for mark in reversed(near):
        _shape(drawing, mark.shape, where(mark.value), y, colour)
    beyond = [mark for mark in row.marks if mark.value in far]
    for mark in beyond[:1]:
        drawing.text(right, y - 8, axis.write(mark.value), size=_SIZE, anchor="end", css="muted")
        _shape(drawing, mark.shape, right - 26, y + 4, colour)
        tip = (right - 2, y + 4)
        arrow: list[str | float] = ["M", right - 15, y + 4, "L", *tip, "l", -5, -4]
        drawing.path([*arrow, "M", *tip, "l", -5, 4], f"mark-line thin {colour}")


def _shape(drawing: Drawing, shape: Shape, x: float, y: float, colour: str) -> None:
    if shape == "disc":
        drawing.circle(x, y, 6, f"disc {colour}")
    elif shape == "ring":
        drawing.circle(x, y, 5.5, f"ring {colour}")
    elif shape == "diamond":
        drawing.path(["M", x, y - 7, "l", 7, 7, "l", -7, 7, "l", -7, -7, "Z"], f"ring {colour}")
    else:
        at: list[str | float] = ["M", x - 5, y - 5, "l", 10, 10, "M", x + 5, y - 5, "l", -10, 10]
        drawing.path(at, f"mark-line {colour}")


def _legend(drawing: Drawing, legend: Sequence[tuple[Shape, str]], width: float) -> float:
    """The shapes with their words, in lines that wrap; returns the height."""
    x, y = 8.0, 14.0
    for shape, words in legend:
        needed = 16 + text_width(words, _SIZE)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + 24
        _shape(drawing, shape, x, y - 4, "plain")
        drawing.text(x + 14, y, shorten(words, width - x - 14, _SIZE), size=_SIZE)
        x += needed + 26
    return y + 10
