"""Settings of ``prune``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from regrow.compress.depth_config import DepthConfig, Metric
from regrow.compress.importance_config import BatchAggregation, SequenceAggregation
from regrow.core.config import Config
from regrow.train.config import Count

Axis = Literal["hidden", "mlp", "heads", "kv_heads", "mamba_heads", "mamba_head_dim", "layers"]
BUDGETS = ("parameters", "non_embedding_parameters", "memory_mb", "latency_ms")


class ShapeTarget(Config):
    """The shape to cut to; what is not given stays as it is."""

    layers: int | None = Field(default=None, gt=0)
    """Layers that stay: attention+MLP pairs of a transformer, blocks of any other stack."""
    hidden_size: int | None = Field(default=None, gt=0)
    """Channels of the residual stream that stay."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Neurons that stay in each MLP."""
    heads: int | None = Field(default=None, gt=0)
    """Query heads that stay in each attention block, the same number in every group."""
    kv_heads: int | None = Field(default=None, gt=0)
    """Key/value heads that stay, each with its group of query heads; all by default."""
    mamba_heads: int | None = Field(default=None, gt=0)
    """Heads that stay in each Mamba-2 block, the same number in every group."""
    mamba_head_dim: int | None = Field(default=None, gt=0)
    """Channels that stay in each head of a Mamba-2 block, the same ones in all its heads."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self


class BudgetTarget(Config):
    """What may stay; the shape is found by itself, and all bounds that are given hold."""

    parameters: float | None = Field(default=None, gt=0)
    """All parameters; at most 1 is a share of the source's, above it a number."""
    non_embedding_parameters: float | None = Field(default=None, gt=0)
    """Parameters outside embedding and head; at most 1 is a share, above it a number."""
    memory_mb: float | None = Field(default=None, gt=0)
    """Weights, keys and values and Mamba-2 states at ``sequence``, ``batch`` and ``dtype``, in MB
    (10^6 bytes) at most."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Milliseconds at most of what ``latency`` says, measured on this machine."""
    latency: Literal["decode", "prefill"] = "decode"
    """What ``latency_ms`` is of: ``decode``, the next token of ``batch`` sequences that hold
    ``sequence`` tokens each; ``prefill``, reading ``batch`` prompts of ``sequence`` tokens."""
    sequence: Count = Field(default=0, ge=0)
    """Of memory and latency: tokens of a sequence; 0: 4096, or the model's max_positions."""
    batch: Count = Field(default=1, gt=0)
    """Of memory and latency: sequences at once."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Of memory and latency: of weights, keys and values. Mamba-2 states are fp32."""
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    """How far a shape may be from a number of parameters, as a share of it. Memory and latency are
    never exceeded; where only they are given, how far below the nearest of them a shape may stay.
    """
    axes: tuple[Axis, ...] = Field(default=("hidden", "mlp"), min_length=1)
    """What may shrink. Attention heads and layers stay by default: heads are few and each matters,
    and at small sizes width costs less than depth (arXiv 2408.11796)."""
    hidden_align: Count = Field(default=0, ge=0)
    """hidden_size is a multiple of this; 0: 128 from a width of 2048, 64 from 1024, else 16."""
    mlp_align: Count = Field(default=0, ge=0)
    """intermediate_size is a multiple of this; 0: 256 from 4096, 64 from 1024, else 16."""
    max_width_cut: float = Field(default=0.75, gt=0, lt=1)
    """Most that may go of hidden_size, intermediate_size and heads of any kind, as a share of
    each; published children lost up to 0.63 of one, 0.4 is what later guides search."""
    max_depth_cut: float = Field(default=0.5, gt=0, lt=1)
    """Most of the layers that may go, as a share; published: 0.5, later guides search 0.2."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(getattr(self, key) for key in BUDGETS):
            raise ValueError(f"give at least one of {', '.join(BUDGETS)}")
        for axis, key in (("hidden", "hidden_align"), ("mlp", "mlp_align")):
            if getattr(self, key) and axis not in self.axes:
                raise ValueError(f"{key} has no effect: axes does not name {axis}")
        if len(set(self.axes)) != len(self.axes):
            raise ValueError("axes names one twice")
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
    """What the child may take, from which its shape is found; either this or ``shape``."""
    selection: Literal["importance", "random"] = "importance"
    """What stays: the highest scores, or (to compare with) anything."""
    sequence_aggregation: SequenceAggregation = "mean"
    """How a channel's values over the tokens of a window become one: ``mean`` (of the absolute
    value), ``l2``, ``var``; the scores must have been gathered with it."""
    batch_aggregation: BatchAggregation = "l2"
    """How a channel's scores over the calibration windows become one: ``l2``, ``mean``, ``var``."""
    depth: DepthConfig = DepthConfig()
    """Which layers go where some have to."""
    head_merge: Literal["none", "residual"] = "none"
    """Whether query heads that stay take up what those that go knew: ``residual`` adds to each of
    the least ranked ones its difference to one that goes (arXiv 2407.14679, section 2.3); at least
    half of every group must stay then."""
    seed: int = Field(default=0, ge=0)
    """Of a random selection."""
    shards: Path | None = None
    """A run folder of ``tokenize``: its held-out split scores the cut model before any retraining,
    its train split is what layers are tried on (``depth.metric`` ppl)."""
    split: Literal["validation", "test"] = "validation"
    """With ``shards``: which held-out split."""
    max_tokens: Count = Field(default=32_768, gt=0)
    """With ``shards``: held-out tokens of each source, at most."""
    sequence: Count = Field(default=256, gt=0)
    """With ``shards``: tokens of a window."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        drops = bool(self.depth.drop)
        if self.budget is not None and (self.shape is not None or drops):
            other = "shape" if self.shape is not None else "depth.drop"
            raise ValueError(f"give one of budget, {other}, not both")
        if self.budget is None and self.shape is None and not drops:
            raise ValueError("give one of shape, budget (or depth.drop), not none")
        if drops and self.shape is not None and self.shape.layers is not None:
            raise ValueError("shape.layers and depth.drop say the same; leave one of them out")
        if self.depth.metric == "ppl" and self.shards is None:
            raise ValueError("depth.metric ppl needs text to measure on: give shards")
        if self.selection == "importance" and self.scores is None and self.needs_scores:
            raise ValueError(
                "scores is missing: give a run of importance, or selection=random to do without"
            )
        if self.selection == "random":
            self._check_random()
        return self

    def _check_random(self) -> None:
        told = "has no effect with selection random; leave one of them out"
        if self.scores is not None:
            raise ValueError(f"scores {told}")
        if self.depth.metric != "auto" or self.depth.task is not None:
            raise ValueError(f"depth.metric {told}")
        if self.head_merge != "none":
            raise ValueError(f"head_merge {told}")

    @property
    def depth_metric(self) -> Metric:
        """What layers are compared by."""
        return self.depth.measured_by(self.shards is not None)

    @property
    def needs_scores(self) -> bool:
        """Whether something is chosen by activations: width, or layers by block influence."""
        if self.budget is not None:
            return True
        given = self.shape.model_dump(exclude_none=True) if self.shape is not None else {}
        wide = bool(given.keys() - {"layers"})
        return wide or ("layers" in given and self.depth_metric == "bi")
