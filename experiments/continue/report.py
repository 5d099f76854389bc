"""Tables for README.md, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.page import fill, markdown_table

from regrow.report.format import difference as signed

from .arms import KINDS, ORDER  # noqa: TID252 (the folder's name is a keyword)

Results = list[dict[str, Any]]

#: What b must reach against a2 on the test split: figure, its name, the largest difference.
BOUNDS = (
    ("qa_text", "QA text", -0.20),
    ("mean", "mean of the four", -0.04),
    ("en", "English", 0.03),
    ("languages", "other languages", 0.03),
    ("code", "code", 0.03),
)
FIGURES = ("en", "languages", "code", "qa_text", "mean", "qa_answer", "choice")
#: Quantiles 0.975 of Student's t by the number of seeds.
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}


def write(results: Results, folder: Path) -> None:
    """Put each table between its marks in README.md."""
    makers: dict[str, Callable[[Results], str]] = {
        "verdict": verdict,
        "base": base_line,
        "arms": arms_table,
        "bounds": bounds_table,
        "order": order_table,
        "sources": sources_table,
    }
    results = of_one_base(results)
    fill(folder / "README.md", {name: make(results) for name, make in makers.items()})


def of_one_base(results: Results) -> Results:
    """The results of the longest base that has both b and a2; of the longest where none has."""
    groups: dict[int, Results] = {}
    for result in results:
        groups.setdefault(result["base"]["tokens"], []).append(result)
    compared = [n for n, group in groups.items() if apart(group, "b", "a2", "mean")]
    return groups[max(compared or groups)] if groups else []


def of(results: Results, arm: str, figure: str, split: str = "test") -> dict[int, float]:
    """Seed to a figure of an arm."""
    return {r["seed"]: r["scores"][split][figure] for r in results if r["arm"] == arm}


def apart(results: Results, arm: str, other: str, figure: str, split: str = "test") -> list[float]:
    """``arm`` minus ``other``, for each seed that both have."""
    ours, theirs = of(results, arm, figure, split), of(results, other, figure, split)
    return [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the mean (Student's t); None for a single seed."""
    if len(values) < 2:
        return None
    return _T.get(len(values), 2.0) * stdev(values) / sqrt(len(values))


def holds(results: Results) -> dict[str, bool] | None:
    """Whether each bound holds in the mean over seeds; None where nothing can be compared."""
    found = {figure: apart(results, "b", "a2", figure) for figure, _, _ in BOUNDS}
    if not found["mean"]:
        return None
    return {figure: mean(found[figure]) <= limit for figure, _, limit in BOUNDS}


def verdict(results: Results) -> str:
    """The first line of the page."""
    kept = holds(results)
    if kept is None:
        return (
            "**Not measured yet:** no seed has both the recipe and its control; whether the "
            "required bounds hold is not known."
        )
    seeds = len(apart(results, "b", "a2", "mean"))
    plural = "seed" if seeds == 1 else "seeds"
    qa, every = (mean(apart(results, "b", "a2", f)) for f in ("qa_text", "mean"))
    broken = [name for figure, name, _ in BOUNDS if not kept[figure]]
    said = "hold" if not broken else f"do not hold ({', '.join(broken)})"
    few = " Three seeds are asked for." if seeds < 3 else ""
    lines = (
        f"**The required bounds {said}** over {seeds} {plural}: recipe minus control is "
        f"{signed(qa)} on QA text and {signed(every)} in the mean.{few}"
    )
    odd = [text for _, _, text, as_paper in _orders(results) if as_paper == "no"]
    if odd:
        lines += f" The order differs from the paper's: {'; '.join(odd)}."
    return f"{lines} {base_line(results)}"


def base_line(results: Results) -> str:
    """How far from saturated the base was."""
    found = next((r["base"] for r in results if r["arm"] == "base"), None)
    if found is None:
        return "No base yet."
    gain, state = found["last_quarter_gain"], "is" if found["saturated"] else "is not"
    return (
        f"The base saw {found['tokens']:,} tokens; the last quarter of them improved held-out loss "
        f"by {gain:.2%}, so by the rule of 2 % it {state} saturated."
    )


def _rows(results: Results) -> list[str]:
    known = {r["arm"] for r in results}
    return [name for name in ("base", *(k for group in ORDER for k in group)) if name in known]


def arms_table(results: Results) -> str:
    """Every arm on the test split; nothing is left out."""
    head = ("Arm", "Seeds", "EN", "Languages", "Code", "QA text", "Mean", "QA answer", "Choice")
    lines = []
    for arm in _rows(results):
        label = "base" if arm == "base" else f"{arm}: {KINDS[arm].label}"
        cells = [_spread(list(of(results, arm, f).values()), f) for f in FIGURES]
        lines.append((label, str(len(of(results, arm, "mean"))), *cells))
    return markdown_table(head, lines, 1)


def _spread(values: Sequence[float], figure: str) -> str:
    half = interval(values)
    if figure == "choice":
        shown = f"{mean(values):.1%}"
        return shown if half is None else f"{shown} ± {100 * half:.1f}"
    shown = f"{mean(values):.3f}"
    return shown if half is None else f"{shown} ± {half:.3f}"


def bounds_table(results: Results) -> str:
    """b against a2 by seed, with what is required."""
    kept = holds(results)
    if kept is None:
        return "Not measured yet."
    lines = []
    for figure, name, limit in BOUNDS:
        values = apart(results, "b", "a2", figure)
        half = interval(values)
        shown = signed(mean(values)) + (f" ± {half:.3f}" if half is not None else "")
        each = ", ".join(map(signed, values))
        lines.append(
            (name, shown, each, f"at most {signed(limit)}", "yes" if kept[figure] else "no")
        )
    return markdown_table(("b minus a2", "Mean", "By seed", "Required", "Holds"), lines, 1)


def _orders(results: Results) -> list[tuple[str, str, str, str]]:
    """Claim, figures, what was seen, and whether that is the paper's order."""
    rows: list[tuple[str, str, str, str]] = []
    start, control = of(results, "base", "mean"), of(results, "a2", "mean")
    if start and control:
        gained = mean(control.values()) - start[0]
        figures = f"a2 minus base: {signed(gained)}"
        against = "training longer on blend A made the base worse"
        rows.append(("training longer improves the base", figures, against, _yes(gained < 0)))
    claims = (
        ("c", "b", "questions from step 0 are worse than the recipe", "c is better than b"),
        ("d", "b", "re-warming is worse than not", "d is better than b"),
        ("a2", "a", "decaying is better than a constant rate", "a is better than a2"),
    )
    for arm, other, claim, against in claims:
        values = apart(results, arm, other, "mean")
        if values:
            better = mean(values) > 0 if arm != "a2" else mean(values) < 0
            figures = f"{arm} minus {other}: {signed(mean(values))}"
            rows.append((claim, figures, against, "yes" if better else "no"))
    sweep = ("e2", "b", "e10", "e50")
    means = {arm: list(of(results, arm, "mean").values()) for arm in sweep}
    if all(means.values()):
        best = min(sweep, key=lambda arm: mean(means[arm]))
        figures = ", ".join(f"{arm} {mean(means[arm]):.3f}" for arm in sweep)
        against = f"the best switch is that of {best}"
        rows.append(("the switch at eta/5 is the best", figures, against, _yes(best == "b")))
    return rows


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def order_table(results: Results) -> str:
    """What the paper found, and what was seen; the winner is chosen on the validation split."""
    lines = [(claim, figures, seen) for claim, figures, _, seen in _orders(results)]
    arms = [arm for arm in _rows(results) if arm != "base"]
    if not lines or not arms:
        return "Not measured yet."
    best = min(arms, key=lambda arm: mean(of(results, arm, "mean", "validation").values()))
    table = markdown_table(("The paper", "Mean of the four, test split", "Seen"), lines, 1)
    return f"{table}\n\nLowest mean on the validation split: {best} ({KINDS[best].label})."


def sources_table(results: Results) -> str:
    """Questions phase of each arm."""
    lines = []
    for arm in _rows(results):
        found = [r for r in results if r["arm"] == arm and "steps" in r]
        if found:
            first = found[0]
            lines.append(
                (
                    arm,
                    f"{first['tokens']:,}",
                    f"{first['steps']:,}",
                    f"{first['question_steps']:,}",
                    f"{first['question_epochs']:.2f}",
                    f"{mean(r['seconds'] for r in found):.0f}",
                )
            )
    head = ("Arm", "Tokens", "Updates", "of them on questions", "QA epochs", "Seconds")
    return markdown_table(head, lines, 1) if lines else "Not measured yet."
