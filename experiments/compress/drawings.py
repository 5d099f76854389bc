"""Drawings for README.md, from the results alone."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from experiments.compress.arms import CHILD, TWIN, chosen, latest, of
from experiments.compress.findings import LABELS, Found, spread

from regrow.report.axes import Axis
from regrow.report.dots import Mark, Row, dot_chart
from regrow.report.drawing import Drawing, Point
from regrow.report.format import axis_amount, decimals
from regrow.report.plots import Series, line_chart

_WIDTH = 820.0
_STYLE = """
:root { --ink: #1d2126; --muted: #5d6670; --line: #e2e3de; --axis: #9aa1a8; --page: #fbfbf9;
  --c0: #0b62a8; --c1: #0c8a72; --c2: #c2540a; --c3: #a8327e; --c4: #6b5bb5; --c5: #7a6a00;
  --c6: #a33; --c7: #456; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --muted: #9ba4ae; --line: #2c3238;
  --axis: #626b75; --page: #14171b; --c0: #5ba8ea; --c1: #3cc4a8; --c2: #f39a55; --c3: #ee82bf;
  --c4: #a99cf0; --c5: #cdbb3a; --c6: #f08080; --c7: #9ab; } }
svg { background: var(--page); font-family: system-ui, "DejaVu Sans", sans-serif; }
text { fill: var(--ink); } .muted { fill: var(--muted); } .plain { --c: var(--muted); }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
.grid { stroke: var(--line); } .axis { stroke: var(--axis); }
.mark { stroke: var(--axis); stroke-dasharray: 3 3; }
.line { fill: none; stroke: var(--c); stroke-width: 2; }
.dash { stroke-dasharray: 6 5; } .dot { stroke-dasharray: 2 4; }
.held, .disc { fill: var(--c); } .ring { fill: var(--page); stroke: var(--c); stroke-width: 2; }
"""


def write(found: Found, folder: Path) -> None:
    """Draw whatever has its results."""
    drawings = {"arms": arms_drawing, "tokens": tokens_drawing, "ranks": ranks_drawing}
    for name, draw in drawings.items():
        drawing = draw(found)
        if drawing is not None:
            (folder / f"{name}.svg").write_text(_alone(drawing), encoding="utf-8")


def _alone(drawing: Drawing) -> str:
    """A drawing with its own style, for a file."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    opened = str(drawing.svg()).replace("<svg ", head, 1)
    return opened.replace(">\n", f">\n<style>{_STYLE}</style>\n", 1) + "\n"


def arms_drawing(found: Found) -> Drawing | None:
    """Test loss of the arms that were cut, every seed; fresh weights would lie far to the right."""
    rows = []
    for index, method in enumerate(("importance-kd", "importance-ce", "random-kd", "depth-kd")):
        values = found.losses(method)
        if values:
            ends = (Mark("ring", min(values)), Mark("ring", max(values)))
            marks = (*ends, Mark("disc", mean(values)))
            rows.append(Row(LABELS[method], marks, spread(values), colour=index))
    if not rows:
        return None
    own = found.base["test"]
    rows.append(Row("teacher", (Mark("disc", own),), decimals(own), colour=7))
    legend: list[Any] = [("disc", "mean"), ("ring", "lowest and highest seed")]
    axis = Axis("test loss, nats a token", decimals)
    return dot_chart(rows, axis, legend, title="Test loss of each arm that was cut", width=_WIDTH)


def tokens_drawing(found: Found) -> Drawing | None:
    """Validation loss over tokens: the child, its scratch twin, and the twin trained longer."""
    child, twin = (found.arms(method) for method in (CHILD, TWIN))
    if not child or not twin:
        return None
    series = [_curve(f"{LABELS[CHILD]}, {axis_amount(child[0]['tokens'])}", child[0], 0, 0)]
    short = chosen(found.results, CHILD, found.base["short_tokens"], found.size)
    if short:
        series.append(_curve(f"{LABELS[CHILD]}, {axis_amount(short[0]['tokens'])}", short[0], 0, 1))
    series.append(_curve(f"{LABELS[TWIN]}, {axis_amount(twin[0]['tokens'])}", twin[0], 2, 0))
    lengths = sorted(
        {r["tokens"] for r in latest(found.results).values() if r.get("method") == TWIN}
    )
    longest = lengths[-1]
    if longest > twin[0]["tokens"]:
        rows = of(found.results, TWIN, longest)
        best = min((r for r in rows if r["seed"] == 0), key=lambda r: r["validation"])
        series.append(_curve(f"{LABELS[TWIN]}, {axis_amount(longest)}", best, 2, 1))
    x, y = Axis("tokens", axis_amount, log=True), Axis("validation loss, nats a token", decimals)
    title = "Validation loss over tokens, child and scratch twin"
    caught = found.caught_up()
    marks = [(float(caught), "the twin catches up")] if caught else []
    return line_chart(series, x, y, title=title, width=_WIDTH, marks=marks)


def _curve(name: str, row: dict[str, Any], colour: int, dash: int) -> Series:
    points = [(float(tokens), float(loss)) for tokens, loss in row["curve"]]
    return Series(name, points, points[-1:], colour=colour, dash=dash)


def ranks_drawing(found: Found) -> Drawing | None:
    """Each candidate's rank by divergence before retraining against that after it."""
    candidates = found.candidates()
    if len(candidates) < 2:
        return None
    by_layers: dict[int, list[Point]] = {}
    first = sorted(one["zero_shot"]["kld"] for one in candidates)
    for after, one in enumerate(candidates, 1):
        place = (1.0 + first.index(one["zero_shot"]["kld"]), float(after))
        by_layers.setdefault(one["shape"]["layers"], []).append(place)
    series = [
        Series(f"{layers} layers", dots=dots, colour=index)
        for index, (layers, dots) in enumerate(sorted(by_layers.items()))
    ]
    x = Axis("rank before retraining", axis_amount, zero=True)
    y = Axis("rank after it", axis_amount, zero=True)
    return line_chart(series, x, y, title="Ranks before and after retraining", width=_WIDTH)
