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
from regrow.train.config import ContinueConfig
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


def _stage(config: ContinueConfig) -> Stage:
    from regrow.model.folder import load_config

    folder = resolve_model(config.model)
    sources = Sources.open(config.data, config.eval.split)
    schedule = config.optim.resolve(whole_tokens(config), start_lr(config))
    tokenizer = folder / "tokenizer.json"
    return prepare(
        config, load_config(folder), sources, schedule, tokenizer if tokenizer.is_file() else None
    )


def plan(config: ContinueConfig) -> Plan:
    """Tokens, steps, FLOPs, where the rate starts and ends, where the blend changes.

    Raises:
        ConfigError, InputError: whatever would stop the run before its first step.
    """
    stage = _stage(config)
    origin = "last of its pretraining" if config.optim.start == "pretrain_min" else "given"
    notes = (f"learning rate {stage.schedule.lr:g} at the start ({origin})",)
    return stage.plan("continue", notes)


def run(config: ContinueConfig, run: Run) -> dict[str, Any]:
    """Train the loaded model to the end of the budget; the model lies in ``export/``."""
    import torch

    from regrow.model.folder import load
    from regrow.train.device import resolve_device
    from regrow.train.objectives.next_token import NextToken

    stage = _stage(config)
    folder = run.input(resolve_model(config.model), "model")
    record_inputs(stage, run)
    model = load(folder, dtype=torch.float32)
    check_finite(model, folder)
    objective = NextToken(model.to(resolve_device(config.train.device)))
    return run_stage(stage, objective, run, "continue", _state_loader(config, run))


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
        from regrow.train.optimiser import load_optimiser_state

        try:
            path = _pretraining_checkpoint(config.model)
            if path is None:
                raise CheckpointError(f"{config.model} lies in no run that keeps a checkpoint")
            state = checkpoint.load(path)
            load_optimiser_state(trainer.optimiser, trainer.module, state.optimizer)
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
