"""What no section was written for: profiles, tables of whatever is left in a result, and facts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from regrow.report.axes import Axis
from regrow.report.format import MISSING, count, short, unit_of, words
from regrow.report.plots import column_chart
from regrow.report.record import RunFolder, number, numbers
from regrow.report.section import (
    Column,
    Line,
    Section,
    Table,
    details,
    drawings,
    figure,
    preformatted,
)
from regrow.report.shared_sections import facts

_RESULT = ("result.json",)
_LONGEST_PROFILE = 400
_PROFILES = 8
# Facts that the head of the page or another section tells.
TOLD = frozenset({"verb", "run", "name"})


def written(key: str, value: Any, where: str) -> str | Markup:
    """One scalar of a result, with the unit that its name says."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is not None:
        unit = unit_of(key)
        return figure(value, unit.write, where, unit.name)
    if isinstance(value, str):
        digest = key.endswith("sha256")
        return Markup("<code>{}</code>").format(value) if digest else value[:400] or MISSING
    return MISSING


def profiles(run: RunFolder, shown: frozenset[str]) -> Section | None:
    """Lists of numbers that no other section has shown, as columns: importance by layer."""
    left = {key: value for key, value in run.result.items() if key not in shown}
    found = list(_lists(left, "", 0))[:_PROFILES]
    if not found:
        return None
    body, keys = Markup(""), set()
    for path, values in found:
        keys.add(path.partition(".")[0])
        x, y = Axis("layer or index", count), Axis(words(path.replace(".", " ")), short)
        names = [str(index) for index in range(len(values))]
        body += drawings(
            lambda width, v=values, n=names, x=x, y=y: column_chart(  # type: ignore[misc]
                v, n, x, y, title=y.title, width=width
            )
        )
    return Section("profiles", "Profiles", body, "", _RESULT, frozenset(keys))


def _lists(value: Any, path: str, depth: int) -> Iterable[tuple[str, list[float]]]:
    """Lists of at least two numbers in nested objects, with their dotted path."""
    if isinstance(value, list):
        known = [number(item) for item in value]
        shown = [float(item) for item in known if item is not None and Axis("", str).shows(item)]
        if 2 <= len(shown) == len(value) <= _LONGEST_PROFILE:
            yield path, shown
    elif isinstance(value, dict) and depth < 3:
        for key, item in value.items():
            yield from _lists(item, f"{path}.{key}" if path else str(key), depth + 1)


def rest(run: RunFolder, shown: frozenset[str]) -> Section | None:
    """Whatever else the result holds, as tables where it can be, else as it stands."""
    body = Markup("")
    for key, value in run.result.items():
        if key in shown or key in TOLD or not isinstance(value, (dict, list)) or not value:
            continue
        body += Markup("<h3>{}</h3>").format(words(key)) + _nested(key, value)
    return Section("more", "More figures", body, "", _RESULT) if body else None


def _nested(key: str, value: Any) -> Markup:
    if isinstance(value, dict):
        if not any(isinstance(item, (dict, list)) for item in value.values()):
            told = [(words(str(k)), _entry(key, k, v)) for k, v in value.items()]
            return facts(told, words(key))
        rows = {str(k): v for k, v in value.items() if isinstance(v, dict) and numbers(v) == v}
        if len(rows) == len(value):
            return _matrix(key, rows)
    raw = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return details("As it stands in the file", preformatted(raw[:20_000]))


def _entry(key: str, inner: Any, value: Any) -> str | Markup:
    """An entry takes the unit of its own name, else that of the group."""
    own = unit_of(str(inner))
    name = str(inner) if own.write is not short else key
    return written(name, value, f"result.json: {key}.{inner}")


def _matrix(key: str, rows: dict[str, dict[str, Any]]) -> Markup:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = []
    for row, entries in rows.items():
        where = f"result.json: {key}.{row}"
        lines.append(Line([row, *(written(key, entries.get(n), f"{where}.{n}") for n in names)]))
    columns = [Column("", is_text=True), *(Column(str(name)) for name in names)]
    return Table(columns, lines, words(key)).html()
