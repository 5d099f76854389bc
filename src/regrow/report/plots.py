"""Line, bar, column and dot charts. Each returns a :class:`~regrow.report.drawing.Drawing`.

Colour is never the only sign: lines differ by dash, dots by shape, and everything has its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.report.axes import Axis, Scale, scale
from regrow.report.drawing import COLOURS, Box, Drawing, Point, shorten, text_width

WIDTHS = (960.0, 350.0)
"""A laptop's and a phone's column, in pixels; the page shows the one that fits."""

_SIZE = 12.0
_LEGEND_WIDTH = 250.0
_LEGEND_ROW = 21.0
_DASHES = ("", " dash", " dot")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Args:
        name: for the legend.
        line: its points in order.
        dots: points that are shown as dots.
        faint: a line behind, such as what was smoothed.
        colour: number in the palette.
        dash: 0 solid, 1 dashed, 2 dotted.
        note: a figure beside the name in the legend.
    """

    name: str
    line: Sequence[Point] = ()
    dots: Sequence[Point] = ()
    faint: Sequence[Point] = ()
    colour: int = 0
    dash: int = 0
    note: str = ""

    @property
    def points(self) -> list[Point]:
        """All that has to fit on the axes."""
        return [*self.line, *self.dots, *self.faint]


def colour_class(colour: int) -> str:
    """The style sheet's name of a colour of the palette."""
    return f"c{colour % COLOURS}"


def line_chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    title: str,
    width: float = WIDTHS[0],
    height: float = 360,
    marks: Sequence[tuple[float, str]] = (),
    legend: bool = True,
) -> Drawing:
    """Lines and dots over two axes; the legend stands beside the plot, or below where it is narrow.

    Args:
        series: what to draw; points that an axis cannot show are left out.
        x: the horizontal axis.
        y: the vertical axis.
        title: for those who cannot see it.
        width: of the whole.
        height: of the plot with its axes; a legend below comes on top.
        marks: x values to mark with a vertical line, each with its name.
        legend: whether there is one.
    """
    beside = legend and width >= 640
    drawing = Drawing(width, height, title)
    points = [p for s in series for p in s.points if x.shows(p[0]) and y.shows(p[1])]
    values = [point[1] for point in points]
    rows = _mark_rows(marks, width)
    top, bottom = 30.0 + 16 * rows, height - 46
    vertical = scale(values, y, bottom, top)
    y_ticks = vertical.ticks(max(3, int((bottom - top) / 48)))
    left = 14 + max((text_width(y.write(tick), _SIZE) for tick in y_ticks), default=20.0)
    right = width - (_LEGEND_WIDTH + 20 if beside else 18)
    places = [point[0] for point in points] + [place for place, _ in marks]
    horizontal = scale(places, Axis(x.title, x.write, x.log, zero=not x.log), left, right)
    drawing.text(0, 14, y.title, size=_SIZE, css="muted")
    for tick in y_ticks:
        place = vertical(tick)
        drawing.line(left, place, right, place, "grid")
        drawing.text(left - 8, place + 4, y.write(tick), size=_SIZE, anchor="end", css="muted")
    _x_axis(drawing, horizontal, x, bottom, left, right)
    _marks(drawing, marks, horizontal, left, right, bottom)
    for one in series:
        _draw_series(drawing, one, x, y, horizontal, vertical)
    if beside:
        box = Box(right + 24, top - 4, _LEGEND_WIDTH - 4, 0)
        drawing.height = max(height, box.y + _legend(drawing, series, box))
    elif legend:
        box = Box(0, height + 6, width, 0)
        drawing.height = height + 10 + _legend(drawing, series, box)
    return drawing


def _draw_series(
    drawing: Drawing, one: Series, x: Axis, y: Axis, horizontal: Scale, vertical: Scale
) -> None:
    def pixels(points: Sequence[Point]) -> list[Point]:
        return [(horizontal(a), vertical(b)) for a, b in points if x.shows(a) and y.shows(b)]

    colour = colour_class(one.colour)
    drawing.polyline(pixels(one.faint), f"line faint {colour}")
    drawing.polyline(pixels(one.line), f"line {colour}{_DASHES[one.dash]}")
    for place in pixels(one.dots):
        drawing.circle(*place, 3, f"held {colour}")


def _x_axis(
    drawing: Drawing, horizontal: Scale, x: Axis, bottom: float, left: float, right: float
) -> None:
    drawing.line(left, bottom, right, bottom, "axis")
    end = -1e9
    for tick in horizontal.ticks(max(2, int((right - left) / 90))):
        place, text = horizontal(tick), x.write(tick)
        half = text_width(text, _SIZE) / 2
        if place - half < end + 8 or place + half > drawing.width:
            continue
        drawing.line(place, bottom, place, bottom + 5, "axis")
        drawing.text(place, bottom + 19, text, size=_SIZE, anchor="middle", css="muted")
        end = place + half
    drawing.text((left + right) / 2, bottom + 39, x.title, size=_SIZE, anchor="middle", css="muted")


def _mark_rows(marks: Sequence[tuple[float, str]], width: float) -> int:
    """Rows of words above the plot; each mark has its own when there are several."""
    return min(len(marks), 4)


def _marks(
    drawing: Drawing,
    marks: Sequence[tuple[float, str]],
    horizontal: Scale,
    left: float,
    right: float,
    bottom: float,
) -> None:
    for row, (place, name) in enumerate(marks[:4]):
        at, y = horizontal(place), 30.0 + 16 * row
        drawing.line(at, y + 4, at, bottom, "mark")
        before = at - left > right - at
        text = shorten(name, max(at - left, right - at) - 10, _SIZE)
        anchor, x = ("end", at - 6) if before else ("start", at + 6)
        drawing.text(x, y + 8, text, size=_SIZE, anchor=anchor, css="muted", tip=name)


def _legend(drawing: Drawing, series: Sequence[Series], box: Box) -> float:
    """One row for each series: its line or dot, its name, its figure; returns the height."""
    for row, one in enumerate(series):
        y = box.y + _LEGEND_ROW * row + 12
        colour = colour_class(one.colour)
        if one.line or one.faint:
            drawing.line(box.x, y - 4, box.x + 26, y - 4, f"line {colour}{_DASHES[one.dash]}")
        if one.dots:
            drawing.circle(box.x + 13, y - 4, 3, f"held {colour}")
        note = text_width(one.note, _SIZE) + 10 if one.note else 0.0
        name = shorten(one.name, box.width - 36 - note, _SIZE)
        drawing.text(box.x + 34, y, name, size=_SIZE, tip=one.name)
        if one.note:
            end = box.x + box.width
            drawing.text(end, y, one.note, size=_SIZE, anchor="end", css="muted")
    return _LEGEND_ROW * len(series) + 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what, how much, and the figure in words."""

    name: str
    value: float
    figure: str
    colour: int = 0
    hollow: bool = False


def bar_chart(bars: Sequence[Bar], *, title: str, width: float = WIDTHS[0]) -> Drawing:
    """Horizontal bars from zero, names on the left (above each bar where it is narrow)."""
    narrow = width < 560
    row = 50.0 if narrow else 38.0
    drawing = Drawing(width, row * len(bars) + 6, title)
    names = max((text_width(bar.name, 13) for bar in bars), default=0.0)
    left = 0.0 if narrow else min(names + 16, width * 0.42)
    figures = max((text_width(bar.figure, 13) for bar in bars), default=0.0) + 12
    room = max(40.0, width - left - figures)
    largest = max((bar.value for bar in bars), default=0.0) or 1.0
    for index, bar in enumerate(bars):
        y = row * index + (22 if narrow else 6)
        words = width if narrow else left - 14
        name = shorten(bar.name, words, 13)
        drawing.text(0, y - 6 if narrow else y + 17, name, size=13, tip=bar.name)
        length = max(2.0, room * max(0.0, bar.value) / largest)
        css = f"{'hollow' if bar.hollow else 'bar'} {colour_class(bar.colour)}"
        drawing.rect(Box(left, y, length, 24 if not narrow else 20), css, radius=2)
        at = y + (17 if not narrow else 15)
        drawing.text(left + length + 8, at, bar.figure, size=13, css="figure")
    return drawing


def column_chart(
    values: Sequence[float],
    names: Sequence[str],
    x: Axis,
    y: Axis,
    *,
    title: str,
    width: float = WIDTHS[0],
    height: float = 230,
    colour: int = 0,
) -> Drawing:
    """Upright bars from zero, one for each of ``values``."""
    drawing = Drawing(width, height, title)
    top, bottom = 30.0, height - 44
    vertical = scale(values, Axis(y.title, y.write, zero=True), bottom, top)
    ticks = vertical.ticks(4)
    left = 14 + max((text_width(y.write(tick), _SIZE) for tick in ticks), default=20.0)
    drawing.text(0, 14, y.title, size=_SIZE, css="muted")
    for tick in ticks:
        place = vertical(tick)
        drawing.line(left, place, width - 8, place, "grid")
        drawing.text(left - 8, place + 4, y.write(tick), size=_SIZE, anchor="end", css="muted")
    slot = (width - 8 - left) / max(1, len(values))
    end = -1e9
    for index, (value, name) in enumerate(zip(values, names, strict=True)):
        x0, zero, tip = left + slot * index, vertical(0.0), vertical(value)
        thick = min(slot * 0.76, 44.0)
        bar = Box(x0 + (slot - thick) / 2, min(zero, tip), thick, max(1.0, abs(zero - tip)))
        drawing.rect(bar, f"bar {colour_class(colour)}", tip=f"{name}: {y.write(value)}")
        half = text_width(name, _SIZE) / 2
        centre = x0 + slot / 2
        if centre - half >= end + 6 and centre + half <= width and centre - half >= left - 8:
            drawing.text(centre, bottom + 19, name, size=_SIZE, anchor="middle", css="muted")
            end = centre + half
    middle = (left + width - 8) / 2
    drawing.text(middle, bottom + 38, x.title, size=_SIZE, anchor="middle", css="muted")
    return drawing
