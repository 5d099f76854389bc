"""``plan``: what a shape, or each stage of a recipe, would take; nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.show import plan_lines, print_json, print_line
from regrow.core.config import is_override, load_config
from regrow.core.errors import ConfigError


def plan(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [key=value ...]", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, FLOPs per token and cache bytes of a shape; the plan of each recipe stage."""
    recipes = [word for word in words or [] if not is_override(word)]
    if recipes:
        _recipe(recipes, [word for word in words or [] if is_override(word)], json)
        return
    from regrow.model.plan import PlanConfig, shape_plan

    made = shape_plan(load_config(PlanConfig, overrides=words or []))
    if json:
        print_json(dict(made.figures))
    else:
        print_line("\n".join(plan_lines(made)))


def _recipe(recipes: list[str], overrides: list[str], json: bool) -> None:
    from regrow.grow.config import RecipeConfig
    from regrow.grow.recipe import stage_plans

    if len(recipes) > 1 or not Path(recipes[0]).suffix:
        raise ConfigError(
            f"plan takes one recipe file, or settings as key=value, not {' '.join(recipes)}"
        )
    config = load_config(RecipeConfig, [Path(recipes[0])], overrides)
    plans = stage_plans(config)
    if json:
        print_json({name: made.as_json() for name, made in plans.items()})
        return
    for name, made in plans.items():
        print_line(f"{name}: " + "\n".join(plan_lines(made)))
