"""The figures of a family, put together from the results of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.lineage import PARENT_ROLES
from regrow.grow.config import FamilyConfig, RecipeConfig, stage_of

Results = dict[str, dict[str, Any]]
FROM_EVALUATION = (
    "loss",
    "bits_per_byte",
    "decode_tokens_per_second",
    "bytes",
    "parameters",
    "non_embedding_parameters",
    "samples",
)


def assemble(config: RecipeConfig, results: Results, root: Path) -> dict[str, Any]:
    """``models``, ``baselines`` and ``cost`` of a family's ``result.json``.

    Args:
        config: the recipe, with its ``family``.
        results: stage name to the content of its ``result.json``.
        root: the family's run folder.
    """
    family = config.family
    assert family is not None
    evaluation = results[family.evaluation]
    made = {member.stage: _result_of(member.stage, results, root) for member in family.models}
    models = [
        {
            "name": member.name,
            "parent": _parent(member.stage, family, root),
            "kind": member.kind,
            "twin": member.twin,
            **{key: evaluation["models"][member.name].get(key) for key in FROM_EVALUATION},
            "tokens": made[member.stage].get("tokens", 0),
            "flops": made[member.stage].get("flops", 0),
            "teacher_flops": made[member.stage].get("teacher_flops", 0),
            "seconds": _seconds(made[member.stage]),
            "learning_rate": _learning_rate(made[member.stage]),
            "path": str(root / member.stage / "export"),
        }
        for member in family.models
    ]
    return {
        "models": models,
        "baselines": evaluation.get("baselines", {}),
        "cost": cost(config, models, results),
        "evaluation": {k: evaluation[k] for k in ("split", "tokens", "threads") if k in evaluation},
    }


def _result_of(place: str, results: Results, root: Path) -> dict[str, Any]:
    """The result of the run that made a model, which may be a part of a stage."""
    if place in results:
        return results[place]
    made: dict[str, Any] = atomic.read_json(root / place / "result.json")
    return made


def _learning_rate(result: dict[str, Any]) -> float | None:
    sweep = result.get("sweep")
    if not sweep or not sweep["key"].endswith("lr"):
        return None
    best = sweep["best"].partition("=")[2]
    return float(best)


def _seconds(result: dict[str, Any]) -> float:
    """Wall seconds of the stage, of a sweep those of the trial that was kept."""
    for trial in result.get("sweep", {}).get("trials", ()):
        if trial["run"].endswith(result["sweep"]["best"]):
            return float(trial["seconds"])
    return float(result["seconds"])


def _parent(stage: str, family: FamilyConfig, root: Path) -> str | None:
    """The family member whose export the stage's model came from."""
    inputs = (
        atomic.read_json(root / stage / "inputs.json")
        if (root / stage / "inputs.json").exists()
        else []
    )
    for record in inputs:
        if record["role"] not in PARENT_ROLES or not record["run"]:
            continue
        for member in family.models:
            if Path(record["run"]).resolve() == (root / member.stage).resolve():
                return member.name
    return None


def _ancestry(config: RecipeConfig, stage: str) -> set[str]:
    """The stage and all that it needs."""
    from regrow.grow.recipe import needs

    found = {stage}
    for need in needs(config.stages[stage]):
        found |= _ancestry(config, need)
    return found


def cost(config: RecipeConfig, models: list[dict[str, Any]], results: Results) -> dict[str, Any]:
    """What the family cost, against training each of its final members from scratch.

    From scratch means: as many tokens as the base and its continuation saw, for each size. The
    family's own side counts all that led to its members: importance passes, searches for a shape
    with all their candidates, and the teacher's forward passes too. Trials of a learning rate that
    were not kept, and the twins that exist only for comparison, are listed apart.
    """
    assert config.family is not None
    grown = [m for m in models if m["kind"] != "scratch"]
    stages: set[str] = set()
    for member in config.family.models:
        if member.kind != "scratch":
            stages |= _ancestry(config, stage_of(member.stage))
    flops = sum(results[stage].get("flops", 0) for stage in stages)
    tokens = sum(results[stage].get("tokens", 0) for stage in stages if _trains(results[stage]))
    full_tokens = sum(m["tokens"] for m in grown if m["kind"] in ("base", "continued"))
    finals = [m for m in grown if m["kind"] == "distilled"]
    trunk = [m for m in grown if m["kind"] in ("base", "continued")]
    trunk_flops = sum(m["flops"] for m in trunk)
    scratch_flops = trunk_flops + sum(
        full_tokens * (m["flops"] - m["teacher_flops"]) / m["tokens"] for m in finals
    )
    return {
        "family": {"flops": flops, "tokens": tokens},
        "scratch": {"flops": round(scratch_flops), "tokens": full_tokens * (1 + len(finals))},
        "flops_ratio": scratch_flops / flops if flops else None,
        "tokens_ratio": full_tokens * (1 + len(finals)) / tokens if tokens else None,
        "search": _searched(results, stages),
        "rejected_trials": _rejected(results),
        "twins": {
            "flops": sum(m["flops"] for m in models if m["kind"] == "scratch"),
            "tokens": sum(m["tokens"] for m in models if m["kind"] == "scratch"),
        },
    }


def _trains(result: dict[str, Any]) -> bool:
    """Whether its tokens are tokens that something was trained on."""
    return "loss" in result or "search_flops" in result


def _searched(results: Results, stages: set[str]) -> dict[str, int]:
    """What of the family's side went into searches for a shape."""
    found = [results[stage] for stage in stages if "search_flops" in results[stage]]
    return {
        "flops": sum(result["search_flops"] for result in found),
        "tokens": sum(result["trial_tokens"] for result in found),
    }


def _rejected(results: Results) -> dict[str, float]:
    total = {"flops": 0, "tokens": 0}
    for result in results.values():
        for trial in result.get("sweep", {}).get("trials", ()):
            if not trial["run"].endswith(result["sweep"]["best"]):
                total["flops"] += trial.get("flops", 0)
                total["tokens"] += trial.get("tokens", 0)
    return dict(total)
