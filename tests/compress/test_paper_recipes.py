"""Plans of the published families against their tables; no weights, no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrow.cli.main import main
from regrow.core.config import load_config
from regrow.core.errors import InputError
from regrow.core.plan import Plan
from regrow.grow.config import RecipeConfig
from regrow.grow.execute import execute
from regrow.grow.recipe import stage_plans
from regrow.model.presets import PRESETS
from regrow.model.shapes import parameters

FOLDER = Path(__file__).parents[2] / "recipes/paper"

#: Recipe to, by prune stage, the counts of the published table: all, outside embedding and head.
PUBLISHED = {
    "llama31_8b_to_4b_width": {"prune": (4_512_746_496, 3_724_741_632)},
    "llama31_8b_to_4b_depth": {"prune": (4_540_469_248, 3_489_796_096)},
    "nemo12b_to_8b": {"prune": (8_414_105_600, 7_340_363_776)},
    "nemotron4_15b_to_8b_to_4b": {
        "prune-8b": (8_271_699_968, 6_174_547_968),
        "prune-4b": (4_190_509_056, 2_617_645_056),
    },
    "nemotronh_8b_to_4b": {"prune": (4_489_223_040, 3_683_916_672)},
}
#: First and last learning rate after the warm-up, its steps, sequences in a batch, tokens.
SETTINGS = {
    "llama31_8b_to_4b_width": (1e-4, 1e-5, 40, 1152, 94e9),
    "llama31_8b_to_4b_depth": (1e-4, 1e-5, 40, 1152, 94e9),
    "nemo12b_to_8b": (1e-4, 4.5e-7, 60, 768, 380e9),
    "nemotron4_15b_to_8b_to_4b": (2e-4, 4.5e-7, None, 1152, 94e9),
    "nemotronh_8b_to_4b": (1e-4, 1e-5, 100, 768, 90e9),
}


def plans_of(name: str) -> dict[str, Plan]:
    return stage_plans(load_config(RecipeConfig, [FOLDER / f"{name}.yaml"]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    plans = plans_of(name)
    comment = (FOLDER / f"{name}.yaml").read_text().partition("name:")[0]
    assert comment.startswith("# PLAN ONLY")
    for stage, (whole, inside) in PUBLISHED[name].items():
        cut, taught = plans[stage], plans[stage.replace("prune", "distill")]
        for figures in (cut.figures, taught.figures):
            assert figures["parameters"] == whole
            assert figures["non_embedding_parameters"] == inside
        assert f"{whole:,}" in comment
        assert f"{inside:,}" in comment
        assert f"{cut.figures['source_parameters']:,}" in comment or "4b" in stage
        assert f"{taught.figures['steps']:,} steps" in comment
        assert any("stock" in note for note in cut.notes)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_published_one(name: str) -> None:
    lr, least, warmup, sequences, tokens = SETTINGS[name]
    for stage, made in plans_of(name).items():
        if not stage.startswith("distill"):
            continue
        figures = made.figures
        assert figures["lr"] == lr
        assert figures["min_lr"] == pytest.approx(least, rel=1e-6)
        sequence = 4096 if "nemotron4" in name else 8192
        assert figures["batch_tokens"] == sequences * sequence
        assert tokens - figures["batch_tokens"] < figures["tokens"] <= tokens
        if warmup is not None:
            assert figures["warmup_tokens"] == warmup * figures["batch_tokens"]
        terms = figures["distillation"]
        assert (terms["divergence"], terms["temperature"], terms["ce_weight"]) == ("fkl", 1.0, 0.0)
        # Hidden states only where half of the layers went: student's third from the end.
        assert (terms["hidden"] is not None) == ("depth" in name)
        if "depth" in name:
            assert terms["hidden"]["pairs"] == ((13, 29),)
        if "teacher_correction" in figures:
            assert figures["teacher_correction"]["tokens"] == pytest.approx(100e9, rel=1e-3)


def test_the_four_billion_is_cut_from_the_eight_and_taught_by_the_fifteen() -> None:
    plans = plans_of("nemotron4_15b_to_8b_to_4b")
    fifteen, eight = (parameters(PRESETS[name]) for name in ("nemotron4-15b", "minitron-8b"))
    assert plans["prune-4b"].figures["source_parameters"] == eight
    for stage in ("distill-8b", "distill-4b"):
        assert plans[stage].figures["teacher_parameters"] == fifteen


def test_the_source_of_mistral_nemo() -> None:
    assert parameters(PRESETS["mistral-nemo-12b"]) == 12_247_782_400


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_planned_but_not_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(FOLDER / f"{name}.yaml")])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for whole, _ in PUBLISHED[name].values():
        assert f"{whole:,} parameters" in shown
    assert "is a preset" in shown
    config: Any = load_config(RecipeConfig, [FOLDER / f"{name}.yaml"])
    with pytest.raises(InputError, match="can be planned, but not run") as caught:
        execute("grow", config, tmp_path / "r", quiet=True)
    assert "is a preset" in str(caught.value)
    first = next(iter(config.stages))
    assert not (tmp_path / "r" / first).exists()
