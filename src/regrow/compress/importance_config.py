"""Settings of ``importance``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.hardware import memory_bytes
from regrow.model.config import ModelConfig
from regrow.model.shapes import weight_bytes
from regrow.train.config import Count

#: How a channel's values over the tokens of a window become one number: the mean of the absolute
#: value, the root of the sum of squares, the variance.
SequenceAggregation = Literal["mean", "l2", "var"]
#: How a channel's numbers over the windows become one score.
BatchAggregation = Literal["l2", "mean", "var"]
#: Where neurons are scored: what the down projection reads, or what the activation function reads.
NeuronSite = Literal["post_act", "pre_act"]


class ImportanceConfig(Config):
    """Score channels, neurons, heads and layers with one forward pass over calibration text."""

    spreading: ClassVar[tuple[str, ...]] = ("streamed",)

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
    sequence_aggregations: tuple[SequenceAggregation, ...] = Field(default=("mean",), min_length=1)
    """What is gathered over the tokens of a window, and can be chosen when the model is cut:
    ``mean`` (of the absolute value), ``l2``, ``var``. Each one more costs time."""
    neuron_site: NeuronSite = "post_act"
    """Where MLP neurons are scored: ``post_act``, what the down projection reads, or ``pre_act``,
    what the activation function reads (of a gated MLP: the gate projection's output)."""
    document_mask: bool = False
    """Whether attention and positions stay inside a document."""
    micro_batch: Count = Field(default=8, gt=0)
    """Windows in memory at once; has no influence on the scores beyond rounding."""
    streamed: bool | Literal["auto"] = "auto"
    """Whether one block's weights are in memory at a time, on the CPU, which takes as many windows
    at once as there is room for; auto: where all weights in fp32 are more than the memory."""
    seed: int = Field(default=0, ge=0)
    """Decides which windows are drawn."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.sequence_aggregations)) != len(self.sequence_aggregations):
            raise ValueError("sequence_aggregations names one twice")
        return self


def is_streamed(config: ImportanceConfig, model: ModelConfig) -> bool:
    """Whether the pass reads one block at a time: as set, or where the weights would not fit."""
    if isinstance(config.streamed, bool):
        return config.streamed
    return weight_bytes(model, 4) > memory_bytes()
