"""Train a smaller model to match the next-token distribution of a larger one.

Source: Minitron (arXiv 2407.14679), section 3: logits only, forward KL, temperature 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.compress.distill_config import DistillConfig
from regrow.core.errors import InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.runs import resolve_model
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import ModelConfig
from regrow.model.shapes import forward_flops_per_token, parameters, weight_bytes
from regrow.train.sources import Sources
from regrow.train.stage import Stage, prepare, record_inputs, run_stage, whole_tokens


@dataclass(frozen=True, slots=True)
class _Pair:
    """Student and teacher, checked against each other, and the student's stage."""

    student: Path
    teacher: Path
    teacher_config: ModelConfig
    stage: Stage

    @property
    def teacher_flops(self) -> int:
        """FLOPs of the teacher's forward passes over the whole stage."""
        sequence = self.stage.config.data.sequence
        return self.stage.tokens * forward_flops_per_token(self.teacher_config, sequence)


def _prepare(config: DistillConfig) -> _Pair:
    from regrow.model.folder import load_config

    student, teacher = resolve_model(config.student), resolve_model(config.teacher)
    shape, teacher_shape = load_config(student), load_config(teacher)
    _check_vocabularies((student, shape), (teacher, teacher_shape))
    if config.data.sequence > teacher_shape.max_positions:
        raise InputError(
            f"data.sequence {config.data.sequence} is more than the teacher's max_positions "
            f"{teacher_shape.max_positions}"
        )
    sources = Sources.open(config.data, config.eval.split)
    own = student / "tokenizer.json"
    path = own if own.is_file() else sources.find_tokenizer(None)
    schedule = config.optim.resolve(whole_tokens(config))
    return _Pair(student, teacher, teacher_shape, prepare(config, shape, sources, schedule, path))


def _check_vocabularies(
    student: tuple[Path, ModelConfig], teacher: tuple[Path, ModelConfig]
) -> None:
    """Both must mean the same by an id, or the divergence between them means nothing.

    Raises:
        InputError: embeddings of different sizes, or different tokenizers.
    """
    sizes = [config.vocab_size for _, config in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"vocab_size: student {student[0]} has {sizes[0]}, teacher {teacher[0]} has "
            f"{sizes[1]}; distillation needs one vocabulary"
        )
    paths = [folder / "tokenizer.json" for folder, _ in (student, teacher)]
    if all(path.is_file() for path in paths):
        hashes = [Tokenizer.load(path).sha256 for path in paths]
        if hashes[0] != hashes[1]:
            raise InputError(
                f"tokenizer: student {student[0]} has {hashes[0][:12]}, teacher {teacher[0]} has "
                f"{hashes[1][:12]}; distillation needs one vocabulary"
            )


def plan(config: DistillConfig) -> Plan:
    """Tokens, steps, FLOPs of student and teacher, phases, bytes.

    Raises:
        ConfigError, InputError: whatever would stop the run before its first step.
    """
    pair = _prepare(config)
    made = pair.stage.plan("distill")
    figures = {
        **made.figures,
        "flops": pair.stage.flops + pair.teacher_flops,
        "teacher_flops": pair.teacher_flops,
        "teacher_parameters": parameters(pair.teacher_config),
        "teacher_weight_bytes": weight_bytes(pair.teacher_config, 4),
    }
    return Plan(made.title, figures, made.notes)


def run(config: DistillConfig, run: Run) -> dict[str, Any]:
    """Train the student to the end of the budget; it lies in ``export/``.

    Returns:
        As of pretrain; ``flops`` counts the teacher's forward passes, which ``teacher_flops``
        gives apart.
    """
    import torch

    from regrow.model.folder import load
    from regrow.train.device import resolve_device
    from regrow.train.jobs.continue_ import check_finite
    from regrow.train.objectives.distillation import Distillation
    from regrow.train.parallel import spread

    pair = _prepare(config)
    run.input(pair.student, "student")
    run.input(pair.teacher, "teacher")
    record_inputs(pair.stage, run)
    student = load(pair.student, dtype=torch.float32)
    teacher = load(pair.teacher, dtype=torch.float32)
    check_finite(student, pair.student)
    check_finite(teacher, pair.teacher)
    device = resolve_device(config.train.device)
    sharding = spread(student, config.parallel.tp, device)
    # Every process holds the whole teacher; only the student is shared.
    objective = Distillation(student, teacher.to(device), config.temperature, config.ce_weight)
    figures = run_stage(pair.stage, objective, run, "distill", sharding=sharding)
    return {
        **figures,
        "flops": figures["flops"] + pair.teacher_flops,
        "teacher_flops": pair.teacher_flops,
        "teacher_parameters": parameters(pair.teacher_config),
    }
