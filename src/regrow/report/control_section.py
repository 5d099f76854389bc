"""What a continuation gained over its control arm, by source."""

from __future__ import annotations

from regrow.report.format import amount, decimals, difference, listing, percent
from regrow.report.record import RunFolder, mapping, number, numbers
from regrow.report.section import Column, Line, Section, Table, figure

_RESULT = ("result.json",)


def control(run: RunFolder) -> Section | None:
    """Held-out loss of the recipe, of its control, and the difference."""
    told, apart = mapping(run.result.get("control")), mapping(run.result.get("difference"))
    ours, theirs = numbers(run.result.get("losses")), numbers(told.get("losses"))
    gained = numbers(apart.get("losses"))
    if not gained:
        return None
    rows: list[tuple[str, float | None, float | None, float | None, str]] = [
        (name, ours.get(name), theirs.get(name), gained[name], f"losses.{name}") for name in gained
    ]
    every = [number(part.get("loss")) for part in (run.result, told, apart)]
    rows.append(("all", every[0], every[1], every[2], "loss"))
    lines = [
        Line(
            [
                name,
                figure(recipe, decimals, f"result.json: {where}"),
                figure(longer, decimals, f"result.json: control.{where}"),
                figure(between, difference, f"result.json: difference.{where}"),
            ],
            "rule" if name == "all" else "",
        )
        for name, recipe, longer, between, where in rows
    ]
    columns = (
        Column("Source", is_text=True),
        Column("Recipe", "nats per token"),
        Column("Control", "nats per token"),
        Column("Difference", "below 0: the recipe is better"),
    )
    blend = listing([f"{percent(w)} {name}" for name, w in numbers(told.get("weights")).items()])
    lead = (
        "The control spent as many tokens, with the same schedule and seeds, on the blend of the "
    )
    lead += f"pretraining: {blend}. " if blend else "pretraining. "
    tokens, flops = number(told.get("tokens")), number(told.get("flops"))
    if tokens and flops:
        lead += (
            f"Its {amount(tokens)} tokens and {amount(flops)} FLOPs are not in the figures above. "
        )
    lead += "One seed: a small difference may be chance."
    body = Table(columns, lines, "Recipe and control").html()
    return Section(
        "control",
        "Against the control arm",
        body,
        lead,
        _RESULT,
        frozenset({"control", "difference"}),
    )
