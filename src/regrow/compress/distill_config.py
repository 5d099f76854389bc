"""Settings of ``distill``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.registry import nearest
from regrow.model.divergences import DIVERGENCES
from regrow.train.config import Count, OptimConfig, StageConfig

Layer = Annotated[int, Field(ge=0)]


class HiddenConfig(Config):
    """Hidden states that the student matches beside the logits."""

    pairs: Literal["auto"] | tuple[tuple[Layer, Layer], ...] = "auto"
    """``[[student's layer, teacher's layer], ...]``, counted from 0; ``[]`` for none; auto: the
    third from the end of both where more than a quarter of the layers is gone, else none."""
    embed: bool = True
    """With any pair: whether the outputs of the embeddings are matched too."""
    metric: Literal["cosine", "mse"] = "cosine"
    """Distance: one minus the cosine, or the mean square over channels."""
    alpha: Literal["dynamic"] | Annotated[float, Field(gt=0)] = "dynamic"
    """Weight of the distance; dynamic: as large as the divergence, in each sequence."""


class TeacherCorrectionConfig(Config):
    """Training of the teacher on the distillation data, before the student's."""

    tokens: Count = Field(gt=0)
    """Tokens to train it on; rounded down to whole steps."""
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Peak learning rate; auto: a fifth of the peak of the run that made the teacher."""
    min_ratio: float = Field(default=0.1, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    warmup_tokens: Count | Literal["auto"] = "auto"
    """Tokens over which the rate rises from 0; auto: 2 % of the correction."""


class MatchConfig(StageConfig):
    """Training against a teacher: what is matched, and how."""

    optim: OptimConfig = OptimConfig()
    """Optimiser and learning rate."""
    loss: str = "fkl"
    """Divergence from the teacher: ``fkl`` (forward KL), ``rkl`` (reverse KL) or ``jsd``
    (Jensen-Shannon); forward KL was best."""
    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 was best in every published comparison."""
    jsd_beta: float = Field(default=0.5, gt=0, lt=1)
    """jsd: the teacher's share of the mixture."""
    top_k: Count | None = Field(default=None, gt=0)
    """Compare the teacher's k likeliest ids, and all others as one; none: every id."""
    ce_weight: float = Field(default=0.0, ge=0)
    """Weight of plain cross-entropy beside the divergence; 0 was best."""
    hidden: HiddenConfig = HiddenConfig()
    """Hidden states to match."""
    teacher_dtype: Literal["fp32", "bf16"] = "fp32"
    """What the teacher's weights are kept and multiplied in."""
    allow_padded_vocab: bool = False
    """Whether embeddings of different sizes may stand for one tokenizer; the rows that only one
    side has are then left out."""

    @model_validator(mode="after")
    def _loss_terms(self) -> MatchConfig:
        if self.loss not in DIVERGENCES:
            known = DIVERGENCES.names()
            raise ValueError(
                f"loss {self.loss!r} is unknown{nearest(self.loss, known)} "
                f"(known: {', '.join(known)})"
            )
        if self.loss != "jsd" and self.jsd_beta != type(self).model_fields["jsd_beta"].default:
            raise ValueError(f"jsd_beta has no effect with loss {self.loss}")
        return self


class DistillConfig(MatchConfig):
    """Train a smaller model to match the next-token distribution of a larger one."""

    student: Path
    """A run folder with the model to train (of ``prune``), or a Hugging Face folder."""
    teacher: Path
    """The model to match, most often the one that the student was cut from."""
    teacher_correction: TeacherCorrectionConfig | None = None
    """Continue the teacher on the distillation data first; for a teacher whose own data differ."""
