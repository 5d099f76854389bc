"""Tables for README.md and drawings, from the results alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.hybrid import decode
from experiments.hybrid.arms import (
    COPIED,
    MODELS,
    PHONEBOOK_SIZES,
    REACHED,
    RECALL_SIZES,
    TEXT_RATES,
    grid_of,
    of_group,
)
from experiments.hybrid.models import PATTERNS, STATE, WIDE_STATE
from experiments.page import fill, markdown_table

from regrow.report.axes import Axis
from regrow.report.drawing import Drawing
from regrow.report.plots import Series, line_chart

Results = list[dict[str, Any]]
Row = Sequence[str]

#: Model and state of each row of part A.
ROWS = (*((model, STATE) for model in MODELS), ("mamba2", WIDE_STATE))
HARDEST = str(RECALL_SIZES[-2])
SHORTEST, LONGEST = str(PHONEBOOK_SIZES[0]), str(PHONEBOOK_SIZES[-1])
GAP = 0.30
NATS = 0.02
_STYLE = """
:root { --ink: #1d2126; --muted: #5d6670; --line: #e2e3de; --axis: #9aa1a8; --page: #fbfbf9;
  --c0: #0b62a8; --c1: #0c8a72; --c2: #c2540a; --c3: #a8327e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --muted: #9ba4ae; --line: #2c3238;
  --axis: #626b75; --page: #14171b; --c0: #5ba8ea; --c1: #3cc4a8; --c2: #f39a55; --c3: #ee82bf; } }
svg { background: var(--page); font-family: system-ui, "DejaVu Sans", sans-serif; }
text { fill: var(--ink); } .muted { fill: var(--muted); }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.grid { stroke: var(--line); } .axis { stroke: var(--axis); }
.line { fill: none; stroke: var(--c); stroke-width: 2; }
.dash { stroke-dasharray: 6 5; } .dot { stroke-dasharray: 2 4; } .held { fill: var(--c); }
"""


def write(results: Results, folder: Path) -> None:
    """Put each table that has results between its marks in README.md, and draw."""
    makers: dict[str, Callable[[Results], str]] = {
        "recall": recall_table,
        "rates": rates_table,
        "phonebook": phonebook_table,
        "copying": copying_table,
        "text": text_table,
        "decode": decode_table,
        "predictions": predictions_table,
    }
    fill(folder / "README.md", {name: make(results) for name, make in makers.items()})
    drawings = {"recall": recall_drawing, "phonebook": phonebook_drawing, "decode": decode_drawing}
    for name, draw in drawings.items():
        drawing = draw(results)
        if drawing is not None:
            (folder / f"{name}.svg").write_text(_alone(drawing), encoding="utf-8")


def _alone(drawing: Drawing) -> str:
    """A drawing with its own style, for a file."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    opened = str(drawing.svg()).replace("<svg ", head, 1)
    return opened.replace(">\n", f">\n<style>{_STYLE}</style>\n", 1) + "\n"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean (smallest to largest)."""
    if not values:
        return "not run"
    low, high = min(values), max(values)
    shown = f"{mean(values):.{digits}f}"
    if f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return shown
    return f"{shown} ({low:.{digits}f} to {high:.{digits}f})"


def _title(model: str, state: int) -> str:
    name = f"{model} `{PATTERNS[model]}`"
    return name if model == "transformer" else f"{name}, N = {state}"


def _accuracies(rows: Results, size: int | str) -> list[float]:
    return [r["accuracy"][str(size)] for r in rows]


def _steps(rows: Results) -> str:
    """Steps to 0.95 over the seeds, or how many of them got there."""
    reached = [r["steps_to_95"] for r in rows if r["steps_to_95"]]
    if len(reached) == len(rows) and rows:
        return _spread(reached, 0)
    return f"{len(reached)} of {len(rows)} seeds in {rows[0]['steps']}" if rows else "not run"


def _common(rows: Results) -> list[str]:
    """Parameters, learning rate and seeds of a row."""
    if not rows:
        return ["", "", "0"]
    return [f"{rows[0]['parameters']:,}", f"{rows[0]['lr']:g}", str(len(rows))]


def _solved(rows: Results) -> bool:
    """Whether every seed of part A solved the largest size that was trained."""
    return bool(rows) and min(_accuracies(rows, HARDEST)) >= REACHED


def recall_table(results: Results) -> str:
    """Part A."""
    head = ["model", "parameters", "lr", "seeds", *(f"n = {n}" for n in RECALL_SIZES)]
    head[-1] += " (never trained)"
    rows = []
    for model, state in ROWS:
        found = of_group(results, "A", "recall", model, state)
        cells = [_spread(_accuracies(found, n)) for n in RECALL_SIZES]
        if model == "transformer" and not _solved(found):
            cells[-2] += ", not converged"
        seconds = _spread([r["cpu_seconds"] for r in found], 0)
        rows.append([_title(model, state), *_common(found), *cells, _steps(found), seconds])
    return markdown_table([*head, f"steps to {REACHED} at n = {HARDEST}", "CPU s an arm"], rows)


def rates_table(results: Results) -> str:
    """Every learning rate of the grid, over the seeds that it was run on."""
    rows = []
    for part, task in (("A", "recall"), ("D", "text")):
        for model in MODELS:
            cells = []
            for lr in TEXT_RATES:
                arms = [
                    r
                    for r in results
                    if r["part"] == part
                    and (r["task"], r["model"], r["state"], r["lr"]) == (task, model, STATE, lr)
                ]
                if lr not in grid_of(part):
                    cells.append("not tried")
                    continue
                values = [
                    r["held_out_loss"] if part == "D" else r["accuracy"][HARDEST] for r in arms
                ]
                cells.append(
                    f"{_spread(values)}, {len(arms)} seeds" if len(arms) > 1 else _spread(values)
                )
            what = "held-out loss" if part == "D" else f"accuracy, n = {HARDEST}"
            rows.append([f"{part}: {what}", _title(model, STATE), *cells])
    return markdown_table(["part", "model", *(f"lr {lr:g}" for lr in TEXT_RATES)], rows)


def phonebook_table(results: Results) -> str:
    """Part B."""
    rows = []
    for task in ("standard", "reversed"):
        for model in MODELS:
            found = of_group(results, "B", task, model)
            cells = [_spread([r["exact_match"][str(n)] for r in found], 2) for n in PHONEBOOK_SIZES]
            cells += [
                _spread([r["digit_accuracy"][str(n)] for r in found], 2) for n in PHONEBOOK_SIZES
            ]
            rows.append([task, _title(model, STATE), *_common(found)[1:], *cells])
    exact = [f"exact, {n} lines" for n in PHONEBOOK_SIZES]
    digits = [f"digits, {n} lines" for n in PHONEBOOK_SIZES]
    return markdown_table(["order", "model", "lr", "seeds", *exact, *digits], rows)


def copying_table(results: Results) -> str:
    """Part C."""
    rows = []
    for model in MODELS:
        found = of_group(results, "C", "copying", model)
        accuracy = _spread(_accuracies(found, COPIED))
        rows.append([_title(model, STATE), *_common(found), accuracy, _steps(found)])
    head = [
        "model",
        "parameters",
        "lr",
        "seeds",
        f"accuracy, {COPIED} symbols in {8 * COPIED} noise",
    ]
    return markdown_table([*head, f"steps to {REACHED}"], rows)


def text_table(results: Results) -> str:
    """Part D."""
    rows = []
    for model in MODELS:
        found = of_group(results, "D", "text", model)
        losses = [r["held_out_loss"] for r in found]
        bits = [loss / math.log(2) for loss in losses]
        seconds = _spread([r["cpu_seconds"] for r in found], 0)
        rows.append(
            [_title(model, STATE), *_common(found), _spread(losses), _spread(bits), seconds]
        )
    head = ["model", "parameters", "lr", "seeds", "held-out nats a byte", "bits a byte"]
    return markdown_table([*head, "CPU s an arm"], rows)


def _decoded(results: Results) -> dict[tuple[str, int], dict[str, Any]]:
    return {(r["model"], r["context"]): r for r in results if r["part"] == "E"}


def decode_table(results: Results) -> str:
    """Part E."""
    found = _decoded(results)
    rows = []
    for context in sorted({context for _, context in found}):
        slow = found["transformer", context]["milliseconds"]
        for model in decode.PATTERNS:
            one = found[model, context]
            same = "equal" if one["cache_bytes"] == one["planned_bytes"] else "DIFFERENT"
            rows.append(
                [
                    f"{context:,}",
                    model,
                    f"{one['milliseconds']:.2f} ({one['fastest']:.2f} to {one['slowest']:.2f})",
                    f"{slow / one['milliseconds']:.2f}",
                    f"{one['cache_bytes']:,}",
                    same,
                ]
            )
    head = ["context", "model", "ms a token", "times the transformer's speed", "cache bytes"]
    return markdown_table([*head, "planner"], rows)


def predictions_table(results: Results) -> str:
    """What was predicted, what was measured, and whether the two agree."""
    made = [*_recall_claims(results), *_phonebook_claims(results), *_text_claims(results)]
    made += _decode_claims(results)
    return markdown_table(["", "predicted", "measured", "shown"], made)


def _verdict(value: bool) -> str:
    return "yes" if value else "**no**"


def _undecided(outcome: str) -> str:
    """Ranges of one seed have no width: what they say of each other is chance."""
    return outcome if outcome.startswith("not converged") else "one seed: open"


def _between_seeds(lower: Sequence[float], higher: Sequence[float]) -> str:
    """Whether the mean rises, and whether the seeds leave no doubt of it."""
    if min(higher) > max(lower):
        return "yes"
    return "in the mean only" if mean(higher) > mean(lower) else "**no**"


def _recall_claims(results: Results) -> list[Row]:
    rows = {key: of_group(results, "A", "recall", *key) for key in ROWS}
    if not all(rows.values()):
        return []
    at = {key: _accuracies(found, HARDEST) for key, found in rows.items()}
    hybrid, narrow = at["hybrid", STATE], at["mamba2", STATE]
    by_n = [mean(_accuracies(rows["mamba2", STATE], n)) for n in RECALL_SIZES]
    broad, other = at["mamba2", WIDE_STATE], mean(at["transformer", STATE])
    n = f"n = {HARDEST}"
    gap, nearest = mean(hybrid) - mean(narrow), min(hybrid) - max(narrow)
    claims: list[Row] = [
        [
            "1a",
            f"hybrid at least {REACHED} at {n}, in every seed",
            f"smallest {min(hybrid):.3f}",
            _verdict(min(hybrid) >= REACHED),
        ],
        [
            "1b",
            f"and {GAP:.2f} above mamba2",
            f"{gap:.3f} above in the mean; worst hybrid seed to best mamba2 seed {nearest:.3f}",
            _verdict(gap >= GAP) if nearest >= GAP or gap < GAP else "in the mean only",
        ],
        [
            "1c",
            "mamba2 falls with every n",
            " > ".join(f"{value:.3f}" for value in by_n),
            _verdict(all(a > b for a, b in pairwise(by_n))),
        ],
        [
            "1d",
            f"mamba2 rises with its state, {STATE} to {WIDE_STATE}, at {n}",
            f"{_spread(narrow)}, then {_spread(broad)}",
            _between_seeds(narrow, broad),
        ],
    ]
    equal = f"transformer {other:.3f}, hybrid {mean(hybrid):.3f}"
    solved = _solved(rows["transformer", STATE])
    shown = _verdict(abs(other - mean(hybrid)) <= 0.02) if solved else "not converged"
    return [*claims, ["1e", f"transformer equals the hybrid at {n}", equal, shown]]


def _phonebook_claims(results: Results) -> list[Row]:
    found = {
        (task, model): of_group(results, "B", task, model)
        for task in ("standard", "reversed")
        for model in MODELS
    }
    if not all(found.values()):
        return []

    def at(task: str, model: str, what: str = "exact_match") -> float:
        return mean(r[what][LONGEST] for r in found[task, model])

    def learnt(model: str) -> bool:
        """Whether each seed reads the shortest list: otherwise a comparison says nothing."""
        rows = found["standard", model] + found["reversed", model]
        return min(r["exact_match"][SHORTEST] for r in rows) >= REACHED

    def verdict(value: bool, *models: str) -> str:
        missing = [model for model in models if not learnt(model)]
        return f"not converged: {', '.join(missing)}" if missing else _verdict(value)

    def meet(model: str) -> bool:
        """Whether the ranges of the seeds meet."""
        first, second = (
            [r["exact_match"][LONGEST] for r in found[task, model]]
            for task in ("standard", "reversed")
        )
        return min(first) <= max(second) and min(second) <= max(first)

    lines = f"{LONGEST} lines"
    exact = {model: at("standard", model) for model in MODELS}
    shown = ", ".join(f"{model} {value:.2f}" for model, value in exact.items())
    claims: list[Row] = []
    for model in ("hybrid", "transformer"):
        what = f"phonebook of {lines}: {model} above mamba2"
        outcome = verdict(exact[model] > exact["mamba2"], model)
        if outcome == "yes" and not learnt("mamba2"):
            outcome = f"yes, but mamba2 does not read even {SHORTEST} lines"
        claims.append(["2a", what, shown, outcome])
    turned = at("reversed", "mamba2")
    measured = f"{turned:.2f}, {exact['mamba2']:.2f}"
    better = verdict(turned >= exact["mamba2"], "mamba2")
    claims.append(["2b", "reversed at least standard for mamba2", measured, better])
    for model in ("transformer", "hybrid"):
        what = f"reversed equals standard for the {model} (the ranges of the seeds meet)"
        measured = f"{at('reversed', model):.2f}, {exact[model]:.2f}"
        several = len(found["standard", model]) > 1 and len(found["reversed", model]) > 1
        outcome = verdict(meet(model), model)
        claims.append(["2c", what, measured, outcome if several else _undecided(outcome)])
    digits = at("standard", "mamba2", "digit_accuracy")
    what = f"mamba2's digits at {lines} clearly above its exact match, and above chance (0.10)"
    measured = f"digits {digits:.2f}, exact {exact['mamba2']:.2f}"
    fuzzy = digits > exact["mamba2"] + 0.05 and digits > 0.15
    return [*claims, ["2d", what, measured, verdict(fuzzy, "mamba2")]]


def _text_claims(results: Results) -> list[Row]:
    found = {model: of_group(results, "D", "text", model) for model in MODELS}
    if not all(found.values()):
        return []
    loss = {model: mean(r["held_out_loss"] for r in rows) for model, rows in found.items()}
    bound = min(loss["transformer"], loss["mamba2"]) + NATS
    return [
        [
            "3",
            f"hybrid's loss at most the lower of the others + {NATS} nats",
            ", ".join(f"{model} {value:.3f}" for model, value in loss.items()),
            _verdict(loss["hybrid"] <= bound),
        ]
    ]


def _decode_claims(results: Results) -> list[Row]:
    found = _decoded(results)
    if not {(m, c) for m in decode.PATTERNS for c in decode.CONTEXTS} <= found.keys():
        return []
    exact = all(r["cache_bytes"] == r["planned_bytes"] for r in found.values())
    sizes = {found["mamba2", c]["cache_bytes"] for c in decode.CONTEXTS}
    flat = [found["mamba2", c]["milliseconds"] for c in decode.CONTEXTS]
    centre = (min(flat) + max(flat)) / 2

    def ratio(context: int) -> float:
        slow, fast = found["transformer", context], found["hybrid", context]
        return slow["milliseconds"] / fast["milliseconds"]

    claims: list[Row] = [
        ["4a", "cache bytes equal the planner's, all models", f"equal: {exact}", _verdict(exact)],
        [
            "4b",
            "mamba2's cache does not grow",
            ", ".join(f"{size:,}" for size in sorted(sizes)),
            _verdict(len(sizes) == 1),
        ],
        [
            "4c",
            "mamba2's time flat in context, within 10 % of the middle",
            f"{min(flat):.2f} to {max(flat):.2f} ms",
            _verdict(max(flat) <= 1.1 * centre),
        ],
    ]
    for context, least in ((8192, 3.0), (32768, 5.0)):
        claims.append(
            [
                "4d",
                f"hybrid at least {least:g} times the transformer's speed at {context:,}",
                f"{ratio(context):.2f}",
                _verdict(ratio(context) >= least),
            ]
        )
    return claims


def _number(value: float) -> str:
    return f"{value:g}"


def _tokens(value: float) -> str:
    return f"{value:,.0f}"


def recall_drawing(results: Results) -> Drawing | None:
    """Accuracy against pairs: each seed a dot, the mean a line."""
    series = []
    for index, (model, state) in enumerate(ROWS):
        rows = of_group(results, "A", "recall", model, state)
        if not rows:
            return None
        dots = [(float(n), value) for n in RECALL_SIZES for value in _accuracies(rows, n)]
        line = [(float(n), mean(_accuracies(rows, n))) for n in RECALL_SIZES]
        name = model if model == "transformer" else f"{model}, N = {state}"
        series.append(Series(name, line, dots, colour=index, dash=index % 3))
    x, y = Axis("pairs", _number), Axis("accuracy", _number, zero=True)
    return line_chart(
        series, x, y, title="Associative recall against the number of pairs", width=760
    )


def phonebook_drawing(results: Results) -> Drawing | None:
    """Exact match against lines; dashed where the name was given before the list."""
    series = []
    for index, model in enumerate(MODELS):
        for dash, task in enumerate(("standard", "reversed")):
            rows = of_group(results, "B", task, model)
            if not rows:
                return None
            by_size = {n: [r["exact_match"][str(n)] for r in rows] for n in PHONEBOOK_SIZES}
            line = [(float(n), mean(values)) for n, values in by_size.items()]
            dots = [(float(n), value) for n, values in by_size.items() for value in values]
            series.append(Series(f"{model}, {task}", line, dots, colour=index, dash=dash))
    x, y = Axis("lines", _number), Axis("exact match", _number, zero=True)
    return line_chart(series, x, y, title="Phonebook against the number of lines", width=760)


def decode_drawing(results: Results) -> Drawing | None:
    """Time of a token against context, both logarithmic."""
    found = _decoded(results)
    if not found:
        return None
    series = []
    for index, model in enumerate(decode.PATTERNS):
        line = [
            (float(context), one["milliseconds"])
            for (name, context), one in sorted(found.items(), key=lambda entry: entry[0][1])
            if name == model
        ]
        series.append(Series(model, line, line, colour=index, dash=index % 3))
    x = Axis("tokens of context", _tokens, log=True)
    y = Axis("milliseconds a token", _number, log=True)
    return line_chart(series, x, y, title="Decoding against context", width=760)
