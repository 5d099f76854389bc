"""The page of a curation, drawn from its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrow.report.axes import linear_ticks
from regrow.report.drawing import Drawing
from regrow.report.flow import Passage, flow_chart
from regrow.report.histogram import histogram_chart
from regrow.report.page import write_page
from tests.report.family_run import CURATE, write_json, write_stage
from tests.report.reading import Page

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="a()"> \x00\x1b]0; \ud800'
CARD: dict[str, Any] = {
    "stages": [
        {"step": "gather", "in": 4610, "out": 4500, "dropped": {"too short": 96},
         "quarantined": {"not UTF-8": 14}, "masked": {"email": 31, "ip": 2}},
        {"step": "filter", "in": 4500, "out": 4142, "dropped": {"words below 50": 358},
         "quarantined": {}},
    ],
    "yields": [
        {"step": "gather", "sources": {"web": 4000, "wiki": 500}},
        {"step": "filter", "sources": {"web": 3650, "wiki": 492}},
    ],
    "lengths": {"kind": "histogram", "title": "characters", "edges": [1, 10, 100, 1000],
                "counts": [5, 120, 17], "thresholds": [], "unit": "characters"},
    "licences": [
        {"source": "web", "licence": "unknown", "documents": 3650, "bytes": 9_000_000},
        {"source": "wiki", "licence": "CC-BY-SA-4.0", "documents": 492, "bytes": 1_000_000},
    ],
    "exhibits": {
        "fuzzy": [
            {"kind": "curve", "title": "share found", "x": [0, 0.5, 1],
             "lines": {"found": [0, 0.3, 1]}, "x_label": "similarity", "y_label": "probability",
             "marks": {"threshold": 0.8}},
            {"kind": "table", "title": "largest clusters", "columns": ["cluster", "copies"],
             "rows": [["0123456789abcdef" * 2, 15]]},
        ],
        "filter": [
            {"kind": "table", "title": "rules", "columns": ["rule", "drops", "share of documents"],
             "rows": [["words", 358, 0.0796], ["urls", 0, None]]},
            *({"kind": "histogram", "title": f"rule{n}: what it says", "edges": [0, 1, 2],
               "counts": [3, n], "thresholds": [1.23], "unit": ""} for n in range(4)),
        ],
        "odd": [3, {"kind": "histogram"}, {"kind": "table", "columns": ["a"], "rows": [[1, 2]]},
                {"kind": "curve", "x": [1]}, {"kind": "new"}],
    },
    "dropped": {"filter": {"words below 50": [
        {"id": "f" * 32, "source": "web", "file": HOSTILE, "value": 12.0, "text": HOSTILE}]}},
}  # fmt: skip


def page_of(folder: Path, card: Any) -> Page:
    run = write_stage(folder, "corpus", "curate run", CURATE)
    write_json(run / "card.json", card)
    return Page.read(write_page(run))


def test_every_part_of_the_card_is_shown(tmp_path: Path) -> None:
    page = page_of(tmp_path, CARD)
    assert {"flow", "steps", "documents", "dropped"} <= set(page.ids)
    assert page.rows("Gathering") == [["Gathering", "4,000", "500"]]
    assert page.rows("Filter") == [["Filter", "3,650", "492"]]
    assert page.rows("words") == [["words", "358", "8.0 %"]]
    assert page.rows("email") == [["email", "31"]]
    assert page.rows("wiki")[-1] == ["wiki", "CC-BY-SA-4.0", "492", "1.00 MB"]
    assert page.rows("0123456789ab") == [["0123456789ab", "15"]]
    assert "4 figures of the documents, with the bounds" in page.text
    assert "4,142 stay, 358 lost, 8.0 %" in page.svg_texts
    assert "threshold 0.8" in page.svg_texts
    assert page.svg_texts.count("1.23") == 4
    assert "358 documents" in page.text
    assert "12 · web:" in page.text
    assert "Of 4,610 records 4,142 became documents, 90 %." in page.text


def test_figures_come_from_the_card(tmp_path: Path) -> None:
    page = page_of(tmp_path, CARD)
    told = {title: value for value, title, _ in page.figures if "card.json" in title}
    assert told["358 · card.json: exhibits.filter[0].rows[0][1]"] == "358"
    assert told["492 · card.json: yields[1].sources.wiki"] == "492"
    assert told["31 · card.json: stages[0].masked.email"] == "31"


def test_texts_of_documents_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    page = page_of(tmp_path, CARD)
    assert not {"script", "img"} & page.tags
    assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("key", [None, *CARD])
def test_a_card_with_holes_makes_a_page(tmp_path: Path, key: str | None) -> None:
    for odd in (None, [], 3, "x", [[]], {"a": None}):
        page_of(tmp_path, odd if key is None else {**CARD, key: odd})
    (tmp_path / "corpus" / "card.json").write_text('{"stages": [{"step": ')
    assert "Gathering" not in Page.read(write_page(tmp_path / "corpus")).text


def overlapping(drawing: Drawing) -> list[tuple[str, str]]:
    labels = drawing.labels
    return [
        (one, other)
        for at, (one, box) in enumerate(labels)
        for other, second in labels[at + 1 :]
        if box.overlaps(second)
    ]


@pytest.mark.parametrize("bounds", [[], [0.25], [50, 100_000], [3, 10], [0, 0.0001], [-5, 1e9]])
@pytest.mark.parametrize("edges", [linear_ticks(0, 20, 20), [1, 10, 100, 1e3, 1e4, 1e5, 1e6]])
def test_words_of_histograms_do_not_overlap(edges: list[float], bounds: list[float]) -> None:
    counts = [float(7**n % 1000) for n in range(len(edges) - 1)]
    drawing = histogram_chart(edges, counts, bounds, title="t", unit="words")
    assert overlapping(drawing) == []
    for _, box in drawing.labels:
        assert box.x >= -1
        assert box.x + box.width <= drawing.width + 1


@pytest.mark.parametrize("width", [350.0, 960.0])
def test_words_of_flows_do_not_overlap(width: float) -> None:
    passages = [Passage("a step with a rather long name " * 2, 1e12, 3e11), Passage("b", 3e11, 0)]
    assert overlapping(flow_chart(passages, title="t", width=width)) == []


def test_json_of_the_card_of_a_run_is_drawn_without_loss(tmp_path: Path) -> None:
    """Each kind of exhibit that ``regrow.data.exhibits`` makes is one that the page draws."""
    from regrow.data import exhibits

    made = [
        exhibits.histogram("h: says", [1.0, 2.0, float("nan")], [0, 1, 3], [2.0], "m"),
        exhibits.curve("c", [0, 1], {"line": [0, 1], "other": [1, 0]}, "x", "y", {"m": 0.5}),
        exhibits.table("t", ["name", "n"], [["row", 3]]),
    ]
    made.append(exhibits.table("a by b: shares of a row", ["a", "b"], [["part", 0.25]]))
    page = page_of(tmp_path, json.loads(json.dumps({"exhibits": {"step": made}})))
    assert page.rows("part") == [["part", "25 %"]]
    assert page.rows("row") == [["row", "3"]]
    assert {"m 0.5", "line", "other", "y"} <= set(page.svg_texts)
    assert "says" in page.text


def test_a_blend_is_drawn_as_planned_and_as_sampled(tmp_path: Path) -> None:
    rows = {"web": (100, 750.0, 740), "wiki": (900, 250.0, 260)}
    buckets = {
        name: {"available_tokens": have, "planned_tokens": planned, "sampled_tokens": sampled}
        for name, (have, planned, sampled) in rows.items()
    }
    result: dict[str, Any] = {
        "total_tokens": 1000,
        "sample": {"method": "unimax", "buckets": buckets},
        "exhibits": [
            {"kind": "table", "title": "blend", "columns": ["bucket", "n"], "rows": [["web", 100]]}
        ],
    }
    page = Page.read(write_page(write_stage(tmp_path, "shards", "tokenize", result)))
    assert page.rows("web") == [["web", "100"]]
    assert {"web, planned", "75 %", "web, sampled", "74 %", "26 %"} <= set(page.svg_texts)
    assert "method unimax" in page.text
    for odd in (None, {"buckets": {"web": 3}}, {"buckets": {"web": {"planned_tokens": 0}}}):
        result["sample"] = odd
        write_page(write_stage(tmp_path, "shards", "tokenize", result))
