"""Tables for README.md, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from experiments.curate.arms import ARMS, SHARES, groups
from experiments.page import fill, markdown_table

from regrow.report.format import difference as signed

Results = list[dict[str, Any]]
SETS = ("held_in", "held_out")
FULL, RAW, FILTER = "attr", "raw", "filter"
CONTROLS = ("random", "shuffled")
SEEDS = 5
#: What the full pipeline must be below raw by, in nats a token, and in standard errors.
GAIN, ERRORS = 0.15, 3.0
MAIN = tuple(name for name, arm in ARMS.items() if not arm.small)
TWICE = ("raw-2", "dedup-2")
_CLASSES = ("copies", "links", "foreign", "code", "english")


class Bound(NamedTuple):
    """One requirement: the first arm minus the second, at most so many nats a token."""

    set: str
    arm: str
    other: str
    limit: float
    errors: float
    """Standard errors that the gap must be larger than; 0 for no such bound."""


BOUNDS = tuple(
    bound
    for name in SETS
    for bound in (
        Bound(name, FULL, RAW, -GAIN, ERRORS),
        *(Bound(name, FULL, control, 0.0, 0.0) for control in CONTROLS),
        Bound(name, FILTER, RAW, 0.0, 0.0),
    )
)


def write(results: Results, folder: Path) -> None:
    """Put each table between its marks in README.md."""
    makers: dict[str, Callable[[Results], str]] = {
        "verdict": verdict,
        "bounds": bounds_table,
        "arms": partial(arms_table, part="ngram"),
        "kinds": kinds_table,
        "mixture": mixture_table,
        "removed": removed_table,
        "twice": twice_table,
        "decoder": decoder_tables,
        "cost": cost_line,
    }
    fill(folder / "README.md", {name: make(results) for name, make in makers.items()})


def of(
    results: Results, arm: str, name: str, figure: str = "nats", part: str = "ngram"
) -> dict[int, float]:
    """Seed to a figure of an arm on a set."""
    return {
        r["seed"]: r["sets"][name][figure] for r in results if r["arm"] == arm and r["part"] == part
    }


def apart(results: Results, arm: str, other: str, name: str, part: str = "ngram") -> list[float]:
    """``arm`` minus ``other``, for each seed that both have."""
    ours, theirs = of(results, arm, name, part=part), of(results, other, name, part=part)
    return [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]


def error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for a single value."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else None


def holds(results: Results, bound: Bound) -> bool | None:
    """Whether a bound holds in the mean over seeds; None where it cannot be told."""
    values = apart(results, bound.arm, bound.other, bound.set)
    if not values:
        return None
    gap = mean(values)
    if bound.errors:
        spread = error(values)
        return gap <= bound.limit and spread is not None and -gap > bound.errors * spread
    return gap < bound.limit


def verdict(results: Results) -> str:
    """The first line of the page."""
    kept = {bound: holds(results, bound) for bound in BOUNDS}
    if None in kept.values():
        return "**Not measured yet:** some arm that a bound needs is missing."
    seeds = min(len(apart(results, b.arm, b.other, b.set)) for b in BOUNDS)
    broken = [_named(bound) for bound, well in kept.items() if not well]
    gaps = " and ".join(
        f"{signed(mean(apart(results, FULL, RAW, name)))} nats/token on {name}" for name in SETS
    )
    few = f" {SEEDS} seeds are asked for." if seeds < SEEDS else ""
    said = "**All required bounds are met**" if not broken else (
        f"**Not all required bounds are met: {'; '.join(broken)} fails**"
    )  # fmt: skip
    return f"{said} ({seeds} seeds, 3-gram scorer): the full pipeline minus raw is {gaps}.{few}"


def _named(bound: Bound) -> str:
    return f"{_label(bound.arm)} below {_label(bound.other)} on {bound.set}"


def _label(arm: str) -> str:
    return ARMS[arm].label


def bounds_table(results: Results) -> str:
    """Every required gap by seed."""
    lines = []
    for bound in BOUNDS:
        values = apart(results, bound.arm, bound.other, bound.set)
        if not values:
            continue
        required = f"at most {signed(bound.limit)}" if bound.limit else "below 0"
        if bound.errors:
            required += f", beyond {bound.errors:g} standard errors"
        lines.append((
            bound.set,
            f"{_label(bound.arm)} minus {_label(bound.other)}",
            _gap(values),
            ", ".join(map(signed, values)),
            required,
            "yes" if holds(results, bound) else "no",
        ))  # fmt: skip
    head = ("Set", "Gap in nats/token", "Mean", "By seed", "Required", "Met")
    return markdown_table(head, lines, 2)


def arms_table(results: Results, part: str, arms: Sequence[str] = MAIN) -> str:
    """Losses of all arms, and the gaps to raw."""
    lines = []
    for arm in arms:
        if not of(results, arm, SETS[0], part=part):
            continue
        cells = [_label(arm)]
        for name in (*SETS, "far"):
            nats = list(of(results, arm, name, part=part).values())
            bits = mean(of(results, arm, name, "bits", part).values())
            cells.append(f"{_spread(nats)} ({bits:.3f})")
        gaps = [apart(results, arm, RAW, name, part) for name in (*SETS, "far")]
        cells += ["" if arm == RAW else _gap(values) for values in gaps]
        lines.append(cells)
    head = ("Arm", "held_in", "held_out", "far", "minus raw: held_in", "held_out", "far")
    return markdown_table(head, lines, 1) if lines else "Not measured yet."


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}{_error(values)}"


def _gap(values: Sequence[float]) -> str:
    return signed(mean(values)) + _error(values) if values else ""


def _error(values: Sequence[float]) -> str:
    spread = error(values)
    return f" ± {spread:.3f}" if spread is not None else ""


def kinds_table(results: Results) -> str:
    """Nats a token by kind of text, means over seeds."""
    arms = [arm for arm in MAIN if of(results, arm, SETS[0])]
    lines = []
    for name in (*SETS, "far"):
        found = [r["sets"][name]["kinds"] for r in results if r["part"] == "ngram"]
        for kind in sorted({kind for kinds in found for kind in kinds}):
            cells = [
                mean(r["sets"][name]["kinds"][kind] for r in results
                     if r["arm"] == arm and r["part"] == "ngram")
                for arm in arms
            ]  # fmt: skip
            lines.append((name, kind, *(f"{value:.2f}" for value in cells)))
    head = ("Set", "Kind", *map(_label, arms))
    return markdown_table(head, lines, 2) if lines else "Not measured yet."


def mixture_table(results: Results) -> str:
    """What each arm was trained on: shares of its tokens, epochs, and the loss beside them."""
    lines = []
    for arm in MAIN:
        found = [r for r in results if r["arm"] == arm and r["part"] == "ngram"]
        if not found:
            continue
        cells = [
            _percent(found, lambda r, kinds=kinds: _tokens(r, kinds))
            for kinds in groups().values()
        ]  # fmt: skip
        cells.append(_percent(found, lambda r: r["mixture"]["copies"]))
        epochs = ", ".join(
            f"{mean(r['epochs'][bucket] for r in found):.2f}" for bucket in found[0]["epochs"]
        )
        pool = f"{mean(r['bytes'] for r in found) / 1e6:.1f}"
        losses = [f"{mean(of(results, arm, name).values()):.3f}" for name in SETS]
        lines.append((_label(arm), *losses, *cells, epochs, pool))
    head = ("Arm", *SETS, *groups(), "in copies", "Epochs", "Pool, MB")
    note = f"Epochs of the arms with attributes: of {', '.join(SHARES)}."
    return f"{markdown_table(head, lines, 1)}\n\n{note}" if lines else "Not measured yet."


def _tokens(result: Mapping[str, Any], kinds: Sequence[str]) -> int:
    return sum(result["mixture"]["kinds"].get(kind, 0) for kind in kinds)


def _percent(found: Results, tokens: Callable[[Mapping[str, Any]], int]) -> str:
    return f"{mean(tokens(r) / r['tokens'] for r in found):.0%}"


def removed_table(results: Results) -> str:
    """Share of each class of documents that each step of + DSIR took, and what was left."""
    found = [r["removed"] for r in results if "removed" in r and r["part"] == "ngram"]
    if not found:
        return "Not measured yet."
    steps = list(dict.fromkeys(step for one in found for step in one["steps"]))
    order = [s for s in ("gather", "language", "exact", "fuzzy", "filter", "select") if s in steps]
    lines = []
    for step in order:
        cells = [
            mean(one["steps"].get(step, {}).get(kind, 0) / one["pool"][kind] for one in found)
            for kind in _CLASSES
        ]
        lines.append((step, *(f"{value:.1%}" for value in cells)))
    left = [
        mean(1 - sum(s.get(kind, 0) for s in one["steps"].values()) / one["pool"][kind]
             for one in found)
        for kind in _CLASSES
    ]  # fmt: skip
    lines.append(("left", *(f"{value:.1%}" for value in left)))
    pool = [f"{mean(one['pool'][kind] for one in found):,.0f}" for kind in _CLASSES]
    head = ("Step", "copies", "link farms", "foreign", "code", "other English")
    return markdown_table(head, [("documents in the pool", *pool), *lines], 1)


def twice_table(results: Results, part: str = "ngram") -> str:
    """Raw against dedup where both are gone through at least twice."""
    lines = []
    for arm in TWICE:
        found = [r for r in results if r["arm"] == arm and r["part"] == part]
        if not found:
            continue
        cells = [_spread(list(of(results, arm, name, part=part).values())) for name in SETS]
        epochs = f"{mean(r['epochs']['all'] for r in found):.2f}"
        tokens = f"{mean(r['tokens'] for r in found):,.0f}"
        lines.append((_label(arm), tokens, epochs, *cells))
    if not lines:
        return "Not measured yet."
    gaps = [apart(results, TWICE[1], TWICE[0], name, part) for name in SETS]
    shown = [_gap(values) for values in gaps]
    lines.append(("dedup minus raw", "", "", *shown))
    return markdown_table(("Arm", "Tokens", "Epochs", *SETS), lines, 1)


def decoder_tables(results: Results) -> str:
    """The same with our decoder, one seed."""
    table = arms_table(results, "decoder")
    if table == "Not measured yet.":
        return table
    found = next(r for r in results if r["part"] == "decoder")
    told = f"{found['tokens']:,} tokens an arm, one seed, so no standard errors."
    return f"{told}\n\n{table}\n\n{twice_table(results, 'decoder')}"


def cost_line(results: Results) -> str:
    """CPU seconds of the part with the 3-gram model."""
    found = [r for r in results if r["part"] == "ngram"]
    if not found:
        return "Not measured yet."
    seconds = sum(r["cpu_s"] + r["prepared_s"] for r in found)
    macro = [r["classifier"] for r in found if "classifier" in r]
    gone = mean(r["contaminated"] for r in found if r["arm"] == RAW)
    return (
        f"All arms of {len({r['seed'] for r in found})} seeds took {seconds / 60:.1f} CPU minutes; "
        f"{gone:.1f} documents a seed were removed as copies of a held-out text or of the target; "
        f"macro-F1 of the quality classifier on held-out files of its labels: {mean(macro):.3f}."
    )
