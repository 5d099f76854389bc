"""The control arm of ``continue``: as many tokens, the same schedule and the same seeds, but on the
blend of the pretraining; what the recipe gains is measured against it.

Source: Reuse, Don't Retrain (arXiv 2407.07263), whose baseline is "train longer on the same blend".
It lies in ``trials/control`` of the run, as the trials of a sweep do, with checkpoints of its own.
No torch at import: plans read this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regrow.core import atomic
from regrow.core.errors import ConfigError
from regrow.core.follower import process_rank
from regrow.core.lineage import TRIALS
from regrow.core.part import claim_part
from regrow.core.run import Run
from regrow.train.config import ContinueConfig, ControlConfig, PhaseConfig
from regrow.train.stage import read_schedule

CONTROL = "control"
_FIGURES = (
    "loss",
    "losses",
    "bits_per_byte",
    "tokens",
    "steps",
    "flops",
    "training_loss",
    "seconds_training",
    "weights_sha256",
)


def pretraining_blend(config: ContinueConfig) -> dict[str, float]:
    """Source to share of the control's only blend; the shares sum to 1.

    That is ``control.weights``, else the recorded phases of the run that made the model, weighted
    by their tokens.

    Raises:
        ConfigError: neither is known.
    """
    if config.control.weights:
        return _shares(config.control.weights)
    record = read_schedule(config.model)
    phases = record.get("phases") if record else None
    if not phases:
        raise ConfigError(
            f"control_arm is true, but {config.model} lies in no run with a training_schedule.json "
            "that records the phases of its pretraining; set control.weights to its blend"
        )
    mixed: dict[str, float] = {}
    for phase in phases:
        tokens = phase.get("tokens", phase["steps"] * phase["batch_tokens"])
        for name, share in phase["weights"].items():
            mixed[name] = mixed.get(name, 0.0) + share * tokens
    return _shares(mixed)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    # Rounded: the interleave takes weights as the decimal fractions that they are written as.
    total = sum(weights.values())
    return {name: round(weight / total, 9) for name, weight in weights.items()}


def control_config(config: ContinueConfig) -> ContinueConfig:
    """The control's settings: those of the run but for the blend.

    Raises:
        ConfigError: see :func:`pretraining_blend`.
    """
    phase = PhaseConfig(name="pretraining blend", weights=pretraining_blend(config))
    data = config.data.model_copy(update={"phases": (phase,)})
    return config.model_copy(
        update={"data": data, "control_arm": False, "control": ControlConfig()}
    )


def run_control(
    config: ContinueConfig, run: Run, train: Callable[[ContinueConfig, Run], dict[str, Any]]
) -> dict[str, Any]:
    """Train the control in its sub-folder, or go on with it, or read what it gave before.

    Args:
        config: of the whole run.
        run: its claimed folder.
        train: trains a model by a config in a run folder; gives the figures of ``run_stage``.

    Returns:
        The figures of the control, its ``weights``, and its ``run`` folder.
    """
    settings = control_config(config)
    folder = run.path / TRIALS / CONTROL
    if (folder / "result.json").exists():
        kept: dict[str, Any] = atomic.read_json(folder / "result.json")
        return kept
    part = claim_part(run, folder, run.verb, settings)
    try:
        part.status("running")
        made = train(settings, part)
        result = {
            "run": str(folder),
            "weights": settings.data.phases[0].weights,
            **{key: made[key] for key in _FIGURES if key in made},
        }
        if not process_rank():
            atomic.write_json(folder / "result.json", result)
        part.status("done")
    finally:
        part.release()
    return result


def difference(recipe: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe minus control: ``loss`` (over all), ``losses`` and ``bits_per_byte`` by source.

    Below zero, the recipe is better.
    """
    made: dict[str, Any] = {}
    if recipe.get("loss") is not None and control.get("loss") is not None:
        made["loss"] = recipe["loss"] - control["loss"]
    for key in ("losses", "bits_per_byte"):
        ours, theirs = recipe.get(key) or {}, control.get(key) or {}
        made[key] = {name: ours[name] - theirs[name] for name in ours if name in theirs}
    return made
