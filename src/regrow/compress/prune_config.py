"""Settings of ``prune``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.train.config import Count

Batch = Literal["l2", "mean", "var"]
Axis = Literal["hidden", "mlp", "heads", "layers"]


class ShapeTarget(Config):
    """The shape to cut to; what is not given stays as it is."""

    layers: int | None = Field(default=None, gt=0)
    """Layers that stay: attention+MLP pairs."""
    hidden_size: int | None = Field(default=None, gt=0)
    """Channels of the residual stream that stay."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Neurons that stay in each MLP."""
    heads: int | None = Field(default=None, gt=0)
    """Query heads that stay in each attention block, the same number in every group."""
    kv_heads: int | None = Field(default=None, gt=0)
    """Key/value heads that stay, each with its group of query heads; all by default."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self


class BudgetTarget(Config):
    """How many parameters may stay; the shape is found by itself."""

    parameters: float | None = Field(default=None, gt=0)
    """All parameters; at most 1 is a share of the source's, above it a number."""
    non_embedding_parameters: float | None = Field(default=None, gt=0)
    """Parameters outside embedding and head; at most 1 is a share, above it a number."""
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    """How far a shape may be from the budget, as a share of it."""
    axes: tuple[Axis, ...] = Field(default=("hidden", "mlp"), min_length=1)
    """What may shrink. Attention heads and layers stay by default: heads are few and each matters,
    and at small sizes width costs less than depth (arXiv 2408.11796)."""
    hidden_align: Count = Field(default=0, ge=0)
    """hidden_size is a multiple of this; 0: 64 for models at least 1024 wide, else 16."""
    mlp_align: Count = Field(default=0, ge=0)
    """intermediate_size is a multiple of this; 0: 64 where it is at least 1024, else 16."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [k for k in ("parameters", "non_embedding_parameters") if getattr(self, k)]
        if len(given) != 1:
            named = "both" if given else "none"
            raise ValueError(f"give one of parameters, non_embedding_parameters, not {named}")
        for axis, key in (("hidden", "hidden_align"), ("mlp", "mlp_align")):
            if getattr(self, key) and axis not in self.axes:
                raise ValueError(f"{key} has no effect: axes does not name {axis}")
        return self


class PruneConfig(Config):
    """Cut a model to a shape or to a parameter budget."""

    model: Path
    """A run folder with a model, or a Hugging Face folder."""
    scores: Path | None = None
    """A run folder of ``importance`` over the same model."""
    shape: ShapeTarget | None = None
    """The shape to cut to; either this or ``budget``."""
    budget: BudgetTarget | None = None
    """How many parameters may stay; either this or ``shape``."""
    selection: Literal["importance", "random"] = "importance"
    """What stays: the highest scores, or (to compare with) anything."""
    batch_aggregation: Batch = "l2"
    """How a channel's scores over the calibration windows become one: ``l2``, ``mean``, ``var``."""
    depth_rule: Literal["contiguous", "independent"] = "contiguous"
    """Which layers go: the block of neighbours that changes its input least, or each by itself.
    The first and the last layer always stay."""
    seed: int = Field(default=0, ge=0)
    """Of a random selection."""
    shards: Path | None = None
    """A run folder of ``tokenize``, to score the cut model before any retraining."""
    split: Literal["validation", "test"] = "validation"
    """With ``shards``: which held-out split."""
    max_tokens: Count = Field(default=32_768, gt=0)
    """With ``shards``: held-out tokens of each source, at most."""
    sequence: Count = Field(default=256, gt=0)
    """With ``shards``: tokens of a window."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.shape is None) == (self.budget is None):
            named = "none" if self.shape is None else "both"
            raise ValueError(f"give one of shape, budget, not {named}")
        if self.selection == "importance" and self.scores is None:
            raise ValueError(
                "scores is missing: give a run of importance, or selection=random to do without"
            )
        if self.selection == "random" and self.scores is not None:
            raise ValueError("scores has no effect with selection random; leave one of them out")
        return self
