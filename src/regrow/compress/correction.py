"""Teacher correction: continue the teacher on the distillation data before it teaches.

A teacher whose own training data are not at hand is a worse judge of other data; a short training
on them first gave a student of more than 6 % lower loss. It is a ``continue`` of the teacher, in a
part of the run folder with checkpoints of its own, on the blend of the whole distillation, but on
samples in another order than the student will see. No torch here.

Source: LLM Pruning and Distillation in Practice (arXiv 2408.11796), section 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regrow.compress.distill_config import DistillConfig
from regrow.core.errors import ConfigError
from regrow.core.lineage import TRIALS
from regrow.core.part import run_part
from regrow.core.run import Run
from regrow.train.config import ContinueConfig, ContinueOptimConfig, PhaseConfig
from regrow.train.jobs import continue_
from regrow.train.stage import Stage, read_schedule

#: Where it lies in the run folder, below ``trials/``.
PART = "teacher"
#: Of the teacher's peak learning rate.
LR_SHARE = 0.2
_FIGURES = ("tokens", "steps", "flops", "loss", "losses", "bits_per_byte", "seconds_training")


def correction_config(config: DistillConfig, stage: Stage) -> ContinueConfig:
    """The teacher's training as settings of ``continue``.

    Args:
        config: has a ``teacher_correction``.
        stage: the student's.

    Raises:
        ConfigError: the learning rate is not known, or a budget is impossible.
    """
    wanted = config.teacher_correction
    assert wanted is not None
    total = sum(stage.drawn.values())
    # Rounded: the interleave takes weights as the decimal fractions that they are written as.
    weights = {name: round(tokens / total, 9) for name, tokens in stage.drawn.items()}
    data = config.data.model_copy(
        update={
            "seed": config.data.seed + 1,
            "phases": (PhaseConfig(name="distillation data", weights=weights),),
        }
    )
    train = config.train.model_copy(update={"tokens": wanted.tokens, "batch_ramp": ()})
    warmup = wanted.tokens // 50 if wanted.warmup_tokens == "auto" else wanted.warmup_tokens
    if wanted.tokens < train.batch_tokens:
        raise ConfigError(
            f"teacher_correction.tokens {wanted.tokens} is less than one step of "
            f"train.batch_tokens {train.batch_tokens}"
        )
    optim = ContinueOptimConfig(
        start=_peak(config),
        min_ratio=wanted.min_ratio,
        warmup_tokens=warmup,
        load_state=False,
        betas=config.optim.betas,
        eps=config.optim.eps,
        weight_decay=config.optim.weight_decay,
    )
    shared = ("seed", "eval", "save", "log", "guard", "parallel")
    return ContinueConfig(
        model=config.teacher,
        data=data,
        train=train,
        optim=optim,
        **{key: getattr(config, key) for key in shared},
    )


def _peak(config: DistillConfig) -> float:
    wanted = config.teacher_correction
    assert wanted is not None
    if wanted.lr != "auto":
        return wanted.lr
    record = read_schedule(config.teacher)
    if record is None:
        raise ConfigError(
            f"teacher_correction.lr is auto, but {config.teacher} lies in no run with a "
            "training_schedule.json; set it to about a fifth of the teacher's peak learning rate"
        )
    return LR_SHARE * float(record["lr"])


def correction_plan(settings: ContinueConfig) -> dict[str, Any]:
    """Tokens, steps, FLOPs and rates of the correction.

    Raises:
        ConfigError: whatever would stop it before its first step.
    """
    try:
        made = continue_.plan(settings)
    except ConfigError as error:
        raise ConfigError(f"teacher_correction: {error.message}", error.problems) from error
    return {key: made.figures[key] for key in ("tokens", "steps", "flops", "lr", "min_lr")}


def correct(settings: ContinueConfig, run: Run) -> tuple[Path, dict[str, Any]]:
    """Train the teacher in the run's part, or go on with it, or find it finished.

    Args:
        settings: from :func:`correction_config`.
        run: of the distillation, claimed.

    Returns:
        The corrected teacher's folder; what it took and what it gave.
    """
    part = run.path / TRIALS / PART
    made = run_part(run, part, "continue", settings, continue_.run)
    figures = {key: made[key] for key in _FIGURES if key in made}
    return part / "export", {"run": str(part), **figures}
