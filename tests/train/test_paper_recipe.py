"""The plan of the 15B recipe against the papers' figures; no GPU, no text."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from regrow.cli.main import main
from regrow.core.config import load_config
from regrow.core.errors import InputError
from regrow.core.plan import Plan
from regrow.grow.config import RecipeConfig
from regrow.grow.execute import execute
from regrow.grow.recipe import stage_plans
from regrow.train.metrics import speed

RECIPE = Path(__file__).parents[2] / "recipes/paper/nemotron4-15b.yaml"


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    began = time.process_time()
    made = stage_plans(load_config(RecipeConfig, [RECIPE]))
    assert time.process_time() - began < 2
    return made


def test_the_pretraining_is_the_published_one(plans: dict[str, Plan]) -> None:
    figures = plans["pretrain"].figures
    assert figures["parameters"] == 15_628_775_424
    assert figures["non_embedding_parameters"] == 12_483_047_424
    assert figures["flops_per_token"] == pytest.approx(93.999e9, rel=1e-5)
    assert 8e12 - 1152 * 4096 < figures["tokens"] <= 8e12
    assert (figures["lr"], figures["min_lr"]) == (4.5e-4, pytest.approx(4.5e-5))
    assert figures["warmup_tokens"] == 16e9
    ramp = figures["batch_ramp"]
    assert [stage["batch_sequences"] for stage in ramp] == [384, 768, 1152]
    # Each stage of the ramp begins within a batch of 0, 200 and 400 B tokens.
    for stage, place in zip(ramp, (0, 200e9, 400e9), strict=True):
        assert 0 <= stage["first_token"] - place < stage["batch_tokens"]
    weights = figures["phases"][0]["weights"]
    assert weights["multilingual"] == weights["code"] == 0.15
    assert sum(weights.values()) == pytest.approx(1.0)


def test_step_times_that_give_the_published_utilisation(plans: dict[str, Plan]) -> None:
    """768, 1536 and 2304 H100; the report (table 2) says 34.3, 33.3 and 30.5 %."""
    figures = plans["pretrain"].figures
    found, days = [], []
    for stage, seconds, devices in zip(
        figures["batch_ramp"], (0.57, 0.58, 0.64), (768, 1536, 2304), strict=True
    ):
        rate = stage["batch_tokens"] / seconds
        found.append(speed(rate, figures["flops_per_token"], 0, 989e12, devices)["mfu"])
        days.append(stage["steps"] * seconds / 86_400)
    assert found == [0.3415, 0.3356, 0.3041]
    assert [round(d, 1) for d in days] == [0.8, 0.4, 11.9]  # the table's last column


def test_the_continuation_changes_its_blend_at_a_fifth_of_the_rate(plans: dict[str, Plan]) -> None:
    figures = plans["continue"].figures
    general, questions = figures["phases"]
    assert figures["lr"] == 4.5e-5
    assert figures["min_lr"] == pytest.approx(4.5e-7)
    assert figures["steps"] == 63_578
    closed = math.acos(2 * (0.2 - 0.01) / 0.99 - 1) / math.pi
    assert figures["switch_fraction"] == round(closed, 4) == 0.7113
    assert figures["switch_token"] == pytest.approx(213.4e9, rel=1e-3)
    assert questions["lr_first"] <= 0.2 * 4.5e-5 < general["lr_last"]
    asked = {n: w for n, w in questions["weights"].items() if n.startswith("questions")}
    assert sum(asked.values()) == pytest.approx(0.1)
    assert asked["questions-knowledge"] == pytest.approx(0.0405)
    for name, share in general["weights"].items():  # the other 90 % are divided as before
        assert questions["weights"][name] == pytest.approx(0.9 * share, rel=1e-3)
    hours = figures["steps"] * 0.64 / 3600
    assert hours == pytest.approx(11.3, abs=0.05)


def test_it_is_planned_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main_exit(["plan", str(RECIPE)])
    shown = capsys.readouterr().out
    for words in ("15,628,775,424 parameters", "93.999 GFLOP", "batch_sequences 384", "0.7113"):
        assert words in shown
    assert "plan only: shards-of-8-trillion-tokens does not exist" in shown
    main_exit(["plan", str(RECIPE), "--json", "stages.continue.config.train.tokens=100e9"])
    told = json.loads(capsys.readouterr().out)
    assert told["continue"]["figures"]["tokens"] == pytest.approx(100e9, rel=1e-4)
    main_exit(["plan", "preset=nemotron4-15b"])
    assert "flops_per_token                    93.999 GFLOP" in capsys.readouterr().out


def main_exit(words: list[str]) -> None:
    """A command that ends well."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


def test_it_is_not_run(tmp_path: Path) -> None:
    config = load_config(RecipeConfig, [RECIPE])
    with pytest.raises(InputError, match="can be planned, but not run"):
        execute("grow", config, tmp_path / "r", quiet=True)
    assert not (tmp_path / "r/pretrain").exists()
