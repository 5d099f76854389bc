"""The sections of a search: every figure from the files, fronts that nothing beats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.core import atomic
from regrow.report.page import write_page
from regrow.report.record import RunFolder
from regrow.report.search_section import CANDIDATES, search
from tests.report.reading import Page


def candidate(name: str, zero: float, rungs: list[float], status: str, rank: int) -> dict[str, Any]:
    return {
        "child": "half", "name": name, "shape": {"layers": 2}, "parameters": 1000 + rank,
        "non_embedding_parameters": 900, "memory_bytes": 2000, "rank": rank, "status": status,
        "zero_shot": {"kld": zero, "loss": zero + 2},
        "rungs": [
            {"step": 4 * n, "tokens": 400 * n, "kld": kld, "loss": kld + 2}
            for n, kld in enumerate(rungs, 1)
        ],
    }  # fmt: skip


RECORDS = [
    candidate("L2-d16", 1.25, [0.75, 0.5], "winner", 1),
    candidate("L2-d24", 1.0, [0.8125], "dropped at step 4", 2),
]
RESULT: dict[str, Any] = {
    "verb": "family",
    "children": {
        "half": {
            "counted": 31, "candidates": 2, "search_flops": 5e9, "retraining_flops": 7e9,
            "ranks": {
                "candidates": 2, "spearman": -1.0, "kendall": -1.0,
                "flips": [["L2-d24", "L2-d16"]],
            },
            "conditions": {"latency": "decode", "sequence": 128, "batch": 2, "dtype": "fp32"},
            "pareto": [],
        }
    },
    "pareto": [
        {"name": "original", "loss": 2.0, "parameters": 4000, "memory_bytes": 9000},
        {"name": "half", "loss": 2.5, "parameters": 1000, "memory_bytes": 2000},
    ],
    "whole": {"scratch_flops": 4e12, "family_flops": 2e12, "ratio": 2.0},
}  # fmt: skip


def write(folder: Path, result: Any = RESULT, lines: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "result.json", result)
    text = "".join(json.dumps(r) + "\n" for r in RECORDS) if lines is None else lines
    (folder / CANDIDATES).write_text(text)
    return folder


def test_the_page_tells_the_search(tmp_path: Path) -> None:
    page = Page.read(write_page(write(tmp_path / "r")))
    told = "".join(page.texts)
    assert "31 legal shapes within the budget, 2 tried" in told
    assert "Retraining turned the order of the two" in told
    assert "Memory and latency of decode at a sequence of 128, batch 2, fp32" in told
    table = next(t for t in page.tables if t and "Outcome" in " ".join(t[0]))
    assert [row[0] for row in table[1:]] == ["L2-d16", "L2-d24"]
    values = {value for value, _, _ in page.figures}
    assert {"1.25", "0.5", "1.0", "0.8125", "2.0"} <= values
    models = next(t for t in page.tables if t and t[0][0] == "Model")
    assert [row[:3] for row in models[1:]] == [
        ["original", "2.000", "4.00k"], ["half", "2.500", "1.00k"]
    ]  # fmt: skip
    assert "Pareto front" not in page.svg_texts  # two models make none


def test_three_models_make_a_front(tmp_path: Path) -> None:
    third = {"name": "third", "loss": 3.0, "parameters": 500, "memory_bytes": 1500}
    half = {
        **RESULT["children"]["half"],
        "pareto": [{**third, "name": n, "step": 3} for n in "abc"],
    }
    made = {**RESULT, "pareto": [*RESULT["pareto"], third], "children": {"half": half}}
    page = Page.read(write_page(write(tmp_path / "r", made)))
    assert {"Pareto front", "original", "half", "third", "a", "c"} <= set(page.svg_texts)
    assert "The candidates after 3 training steps" in "".join(page.texts)


def test_each_figure_names_its_line_of_the_file(tmp_path: Path) -> None:
    """Also where the file holds other children, and a line that is torn."""
    others = [{**record, "child": "other"} for record in RECORDS]
    lines = [json.dumps(record) for record in others] + ["{torn"] + list(map(json.dumps, RECORDS))
    result = {**RESULT, "children": dict.fromkeys(("half", "other"), RESULT["children"]["half"])}
    page = Page.read(write_page(write(tmp_path / "r", result, "\n".join(lines))))
    places = [tip.split(CANDIDATES)[1] for _, tip, _ in page.figures if f"{CANDIDATES}:" in tip]
    ranks = [place for place in places if place.endswith(" rank")]
    assert ranks == [":4 rank", ":5 rank", ":1 rank", ":2 rank"]


def test_what_more_than_two_candidates_correlate_is_told(tmp_path: Path) -> None:
    half = {
        **RESULT["children"]["half"],
        "ranks": {"candidates": 3, "spearman": 0.5, "kendall": 0.25, "flips": [["b", "a"]]},
    }
    page = Page.read(write_page(write(tmp_path / "r", {**RESULT, "children": {"half": half}})))
    assert "Spearman 0.5, Kendall 0.25; 1 pair turned" in "".join(page.texts)


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert search(RunFolder.read(write(tmp_path / "a", {"verb": "family"}))) is None
    assert search(RunFolder.read(write(tmp_path / "b", RESULT, "{torn"))) is None


ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=4), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(RECORDS[0])), ODD, st.sampled_from(["children", "pareto"]), ODD)
def test_odd_entries_break_nothing(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any, part: str, other: Any
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    lines = json.dumps({**RECORDS[0], key: value}) + "\n" + json.dumps(RECORDS[1]) + "\n"
    (folder / "result.json").write_text(json.dumps({**RESULT, part: other}))
    (folder / CANDIDATES).write_text(lines)
    search(RunFolder.read(folder))
