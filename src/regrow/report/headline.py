"""What a family's figures say, in sentences that stay true whichever way they came out."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from regrow.report.family import Comparison, Family, Member
from regrow.report.format import amount, decimals, listing, percent, scientific, times
from regrow.report.record import mapping, number
from regrow.report.section import figure

_SMALLEST = 0.0005  # nats: less than the last decimal shown


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the page's top."""

    name: str
    figure: str | Markup
    note: str = ""


def _count(number_of: int, one: str, many: str) -> str:
    return f"{number_of} {one if number_of == 1 else many}"


def sizes(shares: list[float]) -> str:
    """Shares of the base, in full while they are few."""
    if len(shares) > 4:
        return f"between {percent(min(shares))} and {percent(max(shares))}"
    return listing([percent(share) for share in shares])


def price(family: Family) -> str:
    """The family's FLOPs against training each model from scratch."""
    ratio = number(mapping(family.folder.result.get("cost")).get("flops_ratio"))
    if ratio is None or ratio <= 0:
        return ""
    if abs(ratio - 1) < 0.005:
        return "the family for as many FLOPs as training each from scratch"
    if ratio > 1:
        return f"the family for {times(ratio)} fewer FLOPs than training each from scratch"
    return f"the family for {times(1 / ratio)} more FLOPs than training each from scratch"


def first_sentence(family: Family) -> str:
    """How many models, how small, for how much."""
    models, children = family.grown(), family.final_children()
    start = _count(len(models), "model", "models")
    if family.base is not None and len(models) > 1:
        start += " from one base"
    parts = []
    if children:
        known = [family.share_of_base(child) for child in children]
        shares = [share for share in known if share is not None]
        said = _count(len(children), "child", "children")
        if len(shares) == len(children):
            said += f" at {sizes(shares)} of its non-embedding parameters"
        parts.append(said)
    parts += [said for said in [price(family)] if said]
    return f"{start}: {', '.join(parts)}." if parts else f"{start}."


def verdict(comparison: Comparison) -> str:
    """``better``, ``worse`` or ``no difference``, by the figures; empty without a twin."""
    gap = comparison.difference
    if gap is None:
        return ""
    if abs(gap) < _SMALLEST:
        return "no difference"
    return "better" if gap < 0 else "worse"


def twin_sentence(comparisons: list[Comparison]) -> str:
    """Who beats its twin, and who does not."""
    judged = [c for c in comparisons if c.difference is not None]
    if not judged:
        return ""
    same = all(
        c.twin is not None and c.child.number("tokens") == c.twin.number("tokens") for c in judged
    )
    against = "from-scratch twin" + (" at equal tokens" if same else "")
    gaps = listing([decimals(abs(c.difference or 0.0)) for c in judged])
    wins = [c for c in judged if verdict(c) == "better"]
    losses = [c for c in judged if verdict(c) == "worse"]
    if len(wins) == len(judged) > 1:
        return (
            f"On held-out text every child is better than its {against}, by {gaps} nats per token."
        )
    if len(losses) == len(judged) > 1:
        return f"On held-out text every child loses to its {against}, by {gaps} nats per token."
    said = []
    for one in judged:
        gap = f"by {decimals(abs(one.difference or 0.0))} nats per token"
        how = {
            "better": f"is better than its {against} {gap}",
            "worse": f"loses to its {against} {gap}",
            "no difference": f"is as good as its {against}",
        }[verdict(one)]
        said.append(f"{one.child.name} {how}")
    return f"On held-out text {'; '.join(said)}."


def baseline_sentence(family: Family) -> str:
    """The base against a bigram on the same tokens."""
    base = family.base
    bigram = mapping(mapping(family.folder.result.get("baselines")).get("bigram"))
    theirs = number(mapping(bigram.get("bits_per_byte")).get("all"))
    own = number(base.bits.get("all")) if base else None
    if base is None or own is None or not theirs:
        return ""
    change = own / theirs - 1
    if abs(change) < 0.0005:
        how = "as many as"
    else:
        how = f"{percent(abs(change))} {'fewer' if change < 0 else 'more'} than"
    return (
        f"The base needs {decimals(own)} bits per byte, {how} an interpolated "
        f"bigram on the same tokens ({decimals(theirs)})."
    )


def headline(family: Family) -> list[str]:
    """The sentences of the top, the most important first."""
    comparisons = family.comparisons()
    said = [first_sentence(family), twin_sentence(comparisons), baseline_sentence(family)]
    return [sentence for sentence in said if sentence]


def tiles(family: Family) -> list[Tile]:
    """A few figures of the top."""
    made = []
    base = family.base
    if base is not None and base.number("non_embedding_parameters") is not None:
        key = "non_embedding_parameters"
        size = figure(base.number(key), amount, base.where(key))
        made.append(Tile("Base", size, "non-embedding parameters"))
    best = _best(family)
    if best is not None:
        bits = figure(best.bits["all"], decimals, best.where("bits_per_byte.all"))
        made.append(Tile("Lowest bits per byte", bits, best.name))
    fastest = max(
        (m for m in family.grown() if m.number("decode_tokens_per_second") is not None),
        key=lambda m: m.number("decode_tokens_per_second") or 0,
        default=None,
    )
    if fastest is not None:
        key = "decode_tokens_per_second"
        speed = figure(fastest.number(key), lambda v: f"{v:,.0f}", fastest.where(key))
        made.append(Tile("Fastest decoding", speed, f"tokens/s, {fastest.name}"))
    cost = mapping(mapping(family.folder.result.get("cost")).get("family"))
    if number(cost.get("flops")) is not None:
        spent = figure(cost["flops"], scientific, "result.json: cost.family.flops")
        made.append(Tile("Spent on the family", spent, "FLOPs"))
    return made


def _best(family: Family) -> Member | None:
    known = [m for m in family.grown() if number(m.bits.get("all")) is not None]
    return min(known, key=lambda m: m.bits["all"], default=None)
