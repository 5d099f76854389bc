"""Continue the training of a checkpoint with a two-phase blend.

Source: Reuse, Don't Retrain (arXiv 2407.07263): start at the pretraining's minimum learning rate
without a warmup, cosine down to a hundredth of it, and change from the general blend to the one
with questions and answers where the rate has fallen to a fifth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow.core.errors import CheckpointError, ConfigError, InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.runs import resolve_model
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.train.config import ContinueConfig
from regrow.train.control import control_config, difference, run_control
from regrow.train.extend import extended_shape, extension_note, reshape
from regrow.train.schedule import Schedule
from regrow.train.sketch import sketch
from regrow.train.sources import Sources
from regrow.train.stage import (
    Stage,
    prepare,
    read_schedule,
    record_inputs,
    run_stage,
    whole_tokens,
)


def start_lr(config: ContinueConfig) -> float:
    """The learning rate to start with: the explicit one, or the last of the model's pretraining.

    Raises:
        ConfigError: neither is known; it is never guessed from the model's size.
    """
    start = config.optim.start
    if start != "pretrain_min":
        return start
    record = read_schedule(config.model)
    if record is None:
        raise ConfigError(
            f"optim.start is pretrain_min, but {config.model} lies in no run with a "
            "training_schedule.json; set optim.start to the last learning rate of its pretraining"
        )
    return float(record["min_lr"])


def _shape(config: ContinueConfig) -> ModelConfig:
    """The shape of the model as it is; of a preset where ``model`` names one and is no path."""
    from regrow.model.folder import load_config

    preset = _preset(config)
    return preset or load_config(resolve_model(config.model))


def _preset(config: ContinueConfig) -> ModelConfig | None:
    return None if config.model.exists() else PRESETS.get(str(config.model))


def _stage(config: ContinueConfig) -> Stage:
    model = extended_shape(_shape(config), config.extend_to, config.rope_theta)
    schedule = config.optim.resolve(whole_tokens(config), start_lr(config))
    if _preset(config) and not config.data.shards.exists():
        return sketch(config, model, schedule)
    sources = Sources.open(config.data, config.eval.split)
    tokenizer = None if _preset(config) else resolve_model(config.model) / "tokenizer.json"
    if tokenizer is not None and not tokenizer.is_file():
        tokenizer = None
    return prepare(config, model, sources, schedule, tokenizer)


def _control_stage(config: ContinueConfig) -> Stage:
    """The control's stage, its problems told in the words of its own settings."""
    try:
        return _stage(control_config(config))
    except ConfigError as error:
        ours = "data.phases.0.weights"
        lines = [line.replace(ours, "control.weights") for line in error.problems]
        raise ConfigError(f"control arm: {error.message}", lines) from error


def plan(config: ContinueConfig) -> Plan:
    """Tokens, steps, FLOPs, where the rate starts and ends, where the blend changes.

    Raises:
        ConfigError, InputError: whatever would stop the run before its first step.
    """
    stage = _stage(config)
    origin = "last of its pretraining" if config.optim.start == "pretrain_min" else "given"
    notes = [_rate_note(stage.schedule, origin)]
    before = _shape(config)
    if config.extend_to is not None:
        notes.append(extension_note(before, stage.model))
    if _preset(config):
        notes.append(f"planned for the preset {config.model}; to train, give a model's folder")
    more: dict[str, Any] = {}
    if config.extend_to is not None:
        more = {"max_positions": stage.model.max_positions, "rope_theta": stage.model.rope_theta}
        if not stage.model.rotary_dim:
            del more["rope_theta"]
    if config.control_arm:
        control = _control_stage(config)
        more["control"] = {
            "tokens": control.tokens,
            "flops": control.flops,
            "weights": {k: round(v, 6) for k, v in control.phases[0].weights.items()},
            "epochs": {k: round(v, 3) for k, v in control.epochs.items()},
        }
        notes.append("the control arm takes as long again; its tokens and FLOPs are told apart")
    made = stage.plan("continue", tuple(notes))
    return Plan(made.title, {**made.figures, **more}, made.notes, made.missing)


def _rate_note(schedule: Schedule, origin: str) -> str:
    if schedule.warmup_tokens:
        return (
            f"learning rate re-warmed to {schedule.lr:g} over {schedule.warmup_tokens:,} tokens "
            f"({origin})"
        )
    return f"learning rate {schedule.lr:g} at the start ({origin})"


def run(config: ContinueConfig, run: Run) -> dict[str, Any]:
    """Train the loaded model to the end of the budget; the model lies in ``export/``.

    With ``control_arm`` the control is trained after it, in ``trials/control``.
    """
    if config.control_arm:
        _control_stage(config)  # whatever is wrong with it is said before the first step
    result = _train(config, run)
    if not config.control_arm:
        return result
    control = run_control(config, run, _train)
    return {**result, "control": control, "difference": difference(result, control)}


def _train(config: ContinueConfig, run: Run) -> dict[str, Any]:
    """One arm."""
    import torch

    from regrow.model.folder import load
    from regrow.train.device import resolve_device
    from regrow.train.objectives.next_token import NextToken
    from regrow.train.parallel import spread

    stage = _stage(config)
    folder = run.input(resolve_model(config.model), "model")
    record_inputs(stage, run)
    model = load(folder, dtype=torch.float32)
    check_finite(model, folder)
    model = reshape(model, stage.model)
    sharding = spread(model, config.parallel.tp, resolve_device(config.train.device))
    loader = _state_loader(config, run)
    return run_stage(stage, NextToken(model), run, "continue", loader, sharding)


def check_finite(model: Any, folder: Path) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        InputError: names the first such tensor.
    """
    import torch

    for name, parameter in model.named_parameters():
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise InputError(
                f"{folder}: {name} has {bad} values that are not finite, of {parameter.numel()}; "
                "the checkpoint is damaged or its training diverged"
            )


def _state_loader(config: ContinueConfig, run: Run) -> Callable[[Any], None] | None:
    """What puts the pretraining's optimiser state into a new trainer, and says so."""
    wanted = config.optim.load_state
    if wanted is False:
        run.log("optimiser_state", message="fresh AdamW: optim.load_state is false")
        return None

    def load_state(trainer: Any) -> None:
        from regrow.train import checkpoint

        try:
            path = _pretraining_checkpoint(config.model)
            if path is None:
                raise CheckpointError(f"{config.model} lies in no run that keeps a checkpoint")
            state = checkpoint.load(path)
            trainer.load_optimiser(state.optimizer)
        except CheckpointError as error:
            if wanted is True:
                raise InputError(f"optim.load_state is true, but {error}") from error
            run.log("optimiser_state", message=f"fresh AdamW: {error}")
            return
        run.log("optimiser_state", message=f"loaded from {path}")

    return load_state


def _pretraining_checkpoint(model: Path) -> Path | None:
    """The last checkpoint of the run that made a model, if it is that of its last step."""
    from regrow.train import checkpoint

    for folder in (model, model.parent):
        steps = checkpoint.steps_in(folder / "checkpoints")
        schedule = read_schedule(folder)
        if steps and schedule is not None:
            path = checkpoint.step_folder(folder / "checkpoints", steps[-1])
            whole = steps[-1] == schedule["steps"] and not checkpoint.problems(path)
            return path if whole else None
    return None
