"""Settings of ``distill``; no torch here."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from regrow.train.config import OptimConfig, StageConfig


class DistillConfig(StageConfig):
    """Train a smaller model to match the next-token distribution of a larger one."""

    student: Path
    """A run folder with the model to train (of ``prune``), or a Hugging Face folder."""
    teacher: Path
    """The model to match, most often the one that the student was cut from."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and learning rate."""
    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 was best in every published comparison."""
    ce_weight: float = Field(default=0.0, ge=0)
    """Weight of plain cross-entropy beside the divergence; 0 was best."""
