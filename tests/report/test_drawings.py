"""Drawings: no words over words, no box over a box, whatever the family is called."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.report.axes import Axis, linear_ticks, log_ticks, scale
from regrow.report.dots import Mark, Row, dot_chart
from regrow.report.drawing import Box, Drawing, shorten, text_width
from regrow.report.family import Family
from regrow.report.format import axis_amount, short
from regrow.report.plots import WIDTHS, Bar, Series, bar_chart, column_chart, line_chart
from regrow.report.record import RunFolder
from regrow.report.tree import columns, draw_tree, forest, indented

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=60)
FLOATS = st.floats(1e-6, 1e9)


def overlaps(boxes: list[Box]) -> list[tuple[Box, Box]]:
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def check(drawing: Drawing) -> None:
    boxes = [box for _, box in drawing.labels]
    named = {box: text for text, box in drawing.labels}
    assert not [(named[a], named[b]) for a, b in overlaps(boxes)]
    for text, box in drawing.labels:
        assert box.x >= -1, text
        assert box.x + box.width <= drawing.width + 1, text
        assert -1 <= box.y <= drawing.height - box.height + 1, text


@st.composite
def families(draw: st.DrawFn, most: int = 15) -> Family:
    """Any parents and twins, cycles and strangers too."""
    count = draw(st.integers(1, most))
    names = [f"m{index}-{draw(NAMES)}" for index in range(count)]
    kinds = st.sampled_from(["base", "continued", "pruned", "distilled", "scratch", "embedder"])
    other = st.one_of(st.none(), st.sampled_from(names), st.just("nobody"))
    sizes = st.sampled_from([10, 1000, 5_000_000])
    models: list[dict[str, Any]] = []
    for name in names:
        size = draw(sizes)
        models.append(
            {"name": name, "kind": draw(kinds), "parent": draw(other), "twin": draw(other),
             "parameters": size, "non_embedding_parameters": size,
             "tokens": draw(st.sampled_from([0, 100, 200])), "loss": draw(FLOATS),
             "bits_per_byte": {"all": draw(FLOATS)}}
        )  # fmt: skip
    return Family(RunFolder(Path("nowhere"), {"models": models}))


@settings(max_examples=150, deadline=None)
@given(families())
def test_tree_has_every_model_once_and_nothing_overlaps(family: Family) -> None:
    roots = forest(family)
    for layout in (columns(roots), *(indented(roots, width) for width in WIDTHS)):
        assert sorted(layout.boxes) == list(range(len(family.members)))
        assert not overlaps(list(layout.boxes.values()))
        for box in layout.boxes.values():
            assert box.x >= 0
            assert box.y >= 0
            assert box.x + box.width <= layout.width
            assert box.y + box.height <= layout.height
    for width in WIDTHS:
        check(draw_tree(family, width))


@given(families(6))
def test_tree_fits_its_width(family: Family) -> None:
    for width in WIDTHS:
        assert draw_tree(family, width).width <= width


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.lists(st.tuples(st.floats(0, 1e9), FLOATS), max_size=20)),
             max_size=15),
    st.lists(st.tuples(st.floats(0, 1e9), NAMES), max_size=4),
    st.booleans(),
)  # fmt: skip
def test_line_chart_labels(named: Any, marks: Any, log: bool) -> None:
    series = [
        Series(name, sorted(points), sorted(points), colour=at, dash=at % 3, note="3.142")
        for at, (name, points) in enumerate(named)
    ]
    for width in WIDTHS:
        axes = Axis("tokens", axis_amount), Axis("nats per token", short, log=log)
        check(line_chart(series, *axes, title="t", width=width, marks=marks))


def test_a_legend_shows_what_is_drawn() -> None:
    def strokes(**drawn: Any) -> str:
        axis = Axis("x", short)
        text = str(line_chart([Series("s", **drawn)], axis, axis, title="t", width=WIDTHS[0]).svg())
        return text[: text.rindex(">s<")]

    assert 'class="line' not in strokes(dots=[(1.0, 1.0)])
    assert 'class="held' in strokes(dots=[(1.0, 1.0)])
    assert 'class="line' in strokes(line=[(1.0, 1.0)])
    assert 'class="held' not in strokes(line=[(1.0, 1.0)])


@given(st.lists(st.tuples(NAMES, st.floats(0, 1e20)), max_size=12))
def test_bar_chart_labels(named: list[tuple[str, float]]) -> None:
    bars = [Bar(name, value, f"{value:.2e} FLOPs") for name, value in named]
    for width in WIDTHS:
        check(bar_chart(bars, title="t", width=width))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_column_chart_labels(values: list[float]) -> None:
    names = [str(index) for index in range(len(values))]
    axes = Axis("layer", short), Axis("importance", short)
    for width in WIDTHS:
        check(column_chart(values, names, *axes, title="t", width=width))


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.lists(st.floats(0.1, 20), min_size=1, max_size=4)),
                min_size=1, max_size=8))  # fmt: skip
def test_dot_chart_labels(named: Any) -> None:
    shapes: Any = ("disc", "ring", "diamond", "cross")
    rows = [
        Row(name, tuple(Mark(shape, v) for shape, v in zip(shapes, values, strict=False)), "+0.1")
        for name, values in named
    ]
    legend = [(shape, f"what {shape} means") for shape in shapes]
    for width in WIDTHS:
        check(dot_chart(rows, Axis("loss", short), legend, title="t", width=width))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 12))
def test_linear_ticks_are_inside_and_even(low: float, span: float, count: int) -> None:
    ticks = linear_ticks(low, low + span, count)
    assert len(ticks) <= count + 2
    slack = 1e-6 * max(span, abs(low))
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert not gaps or max(gaps) - min(gaps) <= slack + 1e-9


@given(st.floats(1e-9, 1e9), st.floats(1.001, 1e9), st.integers(2, 10))
def test_log_ticks_are_inside_and_rising(low: float, factor: float, count: int) -> None:
    ticks = log_ticks(low, low * factor, count)
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)
    assert all(a < b for a, b in itertools.pairwise(ticks))


def test_ticks_are_round() -> None:
    assert linear_ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0, 1_300_000, 5) == [0, 250_000, 500_000, 750_000, 1_000_000, 1_250_000]
    assert log_ticks(3.1, 8.4, 6) == [4, 5, 6, 7, 8]
    assert log_ticks(0.5, 2000, 6) == [1, 10, 100, 1000]


def test_scale_is_linear_or_logarithmic() -> None:
    line = scale([0, 10], Axis("", str, zero=True), 100, 200)
    assert line(5) == pytest.approx(150)
    curve = scale([1, 100], Axis("", str, log=True), 0, 1)
    assert curve(10) == pytest.approx(0.5)
    assert math.isclose(curve(curve.low), 0)


@given(NAMES, st.floats(10, 400))
def test_shortened_text_fits(text: str, width: float) -> None:
    short_text = shorten(text, width, 13, bold=True)
    assert short_text == "…" or text_width(short_text, 13, bold=True) <= width
