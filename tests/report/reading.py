"""A page as tests see it: tags balanced, figures, tables, what it refers to."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})


class Page(HTMLParser):
    """Parses strictly: an end tag must close the tag opened last."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.figures: list[tuple[str, str, str]] = []  # value, title, text
        self.references: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.svg_texts: list[str] = []
        self._figure: list[str] | None = None
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)

    def _start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        known = {name: value or "" for name, value in attrs}
        assert len(known) == len(attrs), f"an attribute stands twice in {tag}: {attrs}"
        assert not any(name.startswith("on") for name in known), f"a handler in {tag}: {attrs}"
        if "id" in known:
            self.ids.append(known["id"])
        for name in ("href", "src", "srcset", "xlink:href", "action", "data", "poster"):
            if name in known and tag != "data":
                self.references.append((tag, known[name]))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "data":
            self._figure = [known["value"], known.get("title", ""), ""]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "data" and self._figure is not None:
            value, title, text = self._figure
            self.figures.append((value, title, text))
            self._figure = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._figure is not None:
            self._figure[2] += data
        if "svg" in self.open and "text" in self.open:
            self.svg_texts.append(data)
        if self.open and self.tables and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        """All words of the page."""
        return " ".join("".join(self.texts).split())

    def rows(self, first: str) -> list[list[str]]:
        """The rows of all tables whose head cell says ``first``."""
        every = ([cell.strip() for cell in row] for table in self.tables for row in table)
        return [row for row in every if row[:1] == [first]]
