"""The family recipes: they resolve as a whole, and their members lie where they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrow.compress.family_config import FamilyConfig
from regrow.core import atomic
from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.grow.config import RecipeConfig, stage_of
from regrow.grow.family import assemble
from regrow.grow.recipe import check, plan

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["family", "family-full"])
def test_a_recipe_resolves(name: str) -> None:
    config = load_config(RecipeConfig, [RECIPES / f"{name}.yaml"])
    stages = check(config, Path("RUN"))
    verb, children = stages["children"]
    assert verb == "family"
    assert isinstance(children, FamilyConfig)
    assert plan(config).figures["stages"]["children"].startswith("family, after continued")
    assert config.family is not None
    for member in config.family.models:
        stage, _, part = member.stage.partition("/")
        assert stage in stages
        if part:
            assert stage == "children"
            assert part.removesuffix("/pruned") in children.children
    twins = {m.name: m.twin for m in config.family.models if m.kind == "distilled"}
    assert len(twins) == len(children.children)
    for twin in twins.values():
        assert twin is not None
        settings: Any = stages[twin][1]
        assert settings.config["model"]["like"].startswith("RUN/children/")


def test_the_main_job_tries_at_most_two_shapes_a_budget() -> None:
    config = load_config(RecipeConfig, [RECIPES / "family.yaml"])
    children = check(config, Path("RUN"))["children"][1]
    assert isinstance(children, FamilyConfig)
    assert children.candidates <= 2


def test_a_member_of_an_unknown_stage_is_refused() -> None:
    base = {
        "name": "t",
        "stages": {"a": {"verb": "make"}},
        "family": {
            "evaluation": "a",
            "models": [{"name": "m", "stage": "b/half", "kind": "distilled"}],
        },
    }
    with pytest.raises(ConfigError, match="'b' is not among the stages"):
        load_config(RecipeConfig, base=base)
    assert stage_of("b/half") == "b"


@pytest.mark.parametrize(("place", "fine"), [("a/half", 1), ("a/half/pruned", 1), ("a/hlf", 0)])
def test_a_member_that_is_no_child_is_refused_before_hours_of_work(place: str, fine: int) -> None:
    base = {
        "name": "t",
        "stages": {
            "a": {"verb": "family", "config": {"children": {"half": {"budget": {}}}}},
            "e": {"verb": "evaluate"},
        },
        "family": {
            "evaluation": "e",
            "models": [{"name": "m", "stage": place, "kind": "distilled"}],
        },
    }
    if fine:
        assert load_config(RecipeConfig, base=base).family is not None
        return
    with pytest.raises(ConfigError, match=r"'a/hlf': no child of this name.*half"):
        load_config(RecipeConfig, base=base)


def test_the_price_counts_a_search_once(tmp_path: Path) -> None:
    """Two children of one stage: the stage's tokens and FLOPs enter the family's side once."""
    config = load_config(
        RecipeConfig,
        base={
            "name": "t",
            "stages": {
                "base": {"verb": "make"},
                "children": {"verb": "make", "config": {"source": "${base}"}},
                "evaluation": {"verb": "make", "config": {"source": "${children}"}},
            },
            "family": {
                "evaluation": "evaluation",
                "models": [
                    {"name": "base", "stage": "base", "kind": "base"},
                    {"name": "a", "stage": "children/a", "kind": "distilled"},
                    {"name": "b", "stage": "children/b", "kind": "distilled"},
                ],
            },
        },
    )
    for name, parent in (("a", "base"), ("b", "children/a")):
        folder = tmp_path / "children" / name
        atomic.write_json(
            folder / "result.json",
            {"tokens": 10, "flops": 70, "teacher_flops": 20, "seconds": 1.0, "loss": 2.0},
        )
        record = {"role": "student", "run": str(tmp_path / parent), "path": "", "sha256": ""}
        atomic.write_json(folder / "inputs.json", [record])
    results: dict[str, dict[str, Any]] = {
        "base": {"tokens": 100, "flops": 1000, "seconds": 1.0, "loss": 1.0},
        "children": {
            "tokens": 25, "flops": 200, "search_flops": 60, "trial_tokens": 5, "seconds": 3.0,
        },
        "evaluation": {"models": {n: {"loss": 1.0} for n in ("base", "a", "b")}, "seconds": 1.0},
    }  # fmt: skip
    made = assemble(config, results, tmp_path)
    assert [m["parent"] for m in made["models"]] == [None, "base", "a"]
    assert [m["path"] for m in made["models"]][2] == str(tmp_path / "children/b/export")
    cost = made["cost"]
    assert cost["family"] == {"flops": 1200, "tokens": 125}
    assert cost["search"] == {"flops": 60, "tokens": 5}
    assert cost["scratch"] == {"flops": 1000 + 2 * 100 * 50 // 10, "tokens": 300}
