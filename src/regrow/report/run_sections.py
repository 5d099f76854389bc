"""The sections of one run's page; each looks at what the result holds, not at the verb."""

from __future__ import annotations

import json

from markupsafe import Markup

from regrow.report import curves
from regrow.report.axes import Axis
from regrow.report.drawing import Point
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
from regrow.report.other_sections import TOLD, written
from regrow.report.plots import Series, line_chart
from regrow.report.record import RunFolder, items, mapping, number, numbers, text
from regrow.report.section import (
    Column,
    Line,
    Section,
    Table,
    drawings,
    figure,
)
from regrow.report.shared_sections import facts

_RESULT = ("result.json",)


def figures(run: RunFolder) -> Section | None:
    """Every plain figure of the result."""
    rows, keys = [], set()
    for key, value in run.result.items():
        if key in TOLD or isinstance(value, (dict, list)) or value is None:
            continue
        rows.append((words(key), written(key, value, f"result.json: {key}")))
        keys.add(key)
    if not rows:
        return None
    return Section("figures", "Figures", facts(rows, "Figures"), "", _RESULT, frozenset(keys))


def training(run: RunFolder) -> Section | None:
    """Loss over tokens, held-out loss by source, learning rate, speed; where the blend changed."""
    records = run.metrics
    taught = curves.is_distillation(records)
    line, held = curves.series(records, "loss"), curves.held_out(records)
    if not line and not held:
        return None
    smoothed = curves.smooth(line)
    faint = curves.thin(line, 2 * curves.POINTS) if smoothed != line else []
    name = "divergence from the teacher" if taught else "training loss"
    learnt, watched = [], []
    if line:
        learnt.append(Series(name, curves.thin(smoothed, curves.POINTS), faint=faint, colour=0))
    if held:
        thinned, last = curves.dots(held), decimals(held[-1][1])
        watched.append(Series("held-out loss", thinned, thinned, colour=2, dash=1, note=last))
    marks = [(place, f"blend: {phase}") for place, phase in _switches(run)]
    x, y = Axis("tokens", axis_amount), Axis("nats per token", short, log=True)
    body = Markup("")
    # A divergence is so much smaller than a loss that the two would flatten each other.
    for shown in [learnt, watched] if taught else [learnt + watched]:
        if shown:
            height = 240 if taught else 360
            body += drawings(
                lambda width, shown=shown, height=height: line_chart(  # type: ignore[misc]
                    shown, x, y, title="Loss over tokens", width=width, height=height, marks=marks
                )
            )
    sources = curves.held_out_by_source(records)
    if len(sources) > 1 and any(len(points) > 1 for points in sources.values()):
        body += _held_out_by_source(sources, x, y, marks)
    rates = curves.series(records, "lr")
    if rates:
        rate = [Series("learning rate", curves.thin(rates, curves.POINTS), colour=1)]
        lr = Axis("learning rate", learning_rate, zero=True)
        body += drawings(
            lambda width: line_chart(
                rate, x, lr, title="Learning rate", width=width, height=210, marks=marks
            )
        )
    body += _speed(run, x)
    said = ["The student minimises its divergence (KL) from the teacher."] if taught else []
    said += ["Smoothed; the faint line is what was measured."] if faint else []
    said += _skipped(run)
    return Section("curves", "Training", body, " ".join(said), ("metrics.jsonl",))


def _held_out_by_source(
    sources: dict[str, list[Point]], x: Axis, y: Axis, marks: list[tuple[float, str]]
) -> Markup:
    lines = []
    for at, (source, points) in enumerate(sources.items()):
        shown = curves.dots(points)
        lines.append(
            Series(source, shown, shown, colour=at, dash=at % 3, note=decimals(points[-1][1]))
        )
    title = "Held-out loss by source"
    axis = Axis(f"held out, {y.title}", y.write, log=True)
    return drawings(lambda width: line_chart(lines, x, axis, title=title, width=width, marks=marks))


def _speed(run: RunFolder, x: Axis) -> Markup:
    """Tokens per second, and where the batch grew."""
    measured = curves.series(run.metrics, "tokens_per_second")
    if len(measured) < 2:
        return Markup("")
    smoothed = curves.smooth(measured)
    faint = curves.thin(measured, 2 * curves.POINTS) if smoothed != measured else []
    used = sorted(value for _, value in curves.series(run.metrics, "mfu"))
    note = f"{percent(used[len(used) // 2])} of the peak" if used else ""
    line = Series(
        "tokens/s", curves.thin(smoothed, curves.POINTS), faint=faint, colour=3, note=note
    )
    y = Axis("tokens per second", axis_amount, zero=True)
    return drawings(
        lambda width: line_chart(
            [line], x, y, title="Throughput", width=width, height=210, marks=_growths(run)
        )
    )


def _growths(run: RunFolder) -> list[tuple[float, str]]:
    """Where a batch ramp ends its stages."""
    schedule = mapping(run.result.get("schedule"))
    stages = [s for s in items(schedule.get("batch_ramp")) if isinstance(s, list) and len(s) == 2]
    sizes = [number(stage[0]) for stage in stages] + [number(schedule.get("batch_tokens"))]
    found, place = [], 0.0
    for stage, after in zip(stages, sizes[1:], strict=True):
        place += float(number(stage[0]) or 0) * float(number(stage[1]) or 0)
        found.append((place, f"batch: {count(after or 0)} tokens"))
    return found


def _skipped(run: RunFolder) -> list[str]:
    skipped = number(run.result.get("skipped_steps")) or 0
    if not skipped:
        return []
    steps = "step was not taken: its" if skipped == 1 else "steps were not taken: their"
    return [f"{count(skipped)} {steps} gradient was a spike or not finite (events.jsonl)."]


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
    plain = (
        "parameters",
        "non_embedding_parameters",
        "bytes",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "trained_tokens",
        "loss",
    )
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
        Column("On disk", "bytes"),
        Column("Prefill", "tokens/s"),
        Column("Decoding", "tokens/s"),
        Column("Counted", "tokens"),
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
