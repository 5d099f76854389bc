"""The shape of a model to be made: a preset, settings, or both; no torch here."""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.model.config import Activation, ModelConfig, Norm, RopeScaling
from regrow.model.presets import PRESETS


class ShapeConfig(Config):
    """Settings of :class:`regrow.model.config.ModelConfig`; null means the preset's or the derived
    value, so that a resolved config read again means the same.
    """

    preset: str | None = None
    """Name of a published shape that the settings below change."""
    layers: int | None = Field(default=None, gt=0)
    """Attention+MLP pairs; for any other pattern, its length."""
    hidden_size: int | None = Field(default=None, gt=0)
    """Width of the residual stream."""
    heads: int | None = Field(default=None, gt=0)
    """Query heads; by default as many as make heads of 64 channels, 32 below a width of 256."""
    vocab_size: int | None = Field(default=None, gt=0)
    """Rows of the embedding; by default the vocabulary of the shards."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width inside each MLP; by default 4 x hidden; if gated, 8/3 x hidden rounded up to 64."""
    kv_heads: int | None = Field(default=None, gt=0)
    """Key/value heads; by default as many as heads."""
    head_dim: int | None = Field(default=None, gt=0)
    """Channels of one head; by default hidden_size / heads."""
    tie_embeddings: bool | None = None
    """Whether the output head is the embedding matrix; by default not."""
    pattern: str | None = None
    """One symbol a block: ``*`` attention, ``-`` MLP; by default ``*-`` for each layer."""
    layout: str | None = None
    """Hugging Face family to export as; by default llama."""
    norm: Norm | None = None
    """Kind of norm; by default the layout's."""
    norm_eps: float | None = Field(default=None, gt=0)
    """Added to the variance inside each norm."""
    activation: Activation | None = None
    """Activation of the MLP; by default the layout's."""
    qkv_bias: bool | None = None
    """Bias in the query, key and value projections."""
    output_bias: bool | None = None
    """Bias in attention's output projection."""
    mlp_bias: bool | None = None
    """Bias in the MLP's projections."""
    qk_norm: bool | None = None
    """RMSNorm over each query and key head before the rotation."""
    rope_theta: float | None = Field(default=None, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """Stretching of the rotary frequencies."""
    rotary_fraction: float | None = Field(default=None, ge=0, le=1)
    """Share of each head's channels that is rotated; by default the layout's."""
    max_positions: int | None = Field(default=None, gt=0)
    """Longest sequence; by default 4096, or the training sequence when that is longer."""
    init_std: float | None = Field(default=None, gt=0)
    """Standard deviation of the initial weights; by default the layout's, or 0.6 / sqrt(width)
    where that is more: below a width of 900 the usual 0.02 starves the residual stream at first."""
    bos_id: int | None = Field(default=None, ge=0)
    """Id that opens a text; by default the tokenizer's."""
    eos_id: int | None = Field(default=None, ge=0)
    """Id that ends a document; by default the tokenizer's."""
    extra_eos_ids: tuple[int, ...] | None = None
    """Further ids that end an answer."""
    pad_id: int | None = Field(default=None, ge=0)
    """Id of padding."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse an impossible shape while the settings are read, not once the shards are open."""
        if self.preset is None and (self.layers is None or self.hidden_size is None):
            return self  # resolve() names what is missing
        try:
            self.resolve(vocab_size=1 << 24, sequence=1)
        except ConfigError as error:
            lines = error.problems or (error.message,)
            raise ValueError(
                "; ".join(line.removeprefix("model: ").removeprefix("model.") for line in lines)
            ) from None
        return self

    def resolve(
        self,
        vocab_size: int,
        sequence: int,
        bos_id: int | None = None,
        eos_id: int | None = None,
    ) -> ModelConfig:
        """The whole shape.

        Args:
            vocab_size: of the shards, where the settings name none.
            sequence: the training sequence in tokens.
            bos_id: the tokenizer's, where the settings name none.
            eos_id: likewise.

        Raises:
            ConfigError: an unknown preset, a required setting missing, or an impossible shape.
        """
        given = {key: getattr(self, key) for key in type(self).model_fields if key != "preset"}
        given = {key: value for key, value in given.items() if value is not None}
        try:
            if self.preset is not None:
                if self.preset not in PRESETS:
                    raise ConfigError(
                        f"model.preset: unknown preset {self.preset!r}"
                        f"{nearest(self.preset, list(PRESETS))} (known: {', '.join(PRESETS)})"
                    )
                return PRESETS[self.preset].replace(**given)
            missing = [key for key in ("layers", "hidden_size") if key not in given]
            if missing:
                raise ConfigError(
                    "the model's shape is not known",
                    [
                        f"model.{key}: required, but not set (or give model.preset)"
                        for key in missing
                    ],
                )
            defaults: dict[str, Any] = {
                "vocab_size": vocab_size,
                "heads": _heads(given["hidden_size"], given.get("head_dim")),
                "max_positions": max(sequence, ModelConfig.model_fields["max_positions"].default),
                "bos_id": bos_id,
                "eos_id": eos_id,
            }
            model = ModelConfig(**(defaults | given))
            # At width 128 after 300,000 tokens: 2.61 bits per byte with 0.02, 2.44 with 0.05.
            wide_enough = max(model.init_std, round(0.6 / math.sqrt(model.hidden_size), 4))
            return model if "init_std" in given else model.replace(init_std=wide_enough)
        except ValidationError as error:
            raise ConfigError("the model's shape is impossible", _lines(error)) from error


def _heads(hidden_size: int, head_dim: int | None) -> int:
    return max(1, hidden_size // (head_dim or (64 if hidden_size >= 256 else 32)))


def _lines(error: ValidationError) -> list[str]:
    return [
        ".".join(("model", *map(str, detail["loc"])))
        + ": "
        + str(detail["msg"]).removeprefix("Value error, ")
        for detail in error.errors(include_url=False)
    ]
