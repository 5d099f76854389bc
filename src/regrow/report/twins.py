"""The section that sets children against models of their shape that were made otherwise."""

from __future__ import annotations

from markupsafe import Markup

from regrow.report.axes import Axis
from regrow.report.dots import Mark, Row, Shape, dot_chart
from regrow.report.drawing import Drawing
from regrow.report.family import Comparison, Family, Member
from regrow.report.format import MINUS, amount, decimals, difference, short
from regrow.report.headline import verdict
from regrow.report.section import Column, Line, Section, Table, drawings, figure

_RESULT = ("result.json",)


def twins(family: Family) -> Section | None:
    """Children against models of the same shape that were trained from scratch."""
    compared = family.comparisons()
    if not any(c.difference is not None or c.pruned for c in compared):
        return None
    chart = drawings(lambda width: _twin_chart(family, compared, width)) if compared else Markup("")
    lines = [_twin_line(c) for c in compared]
    table = Table(
        (
            Column("Model", is_text=True),
            Column("Child", "nats/token"),
            Column("Twin", "nats/token"),
            Column(f"Child {MINUS} twin", "nats/token"),
            Column("The child is", is_text=True),
            Column("Pruned only", "nats/token"),
            Column("Longer twin", "nats/token"),
            Column(f"Child {MINUS} longer", "nats/token"),
        ),
        lines,
        "Children and their twins",
    )
    lead = (
        "Held-out loss in nats per token; lower is better. A twin has the child's shape and is "
        "trained from random weights. One run with one seed: no interval is known."
    )
    return Section("twins", "Children against their twins", chart + table.html(), lead, _RESULT)


def _twin_line(one: Comparison) -> Line:
    child, twin, longer = one.child, one.twin, one.longer
    loss = child.number("loss")
    theirs = longer.number("loss") if longer else None
    gap = None if loss is None or theirs is None else loss - theirs

    def cell(member: Member | None) -> str | Markup:
        if member is None:
            return figure(None, decimals)
        made = figure(member.number("loss"), decimals, member.where("loss"))
        tokens = member.number("tokens")
        seen = f"{amount(tokens)} tokens" if tokens else "no tokens"
        note = "untrained" if member.kind == "pruned" and not tokens else seen
        return Markup('{}<span class="sub">{}</span>').format(made, note)

    cells = [
        cell(child),
        cell(twin),
        figure(one.difference, difference, "computed: loss of child minus loss of twin"),
        verdict(one) or figure(None, decimals),
        cell(one.pruned),
        cell(longer),
        figure(gap, difference, "computed: loss of child minus loss of the longer-trained twin"),
    ]
    return Line([child.name, *cells])


def _twin_chart(family: Family, compared: list[Comparison], width: float) -> Drawing:
    colours = family.colours()
    rows = []
    used: dict[Shape, str] = {}
    for one in compared:
        marks = []
        shapes: tuple[tuple[Shape, str, Member | None], ...] = (
            ("disc", "child", one.child),
            ("ring", "twin from scratch", one.twin),
            ("diamond", "twin trained longer", one.longer),
            ("cross", "pruned only", one.pruned),
        )
        for shape, words, member in shapes:
            loss = member.number("loss") if member else None
            if loss is not None:
                marks.append(Mark(shape, float(loss)))
                used.setdefault(shape, words)
        gap = one.difference
        note = "" if gap is None else f"{difference(gap)} {verdict(one)}"
        rows.append(Row(one.child.name, tuple(marks), note, colours[one.child.index]))
    axis = Axis("held-out loss, nats per token", short)
    return dot_chart(
        rows, axis, list(used.items()), title="Children against their twins", width=width
    )
