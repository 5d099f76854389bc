"""A drawing as inline SVG that knows where its words stand, so that tests can find overlaps.

Colours and fonts come from the page's style sheet by class: light and dark need no second drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from regrow.report.format import MINUS, MISSING, TIMES

COLOURS = 8
Point = tuple[float, float]

# Widths of characters as parts of the font size, after DejaVu Sans, the widest of the fonts that
# the style sheet may end up with: what fits by this measure fits in all of them.
_WIDTHS = (
    ("ijlI'|.,:;! ", 0.34),
    ('frt()[]{}-/"`', 0.43),
    (f"mwMW@%+=…{MINUS}{TIMES}{MISSING}", 0.98),
)
_WIDTH = {character: width for group, width in _WIDTHS for character in group}
_BOLD = 1.12


class Box(NamedTuple):
    """A rectangle; x and y are its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than a border."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line of text is at most, in the unit of ``size``."""
    width = 0.0
    for character in text:
        if character in _WIDTH:
            width += _WIDTH[character]
        elif ord(character) > 0x2E7F:
            width += 1.1  # East Asian and pictographs are as wide as high
        else:
            width += 0.76 if character.isupper() else 0.64
    return width * size * (_BOLD if bold else 1.0)


def shorten(text: str, width: float, size: float, bold: bool = False) -> str:
    """``text`` on one line, cut with an ellipsis where it is wider than ``width``."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def coordinate(value: float) -> str:
    """One decimal where it is needed; a screen shows no more."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


class Drawing:
    """SVG in the making; y grows downwards, units are CSS pixels.

    Args:
        width: of the whole.
        height: of the whole; may be set again until :meth:`svg`.
        title: what it shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.labels: list[tuple[str, Box]] = []
        self.boxes: list[Box] = []
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        anchor: str = "start",
        css: str = "",
        bold: bool = False,
        tip: str = "",
    ) -> Box:
        """One line of text on the baseline ``y``; returns the box that it takes at most."""
        width = text_width(text, size, bold)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = Box(left, y - 0.78 * size, width, size)
        self.labels.append((text, box))
        attributes = f' font-size="{coordinate(size)}"'
        if anchor != "start":
            attributes += f' text-anchor="{anchor}"'
        names = " ".join(filter(None, (css, "bold" if bold else "")))
        if names:
            attributes += f' class="{names}"'
        more = f"<title>{escape(tip)}</title>" if tip and tip != text else ""
        at = f'x="{coordinate(x)}" y="{coordinate(y)}"'
        self._parts.append(f"<text {at}{attributes}>{escape(text)}{more}</text>")
        return box

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        ends = zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
        where = " ".join(f'{name}="{coordinate(value)}"' for name, value in ends)
        self._parts.append(f'<line {where} class="{css}"/>')

    def polyline(self, points: Sequence[Point], css: str) -> None:
        """A line through points."""
        if len(points) > 1:
            path = " ".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)
            self._parts.append(f'<polyline points="{path}" class="{css}"/>')

    def path(self, commands: Iterable[str | float], css: str) -> None:
        """A path of SVG commands and numbers."""
        d = " ".join(c if isinstance(c, str) else coordinate(c) for c in commands)
        self._parts.append(f'<path d="{d}" class="{css}"/>')

    def rect(self, box: Box, css: str, radius: float = 0, tip: str = "") -> None:
        """A rectangle, recorded in :attr:`boxes` when it is a ``box``."""
        if "box" in css.split():
            self.boxes.append(box)
        names = zip(("x", "y", "width", "height"), box, strict=True)
        where = " ".join(f'{name}="{coordinate(value)}"' for name, value in names)
        corner = f' rx="{coordinate(radius)}"' if radius else ""
        end = f"><title>{escape(tip)}</title></rect>" if tip else "/>"
        self._parts.append(f'<rect {where}{corner} class="{css}"{end}')

    def circle(self, x: float, y: float, radius: float, css: str) -> None:
        """A disc or ring."""
        where = f'cx="{coordinate(x)}" cy="{coordinate(y)}" r="{coordinate(radius)}"'
        self._parts.append(f'<circle {where} class="{css}"/>')

    def svg(self) -> Markup:
        """The drawing as an element for the page."""
        w, h = coordinate(self.width), coordinate(self.height)
        body = "\n".join(self._parts)
        return Markup(
            f'<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
            f'aria-label="{escape(self.title)}">\n{body}\n</svg>'
        )
