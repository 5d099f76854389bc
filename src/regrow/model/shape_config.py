"""The shape of a model to be made: a preset, settings, or both; no torch here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.model.config import Activation, ModelConfig, Norm, RopeScaling
from regrow.model.pattern import allocate
from regrow.model.presets import PRESETS

_RATIOS = ("attention_ratio", "mlp_ratio")


class MambaShape(Config):
    """Settings of :class:`regrow.model.config.MambaConfig`; null as in :class:`ShapeConfig`."""

    state: int | None = Field(default=None, gt=0)
    """State channels of each head channel; by default 128."""
    head_dim: int | None = Field(default=None, gt=0)
    """Channels of one head; by default 64."""
    heads: int | None = Field(default=None, gt=0)
    """Heads of one block; by default expand x hidden_size / head_dim."""
    groups: int | None = Field(default=None, gt=0)
    """Groups of heads with matrices of their own; by default 8 or what divides the heads."""
    expand: int | None = Field(default=None, gt=0)
    """Inner width over hidden_size where heads is not given; by default 2."""
    conv: int | None = Field(default=None, gt=0)
    """Tokens that the causal convolution sees; by default 4."""
    chunk: int | None = Field(default=None, gt=0)
    """Tokens that the scan takes at once; by default 64."""
    conv_bias: bool | None = None
    """Bias of the convolution; by default there is one."""
    proj_bias: bool | None = None
    """Bias of the projections; by default there is none."""
    dt_low: float | None = Field(default=None, ge=0)
    """Time steps are raised to this; by default 0."""
    dt_high: float | None = Field(default=None, gt=0)
    """Time steps are cut to this; by default not."""
    dt_min: float | None = Field(default=None, gt=0)
    """Smallest time step at the start; by default 0.001."""
    dt_max: float | None = Field(default=None, gt=0)
    """Largest time step at the start; by default 0.1."""
    dt_floor: float | None = Field(default=None, gt=0)
    """Time steps at the start are raised to this; by default 0.0001."""
    a_min: float | None = Field(default=None, gt=0)
    """Slowest decay rate at the start; by default 1."""
    a_max: float | None = Field(default=None, gt=0)
    """Fastest decay rate at the start; by default 16."""

    def given(self) -> dict[str, Any]:
        """The settings that are not null."""
        return {key: value for key, value in self.as_json().items() if value is not None}


class ShapeConfig(Config):
    """Settings of :class:`regrow.model.config.ModelConfig`; null means the preset's or the derived
    value, so that a resolved config read again means the same.
    """

    preset: str | None = None
    """Name of a published shape that the settings below change."""
    like: Path | None = None
    """A run folder or Hugging Face folder of a model whose shape the settings below change."""
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
    """One symbol a block: ``M`` Mamba-2, ``*`` attention, ``-`` MLP; by default ``*-`` for each
    layer."""
    attention_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of attention among the layers, spread evenly; gives the pattern, with Mamba-2 for
    what neither ratio asks for."""
    mlp_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of MLPs among the layers, spread over those without attention."""
    mamba: MambaShape | None = None
    """Sizes of the Mamba-2 blocks."""
    layout: str | None = None
    """Hugging Face family to export as; by default llama, with Mamba-2 nemotron_h or mamba2."""
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
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that attention looks back on; by default all."""
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
        if self.preset is not None and self.like is not None:
            raise ValueError("give one of preset, like, not both")
        if self.like is not None:
            return self  # it may have yet to be made
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
            InputError: ``like`` is no model.
        """
        names = ShapeConfig.model_fields.keys() - {"preset", "like", "mamba", *_RATIOS}
        given = {key: value for key in names if (value := getattr(self, key)) is not None}
        try:
            if any(getattr(self, key) is not None for key in _RATIOS):
                given["pattern"] = self._allocated(given)
            if self.preset is not None:
                if self.preset not in PRESETS:
                    raise ConfigError(
                        f"model.preset: unknown preset {self.preset!r}"
                        f"{nearest(self.preset, list(PRESETS))} (known: {', '.join(PRESETS)})"
                    )
                return self._changed(PRESETS[self.preset], given)
            if self.like is not None:
                from regrow.model.folder import load_config

                return self._changed(load_config(self.like), given)
            missing = [key for key in ("layers", "hidden_size") if key not in given]
            if missing:
                raise ConfigError(
                    "the model's shape is not known",
                    [
                        f"model.{key}: required, but not set (or give model.preset or model.like)"
                        for key in missing
                    ],
                )
            if self.mamba is not None:
                given["mamba"] = self.mamba.given()
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

    def _allocated(self, given: dict[str, Any]) -> str:
        """The pattern of the ratios; ``layers`` is then its length."""
        if "pattern" in given:
            raise ConfigError(
                "model.pattern: set together with attention_ratio or mlp_ratio, which give the "
                "pattern; leave one out"
            )
        layers = given.get("layers")
        if layers is None and self.preset in PRESETS:
            layers = len(PRESETS[self.preset].pattern)
        if layers is None:
            raise ConfigError("model.layers: required for a pattern from ratios, but not set")
        given["layers"] = layers
        try:
            return allocate(layers, self.attention_ratio or 0.0, self.mlp_ratio or 0.0)
        except ValueError as error:
            raise ConfigError(f"model.{error}") from error

    def _changed(self, preset: ModelConfig, given: dict[str, Any]) -> ModelConfig:
        """A preset with these settings in place of its own."""
        own = self.mamba.given() if self.mamba is not None else {}
        if preset.mamba is not None and "M" in given.get("pattern", "M"):
            sizes = preset.mamba.as_json()
            if "hidden_size" in given or own.keys() & {"expand", "head_dim"}:
                sizes |= {"heads": 0}  # they follow the width unless they are given
            given["mamba"] = sizes | own
        elif own:
            given["mamba"] = own
        return preset.replace(**given)


def _heads(hidden_size: int, head_dim: int | None) -> int:
    return max(1, hidden_size // (head_dim or (64 if hidden_size >= 256 else 32)))


def _lines(error: ValidationError) -> list[str]:
    return [
        ".".join(("model", *map(str, detail["loc"])))
        + ": "
        + str(detail["msg"]).removeprefix("Value error, ")
        for detail in error.errors(include_url=False)
    ]
