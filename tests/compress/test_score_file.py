"""Scores on disk: exact, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regrow.compress.importance import Statistics, measure
from regrow.compress.score_file import check_model, read_scores, resolve_scores, write_scores
from regrow.core.errors import InputError
from tests.compress.makers import small
from tests.compress.test_importance import Windows
from tests.compress.test_ranking import given
from tests.model.makers import HYBRIDS, ours, tokens


@pytest.fixture
def statistics() -> Statistics:
    return given()[0]


def test_what_is_written_is_read(tmp_path: Path, statistics: Statistics) -> None:
    sha = write_scores(tmp_path, statistics, "ab" * 32, {"seed": 1})
    first = (tmp_path / "scores.safetensors").read_bytes()
    scores = read_scores(tmp_path / "scores.json")
    assert (scores.sha256, scores.model_sha256) == (sha, "ab" * 32)
    assert (scores.statistics.samples, scores.statistics.tokens) == (7, 100)
    assert scores.statistics.sums.keys() == statistics.sums.keys()
    for name, sums in statistics.sums.items():
        for site, value in sums.items():
            assert torch.equal(scores.statistics.sums[name][site], value)
            assert torch.equal(
                scores.statistics.squares[name][site], statistics.squares[name][site]
            )
    assert torch.equal(scores.statistics.cosines, statistics.cosines)
    write_scores(tmp_path, scores.statistics, "ab" * 32, {"seed": 1})
    assert (tmp_path / "scores.safetensors").read_bytes() == first
    check_model(tmp_path, small(), "ab" * 32)


def test_every_aggregation_and_site_is_kept(tmp_path: Path) -> None:
    model = ours(**HYBRIDS["hybrid"], layout="nemotron_h")
    windows = [Windows(tokens(model.config, 3, 8))]
    found = measure(model, windows, ("var", "mean"), "pre_act")
    write_scores(tmp_path, found, "ab" * 32, {})
    again = read_scores(tmp_path).statistics
    assert list(again.sums) == list(again.squares) == ["var", "mean"]
    for name in again.sums:
        for site in found.sites:
            assert torch.equal(again.sums[name][site], found.sums[name][site])
    assert (again + found).samples == 6
    check_model(tmp_path, model.config, "ab" * 32, "var")
    with pytest.raises(InputError, match=r"hold var, mean, not l2; .*=\[var, mean, l2\]"):
        check_model(tmp_path, model.config, "ab" * 32, "l2")


def test_scores_from_before_there_was_a_choice_hold_the_mean(
    tmp_path: Path, statistics: Statistics
) -> None:
    write_scores(tmp_path, statistics, "ab" * 32, {})
    path = tmp_path / "scores.json"
    record = json.loads(path.read_text())
    del record["sequence_aggregations"]
    path.write_text(json.dumps(record))
    assert torch.equal(
        read_scores(tmp_path).statistics.sums["mean"]["norm"], statistics.sums["mean"]["norm"]
    )
    check_model(tmp_path, small(), "ab" * 32)
    with pytest.raises(InputError, match="hold mean, not var"):
        check_model(tmp_path, small(), "ab" * 32, "var")


def test_scores_of_another_model_are_refused(tmp_path: Path, statistics: Statistics) -> None:
    write_scores(tmp_path, statistics, "ab" * 32, {})
    with pytest.raises(InputError, match="another checkpoint"):
        check_model(tmp_path, small(), "cd" * 32)
    with pytest.raises(InputError, match="another shape"):
        check_model(tmp_path, small(intermediate_size=40), "ab" * 32)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, statistics: Statistics, position: int) -> None:
    write_scores(tmp_path, statistics, "ab" * 32, {})
    path = tmp_path / "scores.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="other content"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"sites": 3}, "damaged"),
        ({"samples": "many"}, "damaged"),
        ({"sequence_aggregations": ["median"]}, "damaged"),
        ({"sequence_aggregations": ["var"]}, "damaged"),
        (None, "damaged"),
    ],
)
def test_a_damaged_sidecar_is_refused(
    tmp_path: Path, statistics: Statistics, change: dict[str, object] | None, message: str
) -> None:
    write_scores(tmp_path, statistics, "ab" * 32, {})
    path = tmp_path / "scores.json"
    text = json.dumps({**json.loads(path.read_text()), **change}) if change else "{"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_scores(tmp_path)


def test_a_folder_without_scores_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run folder of importance"):
        resolve_scores(tmp_path)
