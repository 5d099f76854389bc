"""Searches for shapes: Pareto fronts, how candidates fared, which ranks flipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from regrow.report.axes import Axis
from regrow.report.family import Family
from regrow.report.format import (
    amount,
    axis_amount,
    count,
    decimals,
    scientific,
    short,
    size,
    times,
)
from regrow.report.plots import Series, line_chart
from regrow.report.record import RunFolder, items, mapping, number, text
from regrow.report.section import (
    Column,
    Line,
    Section,
    Table,
    drawings,
    figure,
    paragraph,
    source_link,
)
from regrow.search.pareto import front

CANDIDATES = "candidates.jsonl"
_LOSS = Axis("held-out loss, nats per token", short)
_KEYS = frozenset({"children", "pareto", "step_equivalent", "whole"})


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a model is wanted to have little of."""

    key: str
    title: str
    write: Callable[[float], str]


_COSTS = (
    _Cost("latency_ms", "latency of one token, ms", short),
    _Cost("memory_bytes", "memory, bytes", axis_amount),
    _Cost("parameters", "parameters", axis_amount),
)


@dataclass(frozen=True, slots=True)
class _Dot:
    """One model of a front: its name, its loss, its costs by key."""

    name: str
    loss: float
    costs: dict[str, float]
    colour: int = 0


def _chart(dots: Sequence[_Dot], cost: _Cost, width: float) -> Any:
    """Loss against one cost, with a line through what nothing beats in both."""
    shown = [dot for dot in dots if dot.costs.get(cost.key)]
    marks = front([[dot.costs[cost.key], dot.loss] for dot in shown])
    best = sorted(
        (dot.costs[cost.key], dot.loss) for dot, on in zip(shown, marks, strict=True) if on
    )
    series = [Series("Pareto front", line=best, colour=7, dash=1)]
    series += [
        Series(
            dot.name,
            dots=[(dot.costs[cost.key], dot.loss)],
            colour=dot.colour,
            note="front" if on else "",
        )
        for dot, on in zip(shown, marks, strict=True)
    ]
    axis = Axis(cost.title, cost.write, log=True)
    tall = 300 if width > 640 else 260
    return line_chart(
        series, axis, _LOSS, title=f"Loss against {cost.title}", width=width, height=tall
    )


def _fronts(dots: Sequence[_Dot]) -> Markup:
    body = Markup("")
    for cost in _COSTS:
        if sum(bool(dot.costs.get(cost.key)) for dot in dots) > 1:
            body += drawings(lambda width, cost=cost: _chart(dots, cost, width))  # type: ignore[misc]
    return body


def _dots(points: Any, colour: int | None = None) -> list[_Dot]:
    found = []
    for place, entry in enumerate(map(mapping, items(points))):
        loss, name = number(entry.get("loss")), text(entry.get("name"))
        known = {cost.key: number(entry.get(cost.key)) for cost in _COSTS}
        costs = {key: float(value) for key, value in known.items() if value and value > 0}
        if loss is not None and name and costs:
            found.append(_Dot(name, float(loss), costs, place if colour is None else colour))
    return found


def front_of_family(family: Family) -> Section | None:
    """All models of a family, loss against what they take."""
    colours = family.colours()
    dots = []
    for member in family.members:
        loss, speed = member.number("loss"), member.number("decode_tokens_per_second")
        named = {"memory_bytes": member.number("bytes"), "parameters": member.number("parameters")}
        if speed:
            named["latency_ms"] = 1000 / speed
        costs = {key: float(value) for key, value in named.items() if value and value > 0}
        if loss is not None and costs:
            dots.append(_Dot(member.name, float(loss), costs, colours[member.index]))
    if len(dots) < 3:
        return None
    lead = (
        "Held-out loss against what a model takes: the time of one decoded token, the bytes of its "
        "weights, its parameters. The line joins the models that no other beats in both."
    )
    return Section("front", "Pareto fronts", _fronts(dots), lead, ("result.json",))


def searches(family: Family) -> Section | None:
    """The searches among a family's stages."""
    body, sources = Markup(""), []
    for part in family.folder.parts():
        made = _children(part, f"{part.path.name}/")
        if made is None:
            continue
        if body:
            body += Markup("<h3>{}</h3>").format(part.path.name)
        body += made + paragraph(
            Markup("All of the search: {}.").format(
                source_link(f"{part.path.name}/report.html", part.path.name)
            )
        )
        sources += [f"{part.path.name}/{name}" for name in ("result.json", CANDIDATES)]
    if not body:
        return None
    return Section("search", "Search for the children's shapes", body, _LEAD, tuple(sources))


_LEAD = (
    "Shapes within each budget, cut by importance and scored by their divergence from the teacher "
    "on held-out text, first as they were cut, then after some retraining by distillation. With "
    "trial.halving the worse half goes after a quarter and after half of the steps. The winner is "
    "retrained in full."
)


def search(run: RunFolder) -> Section | None:
    """The page of one search."""
    made = _children(run, "")
    if made is None:
        return None
    points = items(run.result.get("pareto"))
    body = made
    if points:
        body += Markup("<h3>Loss against what a model takes</h3>") + _models(points)
    if len(dots := _dots(points)) > 2:
        body += _fronts(dots)
    body += _price(run)
    return Section("search", "Search for shapes", body, _LEAD, ("result.json", CANDIDATES), _KEYS)


def _children(run: RunFolder, prefix: str) -> Markup | None:
    """Each child's candidates: where they stood before and after, and what became of them."""
    children = mapping(run.result.get("children"))
    records = _records(run)
    body = Markup("")
    for name, child in children.items():
        mine = {line: record for line, record in records.items() if record.get("child") == name}
        if not mine:
            continue
        told = mapping(child)
        body += Markup("<h3>{}</h3>").format(name) + _words(told, f"{prefix}result.json", name)
        if len(mine) > 1:
            shown = list(mine.values())
            body += drawings(lambda width, shown=shown: _flips(shown, width))  # type: ignore[misc]
        body += _table(mine, f"{prefix}{CANDIDATES}")
        compared = _dots(told.get("pareto"))
        if not prefix and len(compared) > 2:
            body += _compared_at(told, f"result.json: children.{name}") + _fronts(compared)
    return body or None


def _compared_at(child: dict[str, Any], where: str) -> Markup:
    """After which step the losses of the next charts were taken."""
    step = mapping(items(child.get("pareto"))[0]).get("step")
    if number(step) is None:
        return Markup("")
    words = "The candidates after {} training steps, which all of them were given:"
    return paragraph(Markup(words).format(figure(step, count, f"{where}.pareto")))


def _models(points: list[Any]) -> Markup:
    """The original and the children, each with its loss and what it takes."""
    lines = []
    for place, entry in enumerate(map(mapping, points)):
        where = f"result.json: pareto.{place}"
        lines.append(
            Line(
                [
                    text(entry.get("name")) or "?",
                    figure(entry.get("loss"), decimals, f"{where}.loss"),
                    figure(entry.get("parameters"), amount, f"{where}.parameters"),
                    figure(entry.get("memory_bytes"), size, f"{where}.memory_bytes"),
                    figure(entry.get("latency_ms"), short, f"{where}.latency_ms"),
                ]
            )
        )
    columns = (
        Column("Model", is_text=True),
        Column("Held-out loss", "nats per token"),
        Column("Parameters"),
        Column("Memory", "bytes"),
        Column("Latency", "ms per token"),
    )
    return Table(columns, lines, "Models").html()


def _records(run: RunFolder) -> dict[int, dict[str, Any]]:
    """The candidates by their line in the file, from 1."""
    try:
        lines = (run.path / CANDIDATES).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for place, line in enumerate(lines, 1):
        try:
            found[place] = mapping(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found


def _words(child: dict[str, Any], file: str, name: str) -> Markup:
    where, ranks = f"{file}: children.{name}", mapping(child.get("ranks"))
    counted, tried = number(child.get("counted")), number(child.get("candidates"))
    said = Markup("")
    if counted is not None and tried is not None:
        said = Markup("{} legal shapes within the budget, {} tried.").format(
            figure(counted, amount, f"{where}.counted"),
            figure(tried, amount, f"{where}.candidates"),
        )
    of = mapping(child.get("conditions"))
    if of:
        said += Markup(" Memory and latency of {} at a sequence of {}, batch {}, {}.").format(
            text(of.get("latency")) or "decode",
            figure(of.get("sequence"), count, f"{where}.conditions.sequence"),
            figure(of.get("batch"), count, f"{where}.conditions.batch"),
            text(of.get("dtype")) or "?",
        )
    flipped = len(items(ranks.get("flips")))
    if number(ranks.get("candidates")) == 2:  # coefficients of one pair are 1 or -1
        turned = "turned the order of the two" if flipped else "left the order as it was"
        said += Markup(" Retraining {}.").format(turned)
    elif number(ranks.get("spearman")) is not None:
        said += Markup(
            " Ranks before retraining against final ones: Spearman {}, Kendall {}; {} {} turned."
        ).format(
            figure(ranks["spearman"], short, f"{where}.ranks.spearman"),
            figure(ranks.get("kendall"), short, f"{where}.ranks.kendall"),
            flipped,
            "pair" if flipped == 1 else "pairs",
        )
    spent = number(child.get("search_flops"))
    if spent:
        said += Markup(" The search took {} FLOPs, the winner's retraining {}.").format(
            figure(spent, scientific, f"{where}.search_flops"),
            figure(child.get("retraining_flops"), scientific, f"{where}.retraining_flops"),
        )
    return paragraph(said)


def _scores(record: dict[str, Any]) -> list[tuple[float, float]]:
    """Step and divergence of each scoring."""
    entries = [{**mapping(record.get("zero_shot")), "step": 0}]
    entries += [mapping(rung) for rung in items(record.get("rungs"))]
    found = [(number(entry.get("step")), number(entry.get("kld"))) for entry in entries]
    return [(float(step), float(kld)) for step, kld in found if step is not None and kld]


def _flips(records: list[dict[str, Any]], width: float) -> Any:
    """Divergence over training steps: where two lines cross, a rank flipped."""
    series = []
    for place, record in enumerate(records):
        points = _scores(record)
        won = record.get("status") == "winner"
        series.append(
            Series(
                text(record.get("name")) or "?",
                line=points,
                dots=points,
                colour=place,
                dash=0 if won else 1,
                note=decimals(points[-1][1]) if points else "",
            )
        )
    x = Axis("training steps", axis_amount)
    y = Axis("divergence from the teacher, nats per token", short, log=True)
    return line_chart(
        series, x, y, title="Candidates over their retraining", width=width, height=300
    )


def _table(records: dict[int, dict[str, Any]], file: str) -> Markup:
    lines = []
    for place, record in records.items():
        where = f"{file}:{place}"
        scores = dict(_scores(record))
        last = max(scores, default=0.0)
        status = text(record.get("status")) or ""
        lines.append(
            Line(
                [
                    text(record.get("name")) or "?",
                    status,
                    figure(record.get("parameters"), amount, f"{where} parameters"),
                    figure(record.get("non_embedding_parameters"), amount, where),
                    figure(record.get("memory_bytes"), size, f"{where} memory_bytes"),
                    figure(record.get("latency_ms"), short, f"{where} latency_ms"),
                    figure(scores.get(0.0), decimals, f"{where} zero_shot.kld"),
                    figure(scores.get(last) if last else None, decimals, f"{where} rungs"),
                    figure(record.get("rank"), amount, f"{where} rank"),
                ],
                "" if status == "winner" else "aside",
            )
        )
    columns = (
        Column("Shape", is_text=True),
        Column("Outcome", is_text=True),
        Column("Parameters"),
        Column("Non-emb.", "parameters"),
        Column("Memory", "bytes"),
        Column("Latency", "ms per token"),
        Column("As cut", "divergence"),
        Column("Retrained", "divergence"),
        Column("Rank"),
    )
    return Table(columns, lines, "Candidates").html()


def _price(run: RunFolder) -> Markup:
    """The family against training each model from scratch."""
    rows = (
        ("step_equivalent", "By the step: no search, no teacher"),
        ("whole", "With importance, search and the teacher's passes"),
    )
    lines = []
    for key, name in rows:
        told, where = mapping(run.result.get(key)), f"result.json: {key}"
        if number(told.get("ratio")) is None:
            continue
        lines.append(
            Line(
                [
                    name,
                    figure(told.get("scratch_flops"), scientific, f"{where}.scratch_flops"),
                    figure(told.get("family_flops"), scientific, f"{where}.family_flops"),
                    figure(told.get("ratio"), times, f"{where}.ratio"),
                ]
            )
        )
    if not lines:
        return Markup("")
    columns = (
        Column("Price", is_text=True),
        Column("From scratch", "FLOPs"),
        Column("As a family", "FLOPs"),
        Column("Ratio"),
    )
    return Table(columns, lines, "Price of the family").html()
