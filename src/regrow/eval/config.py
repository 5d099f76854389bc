"""Settings of ``evaluate``; no torch here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from regrow.core.config import Config
from regrow.train.config import Count

_NAME = re.compile(r"^[A-Za-z0-9][\w.\-]*$")


def _named(value: Any) -> Any:
    """A bare model becomes one that is called after its folder."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    folder = path.parent if path.name == "export" else path
    return {folder.name or "model": str(value)}


class DecodeConfig(Config):
    """How the speed of decoding is measured: greedily, one sequence, with the cache."""

    prompt_tokens: Count = Field(default=32, gt=0)
    """Tokens that are read before the first one is made."""
    new_tokens: Count = Field(default=64, gt=1)
    """Tokens that are made in one repeat."""
    repeats: int = Field(default=3, ge=0)
    """How often; the median counts. 0: not measured."""


class SamplesConfig(Config):
    """Text that the models write."""

    prompts: tuple[str, ...] = ("def ", "The ", "import ", "class ")
    """Beginnings that each model continues; none for no samples."""
    new_tokens: Count = Field(default=64, gt=0)
    """Tokens of a continuation, at most."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw from the most likely tokens whose probabilities sum to this."""


class EvaluateConfig(Config):
    """Held-out loss by source, speed of decoding and samples of one or several models."""

    models: Annotated[dict[str, Path], BeforeValidator(_named)] = Field(min_length=1)
    """Name to run folder or Hugging Face folder; a bare path is named after its folder."""
    shards: Path
    """A run folder of ``tokenize``, or its shards folder."""
    split: Literal["validation", "test"] = "test"
    """Which held-out split is scored."""
    max_tokens: Count = Field(default=131_072, gt=0)
    """Held-out tokens of each source, at most."""
    sequence: Count = Field(default=256, gt=0)
    """Tokens of a window; windows do not overlap."""
    batch: Count = Field(default=16, gt=0)
    """Windows in memory at once."""
    document_mask: bool = False
    """Whether attention and positions stay inside a document."""
    baselines: bool = True
    """Whether a unigram and an interpolated bigram are scored on the same targets."""
    baseline_run: Path | None = None
    """A pretraining run: the baselines count the very tokens that it was trained on."""
    baseline_tokens: Count = Field(default=0, ge=0)
    """Training tokens that the baselines count; 0: all of the run, or all of the train split."""
    decode: DecodeConfig = DecodeConfig()
    """Speed of decoding."""
    samples: SamplesConfig = SamplesConfig()
    """Text that the models write."""
    threads: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """CPU threads; auto: the cores that this process may use."""
    seed: int = Field(default=0, ge=0)
    """Of the samples, and of the baselines' order of tokens where there is no run."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.models:
            if not _NAME.match(name):
                raise ValueError(
                    f"models: {name!r} cannot name a file; use letters, digits, '_', '-', '.'"
                )
        for key in ("baseline_run", "baseline_tokens"):
            if not self.baselines and getattr(self, key):
                raise ValueError(f"{key} has no effect with baselines false")
        return self
