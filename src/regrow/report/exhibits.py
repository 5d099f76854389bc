"""What steps of a curation show, drawn without knowing the step: histograms, curves, tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from regrow.report.axes import Axis
from regrow.report.format import MISSING, count, percent, short
from regrow.report.histogram import histogram_chart
from regrow.report.plots import Series, line_chart
from regrow.report.record import items, mapping, number, numbers, text
from regrow.report.section import Column, Line, Table, details, drawings, figure

_FOLDED_FROM = 3
_ROWS = 40
_POINTS = 400


def exhibits_html(shown: Sequence[Any], where: str, file: str = "card.json") -> Markup:
    """Exhibits in their order; many histograms are folded into one grid.

    Args:
        shown: what is none is left out.
        where: their place in the file, for the figures' sources.
        file: that holds them.
    """
    body, small = Markup(""), Markup("")
    for place, exhibit in enumerate(map(mapping, shown)):
        at = f"{file}: {where}[{place}]"
        kind = exhibit.get("kind")
        if kind == "histogram":
            small += _histogram(exhibit)
        elif kind == "curve":
            body += _curve(exhibit)
        elif kind == "table":
            body += _table(exhibit, at)
    if small:
        grid = Markup('<div class="figures">{}</div>').format(small)
        number_of = small.count("<figure")
        if number_of >= _FOLDED_FROM:
            grid = details(f"{number_of} figures of the documents, with the bounds", grid)
        body += grid
    return body


def _heading(title: str) -> Markup:
    return Markup("<h4>{}</h4>").format(title[:1].upper() + title[1:])


def _numbers(values: Any) -> list[float]:
    found = [number(value) for value in items(values)]
    return [float(value) for value in found if value is not None]


def _histogram(exhibit: dict[str, Any]) -> Markup:
    edges, counts = _numbers(exhibit.get("edges")), _numbers(exhibit.get("counts"))
    rising = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or len(edges) != len(counts) + 1 or not rising:
        return Markup("")
    title = text(exhibit.get("title")) or "histogram"
    bounds = _numbers(exhibit.get("thresholds"))
    name, _, said = title.partition(": ")
    drawn = histogram_chart(
        edges, counts, bounds, title=title, unit=text(exhibit.get("unit")) or ""
    )
    caption = Markup("<b>{}</b> {}").format(name, said) if said else escape(name)
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(caption, drawn.svg())


def _curve(exhibit: dict[str, Any]) -> Markup:
    x = _numbers(exhibit.get("x"))
    lines = []
    for at, (name, values) in enumerate(mapping(exhibit.get("lines")).items()):
        y = _numbers(values)
        if len(y) == len(x) > 1:
            points = list(zip(x, y, strict=True))[:_POINTS]
            lines.append(Series(str(name), points, colour=at, dash=at % 3))
    if not lines:
        return Markup("")
    title = text(exhibit.get("title")) or "curve"
    marks = [
        (place, f"{name} {short(place)}") for name, place in numbers(exhibit.get("marks")).items()
    ]
    across = Axis(text(exhibit.get("x_label")) or "", short)
    up = Axis(text(exhibit.get("y_label")) or "", short, zero=True)
    return _heading(title) + drawings(
        lambda width: line_chart(
            lines,
            across,
            up,
            title=title,
            width=width,
            height=280,
            marks=sorted(marks),
            legend=len(lines) > 1,
        )
    )


def _table(exhibit: dict[str, Any], where: str) -> Markup:
    names = [str(name) for name in items(exhibit.get("columns"))]
    rows = [items(row) for row in items(exhibit.get("rows"))]
    rows = [row for row in rows if len(row) == len(names)]
    title = text(exhibit.get("title")) or "table"
    if not names or not rows:
        return Markup("")
    said = "share" if title.endswith("shares of a row") else ""
    words = [any(isinstance(row[place], str) for row in rows) for place in range(len(names))]
    columns = [
        Column(name[:1].upper() + name[1:], is_text=place == 0 or words[place])
        for place, name in enumerate(names)
    ]
    lines = [
        Line([_cell(row[0], names[0], ""), *(
            _cell(value, f"{names[place]} {said}", f"{where}.rows[{at}][{place}]")
            for place, value in enumerate(row[1:], 1)
        )])
        for at, row in enumerate(rows[:_ROWS])
    ]  # fmt: skip
    body = Table(columns, lines, title).html()
    if len(rows) > _ROWS:
        rest = len(rows) - _ROWS
        body += Markup('<p class="source">and {} more rows in the file</p>').format(rest)
    return _heading(title) + body


def _cell(value: Any, column: str, where: str) -> str | Markup:
    if isinstance(value, str):
        hexadecimal = len(value) == 32 and not set(value) - set("0123456789abcdef")
        if hexadecimal:
            return Markup('<code title="{}">{}</code>').format(value, value[:12])
        return value
    known = number(value)
    if known is None:
        return MISSING
    if not where:
        return short(known)
    if "share" in column.split() and 0 <= known <= 1:
        return figure(known, percent, where)
    return figure(known, count if isinstance(known, int) else short, where)
