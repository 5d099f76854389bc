"""What a training run's page shows of its way: losses, rate, speed, where things changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regrow.report import curves
from regrow.report.page import write_page
from tests.report.family_run import records, training_result, write_stage
from tests.report.reading import Page


def _metrics() -> list[dict[str, Any]]:
    made = records(300_000, 8.0, 4.0, seed=3)
    for record in made:
        if "validation" in record:
            held = record["validation"]["loss"]
            record["validation"]["losses"] = {"code": held - 0.1, "books": held + 0.2}
        else:
            record["mfu"] = 0.31
    return made


def _page(folder: Path, metrics: list[dict[str, Any]], **changes: Any) -> Page:
    result = training_result(4.0, 300_000, 60.0, 1_000_000)
    result["schedule"] = {
        "batch_tokens": 4096,
        "batch_ramp": [[1024, 20], [2048, 10]],
        "phases": [
            {"name": "general", "weights": {"code": 1.0}, "first_token": 0},
            {"name": "target", "weights": {"books": 1.0}, "first_token": 200_000},
        ],
    }
    result |= changes
    return Page.read(write_page(write_stage(folder, "run", "pretrain", result, metrics)))


def test_the_page_shows_losses_rate_and_speed(tmp_path: Path) -> None:
    page = _page(tmp_path, _metrics())
    shown = page.svg_texts
    for words in ("training loss", "held-out loss", "code", "books", "learning rate", "tokens/s"):
        assert words in shown, words
    assert "31 % of the peak" in shown
    # In a wide and in a narrow drawing: loss, by source, rate.
    assert shown.count("blend: target") == 2 * 3
    assert shown.count("batch: 2,048 tokens") == shown.count("batch: 4,096 tokens") == 2
    last = [r for r in _metrics() if "validation" in r][-1]["validation"]["losses"]
    assert f"{last['books']:.3f}" in shown
    assert "not taken" not in page.text


def test_skipped_steps_are_told(tmp_path: Path) -> None:
    assert "3 steps were not taken" in _page(tmp_path / "a", _metrics(), skipped_steps=3).text
    assert "1 step was not taken" in _page(tmp_path / "b", _metrics(), skipped_steps=1).text


def test_one_source_needs_no_lines_of_its_own(tmp_path: Path) -> None:
    metrics = _metrics()
    for record in metrics:
        if "validation" in record:
            record["validation"]["losses"] = {"code": 1.0}
    assert "code" not in _page(tmp_path, metrics).svg_texts


def test_records_of_skipped_steps_have_no_loss_and_are_no_points() -> None:
    metrics = [{"tokens": 1, "loss": 2.0}, {"tokens": 2, "skipped": 1}, {"tokens": 3, "loss": 1.0}]
    assert curves.series(metrics, "loss") == [(1.0, 2.0), (3.0, 1.0)]
    broken = [{"tokens": 5, "validation": {"losses": {"a": 1.5, "b": None}}}, {"validation": 3.0}]
    assert curves.held_out_by_source(broken) == {"a": [(5.0, 1.5)]}
