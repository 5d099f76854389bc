"""The tasks of an evaluation: a table of headlines, and each task's other figures and groups."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from regrow.report.format import MISSING, count, listing, words
from regrow.report.record import RunFolder, mapping, number, numbers, text
from regrow.report.section import Column, Line, Section, Table, details, figure, source_link

_PLAIN = ("n", "stderr", "cut")


def tasks(run: RunFolder) -> Section | None:
    """Every task of every model."""
    about = {str(k): mapping(v) for k, v in mapping(run.result.get("about_tasks")).items()}
    models = {
        str(name): {str(k): mapping(v) for k, v in mapping(found).items()}
        for name, found in mapping(run.result.get("tasks")).items()
    }
    if not about or not models:
        return None
    lines = []
    for name, told in about.items():
        metric = text(told.get("metric")) or ""
        cells: list[str | Markup] = [words(metric), _written(told.get("chance"), "chance", name)]
        sizes = {number(found.get(name, {}).get("n")) for found in models.values()} - {None}
        cells.append("/".join(count(size) for size in sorted(map(float, filter(None, sizes)))))
        cells += [
            _headline(found.get(name, {}), metric, f"tasks.{model}.{name}")
            for model, found in models.items()
        ]
        lines.append(Line([name, *cells]))
    columns = [
        Column("Task", is_text=True),
        Column("Figure", is_text=True),
        Column("Chance"),
        Column("Items"),
        *(Column(model, "± standard error") for model in models),
    ]
    body = Table(columns, lines, "Tasks").html()
    for name in about:
        body += details(words(name), _whole(name, models))
    falling = [name for name, told in about.items() if told.get("higher_is_better") is False]
    lead = "Higher is better" + (f", but for {listing(falling)}." if falling else ".")
    keys = frozenset({"tasks", "about_tasks"})
    return Section("tasks", "Tasks", body, lead, ("result.json",), keys)


def _written(value: Any, key: str, task: str) -> str | Markup:
    return figure(value, lambda x: f"{x:.3g}", f"result.json: about_tasks.{task}.{key}")


def _headline(found: dict[str, Any], metric: str, where: str) -> str | Markup:
    """``0.254 ± 0.012``."""
    made = _cell(found.get(metric), f"{where}.{metric}")
    error = number(found.get("stderr"))
    if made == MISSING or error is None:
        return made
    return Markup("{} ± {}").format(made, _cell(error, f"{where}.stderr"))


def _cell(value: Any, where: str) -> str | Markup:
    return figure(value, lambda x: count(x) if x == int(x) and x > 1 else f"{x:.3f}", _at(where))


def _at(where: str) -> str:
    return f"result.json: {where}"


def _whole(name: str, models: dict[str, dict[str, dict[str, Any]]]) -> Markup:
    """All figures of a task: of the whole, then of its categories and groups."""
    rows: list[tuple[str, str, dict[str, Any], str]] = []
    for model, found in models.items():
        entry, where = found.get(name, {}), f"tasks.{model}.{name}"
        rows.append((model, "all", entry, where))
        for kind in ("categories", "groups"):
            for group, part in mapping(entry.get(kind)).items():
                rows.append((model, str(group), mapping(part), f"{where}.{kind}.{group}"))
    metrics = [
        key
        for key in dict.fromkeys(key for _, _, entry, _ in rows for key in numbers(entry))
        if key not in _PLAIN
    ]
    columns = [
        Column("Model", is_text=True),
        Column("Items of", is_text=True),
        *(Column(words(key)) for key in (*metrics, *_PLAIN)),
    ]
    lines = [
        Line([model, group, *(_cell(e.get(k), f"{where}.{k}") for k in (*metrics, *_PLAIN))])
        for model, group, e, where in rows
    ]
    files = [source_link(f"eval/{model}/{name}.jsonl") for model in models]
    after = Markup("<p>{}</p>").format(Markup(", ").join(files))
    return Table(columns, lines, words(name)).html() + after
