"""What a page is made of: sections, tables, figures; turned into HTML by the templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from regrow.report.drawing import Drawing
from regrow.report.format import MISSING
from regrow.report.plots import WIDTHS
from regrow.report.record import link, number

_PLURALS = frozenset({"threads", "steps", "documents", "tokens", "epochs", "parameters"})


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page.

    Args:
        anchor: name of the place, unique on the page.
        title: its heading.
        body: its content.
        lead: a sentence below the heading.
        sources: files that its figures were read from, relative to the page.
        keys: entries of the result that it has shown.
    """

    anchor: str
    title: str
    body: Markup
    lead: str | Markup = ""
    sources: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; text stands left, figures right."""

    title: str
    unit: str = ""
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table; the first cell heads it."""

    cells: Sequence[str | Markup]
    css: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that scrolls inside its own box where it is wider than the page."""

    columns: Sequence[Column]
    lines: Sequence[Line] = field(default_factory=list)
    caption: str = ""

    def html(self) -> Markup:
        """The table, without the columns that hold nothing in any line."""
        kept = [
            index
            for index, _ in enumerate(self.columns)
            if index == 0 or any(str(line.cells[index]) != MISSING for line in self.lines)
        ]
        columns = [self.columns[index] for index in kept]
        lines = [Line([line.cells[index] for index in kept], line.css) for line in self.lines]
        titled = any(column.title for column in columns)
        return render(
            "table.html", columns=columns, lines=lines, caption=self.caption, titled=titled
        )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("regrow.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template filled in; what is no Markup is escaped."""
    made = _environment().get_template(template).render(values=values, link=link, **values)
    return Markup(made)


def figure(
    value: Any, write: Callable[[float], str], source: str = "", unit: str = ""
) -> str | Markup:
    """A number with its exact value and where it stands, for those who point at it.

    Args:
        value: from a file; what is no number becomes a dash.
        write: number to text.
        source: file and place; for what was computed, how.
        unit: written after it.
    """
    known = number(value)
    if known is None:
        return MISSING
    if known == 1 and unit in _PLURALS:
        unit = unit[:-1]
    after = f" {unit}" if unit else ""
    tip = f"{known}{after}" + (f" · {source}" if source else "")
    return Markup(
        f'<data value="{escape(known)}" title="{escape(tip)}">{escape(write(known))}</data>'
        f"{escape(after)}"
    )


def source_link(path: str, words: str | None = None) -> Markup:
    """A link to a file of the run."""
    return Markup(f'<a href="{escape(link(path))}">{escape(words or path)}</a>')


def drawings(made: Callable[[float], Drawing]) -> Markup:
    """A drawing in the width of a laptop and one in that of a phone; the style sheet shows one."""
    wide, narrow = map(made, WIDTHS)
    large = " large" if wide.width > WIDTHS[0] else ""  # scrolls, where others shrink
    return Markup(
        f'<div class="plot wide{large}">{wide.svg()}</div>\n'
        f'<div class="plot narrow">{narrow.svg()}</div>'
    )


def details(summary: str | Markup, body: Markup, opened: bool = False) -> Markup:
    """Something that is folded until asked for."""
    state = " open" if opened else ""
    return Markup(f"<details{state}><summary>{escape(summary)}</summary>{body}</details>")


def preformatted(text: str) -> Markup:
    """Text as it is, in fixed width."""
    return Markup(f"<pre>{escape(text)}</pre>")


def paragraph(text: str | Markup, css: str = "") -> Markup:
    """One paragraph."""
    name = f' class="{css}"' if css else ""
    return Markup(f"<p{name}>{escape(text)}</p>")
