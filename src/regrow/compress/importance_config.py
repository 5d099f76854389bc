"""Settings of ``importance``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from regrow.core.config import Config
from regrow.train.config import Count


class ImportanceConfig(Config):
    """Score channels, neurons, heads and layers with one forward pass over calibration text."""

    model: Path
    """A run folder with a model, or a Hugging Face folder."""
    shards: Path
    """A run folder of ``tokenize``; calibration text is drawn from its train split."""
    samples: Count = Field(default=512, gt=0)
    """Windows of calibration text."""
    sequence: Count = Field(default=256, gt=0)
    """Tokens of a window."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Source to its share of the windows; by default every source in its natural share."""
    document_mask: bool = False
    """Whether attention and positions stay inside a document."""
    micro_batch: Count = Field(default=8, gt=0)
    """Windows in memory at once; has no influence on the scores beyond rounding."""
    seed: int = Field(default=0, ge=0)
    """Decides which windows are drawn."""
