"""Train a smaller model to match the next-token distribution of a larger one.

Source: Minitron (arXiv 2407.14679), section 3: logits only, forward KL, temperature 1; the
correction of the teacher is of its practice report (arXiv 2408.11796), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.compress.correction import correct, correction_config, correction_plan
from regrow.compress.distill_config import DistillConfig, MatchConfig
from regrow.compress.source import source_model
from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import ModelConfig
from regrow.model.shapes import forward_flops_per_token, parameters, weight_bytes
from regrow.train.sketch import sketch
from regrow.train.sources import Sources
from regrow.train.stage import (
    Stage,
    prepare,
    record_inputs,
    run_stage,
    weights_sha256,
    whole_tokens,
)

if TYPE_CHECKING:
    from torch import nn

    from regrow.model.decoder import Decoder
    from regrow.train.objectives.distillation import Distillation
    from regrow.train.objectives.hidden_match import HiddenMatch

RECORD = "compress.json"
_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Pair:
    """Student and teacher, checked against each other, and the student's stage.

    ``missing`` names those that are presets: there is a plan then, but no training.
    """

    student: Path
    teacher: Path
    teacher_config: ModelConfig
    stage: Stage
    vocabulary: int | None
    hidden: HiddenMatch | None
    missing: tuple[str, ...] = ()

    @property
    def teacher_flops(self) -> int:
        """FLOPs that only teaching costs: the teacher's forward passes, and the map of the
        student's hidden states, forward and backward."""
        sequence = self.stage.config.data.sequence
        each = forward_flops_per_token(self.teacher_config, sequence)
        if self.hidden is not None:
            widths = self.stage.model.hidden_size * self.teacher_config.hidden_size
            each += 6 * len(self.hidden.places) * widths
        return self.stage.tokens * each


def prepare_pair(config: DistillConfig) -> Pair:
    """Student and teacher, checked against each other and against the text.

    Raises:
        ConfigError, InputError: whatever would stop the training before its first step.
    """
    student_model, teacher_model = source_model(config.student), source_model(config.teacher)
    shape, teacher_shape = student_model.config, teacher_model.config
    student = student_model.place or config.student
    teacher = teacher_model.place or config.teacher
    missing = (*student_model.missing, *teacher_model.missing)
    vocabulary = _common_vocabulary(
        (student, shape), (teacher, teacher_shape), config.allow_padded_vocab
    )
    ids = vocabulary or shape.vocab_size
    if config.top_k is not None and config.top_k > ids:
        raise ConfigError(
            f"top_k: {config.top_k} of {ids} ids; leave it out to compare every id, or use less"
        )
    if config.data.sequence > teacher_shape.max_positions:
        raise InputError(
            f"data.sequence {config.data.sequence} is more than the teacher's max_positions "
            f"{teacher_shape.max_positions}"
        )
    hidden = hidden_match(config, shape, teacher_shape)
    schedule = config.optim.resolve(whole_tokens(config))
    if missing and not config.data.shards.exists():
        stage = sketch(config, shape, schedule)
    else:
        sources = Sources.open(config.data, config.eval.split)
        own = student / "tokenizer.json"
        path = own if own.is_file() else sources.find_tokenizer(None)
        stage = prepare(config, shape, sources, schedule, path)
    return Pair(student, teacher, teacher_shape, stage, vocabulary, hidden, missing)


def _common_vocabulary(
    student: tuple[Path, ModelConfig], teacher: tuple[Path, ModelConfig], padded: bool
) -> int | None:
    """Ids that both have, where their matrices differ in rows; None where they do not.

    Both must mean the same by an id, or the divergence between them means nothing.

    Raises:
        InputError: different tokenizers, or matrices of different sizes that may not be.
    """
    paths = [folder / "tokenizer.json" for folder, _ in (student, teacher)]
    tokenizers = [Tokenizer.load(path) if path.is_file() else None for path in paths]
    ours, theirs = tokenizers
    if ours is not None and theirs is not None and ours.sha256 != theirs.sha256:
        raise InputError(
            f"tokenizer: student {student[0]} has {ours.sha256[:12]}, teacher {teacher[0]} has "
            f"{theirs.sha256[:12]}; distillation needs one vocabulary"
        )
    sizes = [config.vocab_size for _, config in (student, teacher)]
    if sizes[0] == sizes[1]:
        return None
    differ = f"vocab_size: student {student[0]} has {sizes[0]}, teacher {teacher[0]} has {sizes[1]}"
    used = ours.vocab_size if ours is not None and theirs is not None else None
    if used is None:
        raise InputError(
            f"{differ}; distillation needs one vocabulary, and without a tokenizer.json beside "
            "both it is not known whether the larger one is padded"
        )
    if used > min(sizes):
        raise InputError(
            f"{differ}, but their tokenizer has {used} ids; the smaller one lacks some"
        )
    if not padded:
        raise InputError(
            f"{differ}; distillation needs one vocabulary. Their tokenizer is the same and has "
            f"{used} ids, so the other rows are padding: set allow_padded_vocab=true to leave out "
            f"those behind {min(sizes)}"
        )
    return min(sizes)


def hidden_match(
    config: MatchConfig, student: ModelConfig, teacher: ModelConfig
) -> HiddenMatch | None:
    """The hidden states to compare; None for none.

    Raises:
        ConfigError: a layer that is not there.
    """
    from regrow.train.objectives.hidden_match import HiddenMatch, automatic_pairs

    wanted = config.hidden
    if wanted.pairs == "auto":
        pairs = automatic_pairs(student.layers, teacher.layers)
    else:
        pairs = wanted.pairs
    problems = [
        f"hidden.pairs.{index}: {who} layer {pair[side]} is not there; it has 0 to {layers - 1}"
        for index, pair in enumerate(pairs)
        for side, (who, layers) in enumerate(
            (("student", student.layers), ("teacher", teacher.layers))
        )
        if pair[side] >= layers
    ]
    if problems:
        raise ConfigError("hidden states of layers that do not exist", problems)
    if not pairs:
        return None
    return HiddenMatch(pairs, wanted.embed, wanted.metric, wanted.alpha)


def terms(config: DistillConfig, hidden: HiddenMatch | None, vocabulary: int | None) -> Any:
    """What the loss is made of, for the plan and the result."""
    return {
        "divergence": config.loss,
        **({"beta": config.jsd_beta} if config.loss == "jsd" else {}),
        "temperature": config.temperature,
        "top_k": config.top_k,
        "ce_weight": config.ce_weight,
        "hidden": asdict(hidden) if hidden is not None else None,
        "teacher_dtype": config.teacher_dtype,
        **({"vocabulary": vocabulary} if vocabulary is not None else {}),
    }


def _notes(config: DistillConfig, pair: Pair) -> list[str]:
    layers = f"{pair.stage.model.layers} of {pair.teacher_config.layers} layers"
    notes = []
    if pair.hidden is not None:
        shown = ", ".join(f"{ours} to {theirs}" for ours, theirs in pair.hidden.pairs)
        why = f" ({layers} are left)" if config.hidden.pairs == "auto" else ""
        embed = " and of the embeddings" if pair.hidden.embed else ""
        notes.append(f"hidden states are matched: student's layer {shown}{embed}{why}")
    if config.top_k is not None and config.top_k <= 100:
        notes.append(f"top_k {config.top_k}: at most 100 was clearly worse than every id")
    if config.teacher_correction is not None:
        notes.append("the teacher is corrected first; its tokens and FLOPs are told apart")
    return notes


def plan(config: DistillConfig) -> Plan:
    """Tokens, steps, FLOPs of student and teacher, what the loss is made of, phases, bytes.

    Raises:
        ConfigError, InputError: whatever would stop the run before its first step.
    """
    pair = prepare_pair(config)
    made = pair.stage.plan("distill")
    figures = {
        **made.figures,
        "flops": pair.stage.flops + pair.teacher_flops,
        "teacher_flops": pair.teacher_flops,
        "teacher_parameters": parameters(pair.teacher_config),
        "teacher_weight_bytes": weight_bytes(pair.teacher_config, _BYTES[config.teacher_dtype]),
        "distillation": terms(config, pair.hidden, pair.vocabulary),
    }
    if config.teacher_correction is not None:
        figures["teacher_correction"] = correction_plan(correction_config(config, pair.stage))
    notes = [*_notes(config, pair), *made.notes, *(f"plan only: {m}" for m in pair.missing)]
    return Plan(made.title, figures, tuple(notes), (*pair.missing, *made.missing))


def run(config: DistillConfig, run: Run) -> dict[str, Any]:
    """Train the student to the end of the budget; it lies in ``export/``.

    Returns:
        As of pretrain; ``flops`` counts the teacher's forward passes, which ``teacher_flops``
        gives apart. ``distillation`` says what the loss was made of; ``teacher_correction``, where
        the teacher was corrected, what that took (not in ``flops``) and gave.
    """
    import torch

    from regrow.model.folder import load
    from regrow.train.device import resolve_device
    from regrow.train.jobs.continue_ import check_finite
    from regrow.train.parallel import spread

    pair = prepare_pair(config)
    run.input(pair.student, "student")
    run.input(pair.teacher, "teacher")
    record_inputs(pair.stage, run)
    corrected: Mapping[str, Any] = {}
    teacher_folder = pair.teacher
    if config.teacher_correction is not None:
        teacher_folder, corrected = correct(correction_config(config, pair.stage), run)
    student = load(pair.student, dtype=torch.float32)
    check_finite(student, pair.student)
    teacher = load_teacher(teacher_folder, config.teacher_dtype)
    match_widths(config, pair, student)
    device = resolve_device(config.train.device)
    sharding = spread(student, config.parallel.tp, device)
    # Every process holds the whole teacher; only the student is shared.
    objective = objective_of(config, pair, student, teacher.to(device))
    figures = run_stage(pair.stage, objective, run, "distill", sharding=sharding)
    return {
        **figures,
        "flops": figures["flops"] + pair.teacher_flops,
        "teacher_flops": pair.teacher_flops,
        "teacher_parameters": parameters(pair.teacher_config),
        "distillation": terms(config, pair.hidden, pair.vocabulary),
        **({"teacher_correction": corrected} if corrected else {}),
    }


def load_teacher(folder: Path, dtype: str) -> Decoder:
    """A teacher in the precision that it is kept in.

    Raises:
        InputError: weights that are not finite.
    """
    import torch

    from regrow.model.folder import load
    from regrow.train.jobs.continue_ import check_finite

    teacher = load(folder, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    check_finite(teacher, folder)
    return teacher


def match_widths(config: DistillConfig, pair: Pair, student: Decoder) -> None:
    """Give the student its map to the teacher's width, where hidden states are matched."""
    from regrow.train.objectives.hidden_match import add_map

    if pair.hidden is not None:
        add_map(student, pair.teacher_config.hidden_size, config.seed, _kept_channels(pair))


def objective_of(
    config: DistillConfig, pair: Pair, student: nn.Module, teacher: nn.Module
) -> Distillation:
    """The objective of a student and a teacher, both on their device.

    Args:
        config: what is matched.
        pair: of the same settings.
        student: has the map of :func:`match_widths`.
        teacher: a decoder, or what has its ``hidden``, ``head`` and ``config``.
    """
    from regrow.train.objectives.distillation import Distillation

    return Distillation(
        student,
        teacher,
        config.temperature,
        config.ce_weight,
        divergence=config.loss,
        beta=config.jsd_beta,
        top_k=config.top_k,
        vocabulary=pair.vocabulary,
        hidden=pair.hidden,
    )


def _kept_channels(pair: Pair) -> list[int] | None:
    """The teacher's channel of each of the student's, where one was cut from the other."""
    path = pair.student / RECORD
    if not path.is_file():
        return None
    record = atomic.read_json(path)
    kept = record.get("kept", {}).get("hidden")
    if kept is None or len(kept) != pair.stage.model.hidden_size:
        return None
    own = record.get("source_sha256") == weights_sha256(pair.teacher)
    return [int(channel) for channel in kept] if own else None
