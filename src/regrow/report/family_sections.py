"""The sections of a family's page: tree, models, twins, curves, price."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from regrow.report import curves
from regrow.report.axes import Axis
from regrow.report.family import Family, Member
from regrow.report.format import (
    amount,
    axis_amount,
    count,
    decimals,
    percent,
    scientific,
    seconds,
    short,
    size,
    times,
)
from regrow.report.plots import Bar, Series, bar_chart, line_chart
from regrow.report.record import mapping, number
from regrow.report.section import Column, Line, Section, Table, drawings, figure, paragraph
from regrow.report.tree import draw_tree

_RESULT = ("result.json",)


def tree(family: Family) -> Section | None:
    """Who came from whom."""
    lead = (
        "Boxes hold non-embedding parameters, their share of the base's, and held-out bits per "
        "byte over all domains. Edges are labelled with the verb that made the model."
    )
    if any(family.beside(member) for member in family.members):
        lead += " Dashed: the same shape trained from scratch, for comparison."
    body = drawings(lambda width: draw_tree(family, width))
    return Section("tree", "Family tree", body, lead, ("result.json",))


def _line(member: Member, cells: list[str | Markup]) -> Line:
    return Line([member.name, *cells], "aside" if member.is_scratch else "")


def _cell(member: Member, key: str, write: Callable[[float], str]) -> str | Markup:
    return figure(member.number(key), write, member.where(key))


def models(family: Family) -> Section | None:
    """Sizes and costs, then quality and speed, with the baselines."""
    made = []
    for member in family.members:
        share = figure(family.share_of_base(member), percent, "computed: part of the base's")
        keys: tuple[tuple[str, Callable[[float], str]], ...] = (
            ("tokens", amount),
            ("flops", scientific),
            ("seconds", seconds),
            ("bytes", size),
            ("decode_tokens_per_second", count),
        )
        sizes = [
            _cell(member, "parameters", amount),
            _cell(member, "non_embedding_parameters", amount),
        ]
        cells = [member.kind, *sizes, share, *(_cell(member, key, write) for key, write in keys)]
        made.append(_line(member, cells))
    costs = Table(
        (
            Column("Model", is_text=True),
            Column("Kind", is_text=True),
            Column("Parameters"),
            Column("Non-emb.", "parameters"),
            Column("Of the base", "non-emb."),
            Column("Tokens"),
            Column("FLOPs"),
            Column("Time"),
            Column("On disk", "bytes"),
            Column("Decoding", "tokens/s"),
        ),
        made,
        "Sizes and costs of the models",
    )
    body = costs.html() + _quality(family)
    told = mapping(family.folder.result.get("evaluation"))
    lead = "Tokens, FLOPs and time are those of the stage that made the model."
    if number(told.get("tokens")) is not None:
        split = told.get("split") if isinstance(told.get("split"), str) else "held-out"
        lead += f" Losses are over {amount(told['tokens'])} tokens of the {split} split."
    if number(told.get("threads")) is not None:
        lead += f" Decoding was measured with {_threads(told['threads'])}."
    return Section("models", "Models", body, lead, _RESULT)


def _threads(value: float) -> str:
    return "1 thread" if value == 1 else f"{count(value)} threads"


def _quality(family: Family) -> Markup:
    """Held-out loss and bits per byte by domain, with the baselines as the last rows."""
    domains = family.domains()
    lines = []
    for member in family.members:
        bits = [
            figure(member.bits.get(domain), decimals, member.where(f"bits_per_byte.{domain}"))
            for domain in domains
        ]
        lines.append(_line(member, [_cell(member, "loss", decimals), *bits]))
    baselines = mapping(family.folder.result.get("baselines"))
    for place, name in enumerate(baselines):
        entry, where = mapping(baselines[name]), f"result.json: baselines.{name}"
        theirs = mapping(entry.get("bits_per_byte"))
        cells = [figure(entry.get("loss"), decimals, f"{where}.loss")]
        cells += [figure(theirs.get(d), decimals, f"{where}.bits_per_byte.{d}") for d in domains]
        lines.append(Line([f"{name} (baseline)", *cells], "aside rule" if place == 0 else "aside"))
    columns = [Column("Model", is_text=True), Column("Held-out loss", "nats per token")]
    columns += [Column(d if d != "all" else "All", "bits per byte") for d in domains]
    return Table(columns, lines, "Held-out loss and bits per byte").html()


def loss_curves(family: Family) -> Section | None:
    """All stages on one token axis."""
    colours = family.colours()
    longer = {c.longer.index for c in family.comparisons() if c.longer}
    made: list[Series] = []
    sources: list[str] = []
    taught = False
    for member in family.members:
        if member.stage is None or member.kind == "pruned":
            continue
        records = member.stage.metrics
        held, line = curves.held_out(records), curves.next_token_loss(records)
        taught = taught or (curves.is_distillation(records) and not line)
        if not held and not line:
            continue
        start = family.start_tokens(member)
        smoothed = curves.thin(curves.smooth(line), curves.POINTS) or curves.thin(
            held, curves.POINTS
        )
        dash = 2 if member.index in longer else 1 if member.is_scratch else 0
        last = (held or line)[-1][1]
        made.append(
            Series(
                member.name,
                curves.shifted(smoothed, start),
                curves.shifted(curves.dots(held), start),
                colour=colours[member.index],
                dash=dash,
                note=decimals(last),
            )
        )
        sources.append(f"{member.stage.path.name}/metrics.jsonl")
    if not made:
        return None
    x = Axis("training tokens that went into the model", axis_amount)
    y = Axis("loss, nats per token", short, log=True)
    body = drawings(
        lambda width: line_chart(
            made, x, y, title="Loss of every stage over tokens", width=width,
            height=420 if width > 640 else 300,
        )
    )  # fmt: skip
    lead = (
        "Lines: training loss, smoothed. Dots: held-out loss; its last value stands beside the "
        "name. A child begins where its parent ended; twins (dashed) begin at 0."
    )
    if taught:
        lead += " Of distilled models, which learn from a teacher, only held-out loss is drawn."
    return Section("curves", "Loss over tokens", body, lead, tuple(sources))


def cost(family: Family) -> Section | None:
    """The family's price beside that of training each model from scratch."""
    told = mapping(family.folder.result.get("cost"))
    rows = (
        ("family", "The family", 0, False),
        ("scratch", "Each model from scratch", 7, False),
        ("twins", "Twins, only for comparison", 7, True),
        ("rejected_trials", "Trials that were not kept", 7, True),
    )
    bars, lines = [], []
    for key, name, colour, hollow in rows:
        entry = mapping(told.get(key))
        flops, tokens = number(entry.get("flops")), number(entry.get("tokens"))
        if flops is None or (hollow and not flops):
            continue
        words = f"{scientific(flops)} FLOPs"
        bars.append(Bar(name, float(flops), words, colour, hollow))
        where = f"result.json: cost.{key}"
        cells = [
            figure(flops, scientific, f"{where}.flops"),
            figure(tokens, amount, f"{where}.tokens"),
        ]
        lines.append(Line([name, *cells], "aside" if hollow else ""))
    if not bars:
        return None
    body = drawings(lambda width: bar_chart(bars, title="FLOPs", width=width))
    columns = (Column("What", is_text=True), Column("FLOPs"), Column("Tokens", "trained on"))
    body += Table(columns, lines, "Price").html() + _ratios(told)
    lead = (
        "The family's side counts all that led to its models, importance passes and the teacher's "
        "forward passes too. From scratch means: every size trained on as many tokens as the base "
        "and its continuation saw; that side is computed, not run. Dashed, and on neither side: "
        "what was spent on comparison and on choosing settings."
    )
    return Section("price", "Price of the family", body, lead, _RESULT)


def _ratios(told: dict[str, object]) -> Markup:
    parts = []
    for key, name in (("flops_ratio", "FLOPs"), ("tokens_ratio", "tokens")):
        if number(told.get(key)) is not None:
            value = figure(told[key], times, f"result.json: cost.{key}")
            parts.append(Markup("{} the {}").format(value, name))
    if not parts:
        return Markup("")
    text = Markup(" and ").join(parts)
    return paragraph(Markup("From scratch would take {} of the family.").format(text), "source")
