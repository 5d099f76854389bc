"""The sections of one run's page; each looks at what the result holds, not at the verb."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from regrow.report import curves
from regrow.report.axes import Axis
from regrow.report.format import (
    MISSING,
    amount,
    axis_amount,
    count,
    decimals,
    learning_rate,
    listing,
    percent,
    short,
    unit_of,
    words,
)
from regrow.report.plots import Series, column_chart, line_chart
from regrow.report.record import RunFolder, items, mapping, number, numbers, text
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
_TOLD = frozenset({"verb", "run", "name"})


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


def figures(run: RunFolder) -> Section | None:
    """Every plain figure of the result."""
    rows, keys = [], set()
    for key, value in run.result.items():
        if key in _TOLD or isinstance(value, (dict, list)) or value is None:
            continue
        rows.append((words(key), written(key, value, f"result.json: {key}")))
        keys.add(key)
    if not rows:
        return None
    return Section("figures", "Figures", facts(rows, "Figures"), "", _RESULT, frozenset(keys))


def training(run: RunFolder) -> Section | None:
    """Loss and learning rate over tokens, held-out points, where the blend changed."""
    records = run.metrics
    taught = curves.is_distillation(records)
    line, held = curves.series(records, "loss"), curves.held_out(records)
    if not line and not held:
        return None
    smoothed = curves.smooth(line)
    faint = curves.thin(line, 2 * curves.POINTS) if smoothed != line else []
    name = "divergence from the teacher" if taught else "training loss"
    made = (
        [Series(name, curves.thin(smoothed, curves.POINTS), faint=faint, colour=0)] if line else []
    )
    if held:
        thinned, last = curves.dots(held), decimals(held[-1][1])
        made.append(Series("held-out loss", thinned, thinned, colour=2, dash=1, note=last))
    marks = [(place, f"blend: {phase}") for place, phase in _switches(run)]
    x, y = Axis("tokens", axis_amount), Axis("nats per token", short, log=True)
    body = drawings(
        lambda width: line_chart(made, x, y, title="Loss over tokens", width=width, marks=marks)
    )
    rates = curves.series(records, "lr")
    if rates:
        rate = [Series("learning rate", curves.thin(rates, curves.POINTS), colour=1)]
        lr = Axis("learning rate", learning_rate, zero=True)
        body += drawings(
            lambda width: line_chart(
                rate, x, lr, title="Learning rate", width=width, height=210, marks=marks
            )
        )
    lead = "Smoothed; the faint line is what was measured." if faint else ""
    if taught:
        lead = f"The student minimises its divergence (KL) from the teacher. {lead}".strip()
    return Section("curves", "Training", body, lead, ("metrics.jsonl",))


def _switches(run: RunFolder) -> list[tuple[float, str]]:
    """Where the blend changes: as planned where the result tells, else as the records show."""
    planned = [
        (float(number(phase.get("first_token")) or 0), text(phase.get("name")) or "next")
        for phase in map(mapping, items(mapping(run.result.get("schedule")).get("phases")))
    ]
    return [p for p in planned if p[0] > 0] if len(planned) > 1 else curves.switches(run.metrics)


def domains(run: RunFolder) -> Section | None:
    """Held-out loss and bits per byte by domain."""
    losses = numbers(run.result.get("losses"))
    bits = numbers(run.result.get("bits_per_byte"))
    names = dict.fromkeys([*losses, *(key for key in bits if key != "all")])
    lines = [
        Line(
            [
                name,
                figure(losses.get(name), decimals, f"result.json: losses.{name}"),
                figure(bits.get(name), decimals, f"result.json: bits_per_byte.{name}"),
            ]
        )
        for name in names
    ]
    if not lines:
        return None
    overall = number(run.result.get("loss"))
    cells = [
        figure(overall if losses else None, decimals, "result.json: loss"),
        figure(bits.get("all"), decimals, "result.json: bits_per_byte.all"),
    ]
    if any(cell != MISSING for cell in cells):
        lines.append(Line(["all", *cells], "rule"))
    columns = (
        Column("Domain", is_text=True),
        Column("Held-out loss", "nats per token"),
        Column("Bits per byte", "of UTF-8 text"),
    )
    body = Table(columns, lines, "Held-out loss by domain").html()
    keys = frozenset({"losses", "bits_per_byte"})
    return Section("domains", "Held-out text by domain", body, "", _RESULT, keys)


def data(run: RunFolder) -> Section | None:
    """What was read of each source, and the blends."""
    ledger = {str(k): mapping(v) for k, v in mapping(run.result.get("ledger")).items()}
    lines = []
    for source, entry in ledger.items():
        where = f"result.json: ledger.{source}"
        epochs = figure(entry.get("epochs"), unit_of("epochs").write, f"{where}.epochs")
        lines.append(Line([source, figure(entry.get("tokens"), amount, f"{where}.tokens"), epochs]))
    phases = [mapping(p) for p in items(mapping(run.result.get("schedule")).get("phases"))]
    if not lines:
        return None
    columns = (Column("Source", is_text=True), Column("Tokens"), Column("Epochs"))
    body = Table(columns, lines, "Tokens by source").html()
    blends = []
    for phase in phases:
        weights = numbers(phase.get("weights"))
        said = listing([f"{percent(weight)} {source}" for source, weight in weights.items()])
        name = text(phase.get("name")) or "phase"
        start = number(phase.get("first_token")) or 0
        if said:
            blends.append(f"{name}, from token {count(start)}: {said}")
    lead = ". ".join(blends) + "." if blends else ""
    return Section("data", "Data", body, lead, _RESULT, frozenset({"ledger", "schedule"}))


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


def models(run: RunFolder) -> Section | None:
    """The models that were evaluated, with the baselines."""
    entries = {str(k): mapping(v) for k, v in mapping(run.result.get("models")).items()}
    baselines = {str(k): mapping(v) for k, v in mapping(run.result.get("baselines")).items()}
    if not any([*entries.values(), *baselines.values()]):
        return None
    groups = (("models", entries), ("baselines", baselines))
    every = [mapping(entry.get("bits_per_byte")) for _, g in groups for entry in g.values()]
    names = dict.fromkeys(str(name) for bits in every for name in bits)
    domains_ = [*(d for d in names if d != "all"), *(["all"] if "all" in names else [])]
    plain = ("parameters", "non_embedding_parameters", "decode_tokens_per_second", "bytes", "loss")
    lines = []
    for group, found in groups:
        for at, (name, entry) in enumerate(found.items()):
            where, bits = f"result.json: {group}.{name}", mapping(entry.get("bits_per_byte"))
            cells = [figure(entry.get(k), unit_of(k).write, f"{where}.{k}") for k in plain]
            cells += [figure(bits.get(d), decimals, f"{where}.bits_per_byte.{d}") for d in domains_]
            css = "" if group == "models" else "aside rule" if at == 0 else "aside"
            lines.append(Line([name, *cells], css))
    columns = [
        Column("Model", is_text=True),
        Column("Parameters"),
        Column("Non-embedding", "parameters"),
        Column("Decoding", "tokens/s"),
        Column("On disk", "bytes"),
        Column("Held-out loss", "nats per token"),
        *(Column(d if d != "all" else "All", "bits per byte") for d in domains_),
    ]
    body = Table(columns, lines, "Models").html()
    keys = frozenset({"models", "baselines"})
    return Section("models", "Models", body, "", _RESULT, keys)


def trials(run: RunFolder) -> Section | None:
    """What a sweep tried, and what it kept."""
    sweep = mapping(run.result.get("sweep"))
    entries = [mapping(entry) for entry in items(sweep.get("trials"))]
    if not entries:
        return None
    key, best = text(sweep.get("key")) or "value", text(sweep.get("best")) or ""
    plain = list(dict.fromkeys(k for e in entries for k in numbers(e) if k not in ("value", "run")))
    lines = []
    for at, entry in enumerate(entries):
        value = entry.get("value")
        name = value if isinstance(value, str) else json.dumps(value)
        kept = best == f"{key}={value}"
        cells = [
            figure(entry.get(k), unit_of(k).write, f"result.json: sweep.trials[{at}].{k}")
            for k in plain
        ]
        lines.append(Line([name, *cells, "kept" if kept else MISSING]))
    columns = [
        Column(key, is_text=True),
        *(Column(words(k), unit_of(k).name) for k in plain),
        Column("", is_text=True),
    ]
    body = Table(columns, lines, "Trials").html()
    return Section("trials", "Trials", body, "", _RESULT, frozenset({"sweep"}))


def rest(run: RunFolder, shown: frozenset[str]) -> Section | None:
    """Whatever else the result holds, as tables where it can be, else as it stands."""
    body = Markup("")
    for key, value in run.result.items():
        if key in shown or key in _TOLD or not isinstance(value, (dict, list)) or not value:
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
