"""Recipes: order by need, nothing done twice, changes redo what depends on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.core.lineage import tree
from regrow.grow.config import RecipeConfig
from regrow.grow.execute import execute
from regrow.grow.recipe import order, plan

RECIPE: dict[str, Any] = {
    "name": "test",
    "stages": {
        "child": {"verb": "make", "config": {"value": 1, "source": "${base}"}},
        "base": {"verb": "make", "config": {"value": 10}},
        "grandchild": {"verb": "make", "config": {"source": "${child}"}},
    },
}


def recipe(*overrides: str, base: dict[str, Any] | None = None) -> RecipeConfig:
    return load_config(RecipeConfig, base=base or RECIPE, overrides=overrides)


def attempts(folder: Path) -> int:
    return int((folder / "attempts").read_text())


def grow(folder: Path, config: RecipeConfig, **options: Any) -> dict[str, Any]:
    return execute("grow", config, folder, quiet=True, **options)


def test_stages_run_after_what_they_need_and_once(tmp_path: Path) -> None:
    assert order(recipe()) == ["base", "child", "grandchild"]
    first = grow(tmp_path / "f", recipe())
    assert grow(tmp_path / "f", recipe()) == first
    assert all(attempts(tmp_path / "f" / name) == 1 for name in RECIPE["stages"])
    assert (tmp_path / "f" / "grandchild" / "export" / "value").read_text() == "12.0"


def test_a_changed_stage_needs_force_and_redoes_what_follows(tmp_path: Path) -> None:
    grow(tmp_path / "f", recipe())
    changed = recipe("stages.child.config.value=2")
    with pytest.raises(ConfigError) as caught:
        grow(tmp_path / "f", changed)
    assert caught.value.problems == ("stages.child.config.value: 1 there, 2 now",)
    base_page = (tmp_path / "f" / "base" / "status.json").stat().st_mtime_ns
    grow(tmp_path / "f", changed, force=True)
    assert (tmp_path / "f" / "base" / "status.json").stat().st_mtime_ns == base_page
    assert (tmp_path / "f" / "grandchild" / "export" / "value").read_text() == "13.0"


def test_mistakes_of_all_stages_are_listed_before_anything_runs(tmp_path: Path) -> None:
    bad = recipe("stages.base.config.valu=3", "stages.child.config.optional=x")
    with pytest.raises(ConfigError) as caught:
        grow(tmp_path / "f", bad)
    text = "\n".join(caught.value.problems)
    assert "stages.base.config.valu: unknown key, did you mean value?" in text
    assert "stages.child.config.optional: 'x' should be a valid integer" in text
    assert not (tmp_path / "f").exists()


def test_unknown_stages_and_circles() -> None:
    with pytest.raises(ConfigError, match="asks for stage 'bse'"):
        order(recipe("stages.child.config.source=${bse}"))
    with pytest.raises(ConfigError, match="wait for each other"):
        order(recipe("stages.base.config.source=${grandchild}"))


def test_a_sweep_keeps_the_best(tmp_path: Path) -> None:
    config = recipe("stages.base.sweep={value: [3, 2, 4]}", "stages.base.config={}")
    grow(tmp_path / "f", config)
    from regrow.core import atomic

    result = atomic.read_json(tmp_path / "f" / "base" / "result.json")
    assert result["loss"] == 2.0
    assert result["sweep"]["best"] == "value=2"
    assert [t["loss"] for t in result["sweep"]["trials"]] == [3.0, 2.0, 4.0]
    assert (tmp_path / "f" / "child" / "export" / "value").read_text() == "3.0"
    roots = tree(tmp_path / "f")
    paths = {node.path.name: [child.path.name for child in node.children] for node in roots}
    assert paths["base"] == ["child"]


def test_plan_tells_the_order_without_inputs() -> None:
    stages = plan(recipe()).figures["stages"]
    assert list(stages) == ["base", "child", "grandchild"]
    assert stages["child"] == "make, after base"


def test_a_family_refers_to_stages_and_models_that_exist() -> None:
    family = {
        "evaluation": "base",
        "models": [{"name": "a", "stage": "bas", "kind": "base"}],
    }
    with pytest.raises(ConfigError, match="stage 'bas' is not among the stages"):
        recipe(base={**RECIPE, "family": family})
