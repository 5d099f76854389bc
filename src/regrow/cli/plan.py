"""``plan``: parameters, FLOPs and memory of a shape, without making it."""

from __future__ import annotations

from typing import Annotated

import typer

from regrow.cli.show import plan_lines, print_json, print_line
from regrow.core.config import load_config


def plan(
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, FLOPs per token and cache bytes of a preset or a shape."""
    from regrow.model.plan import PlanConfig, shape_plan

    made = shape_plan(load_config(PlanConfig, overrides=words or []))
    if json:
        print_json(dict(made.figures))
    else:
        print_line("\n".join(plan_lines(made)))
