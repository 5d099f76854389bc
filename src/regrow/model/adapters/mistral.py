"""Mistral: llama without biases, with an explicit head size and a sliding window."""

from __future__ import annotations

from typing import Any

from regrow.model.adapters.base import HfConfig, count
from regrow.model.adapters.transformer import (
    check_gated,
    read_gated,
    read_kinds,
    transformer_names,
    write_gated,
)
from regrow.model.config import ModelConfig


class Mistral:
    """``MistralForCausalLM``.

    A config without the key ``sliding_window`` means 4096, one with null means none: the two are
    not the same. The window holds for every layer.
    """

    family = "mistral"
    architecture = "MistralForCausalLM"
    aliases = ()

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        slides = hf.get("sliding_window", 4096) is not None
        window = count(hf, "sliding_window", 4096) if slides else None
        read_kinds(hf, window)
        return ModelConfig.model_validate(
            {
                **read_gated(hf, self.family, max_positions=4096 * 32, missing_kv_heads=8),
                "sliding_window": window,
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            **write_gated(config, self.family, self.architecture),
            "head_dim": config.head_dim,
            "sliding_window": config.sliding_window,
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {"qk_norm": False, "qkv_bias": False, "output_bias": False, "mlp_bias": False}
        return check_gated(config, self.architecture, expected)

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return transformer_names(config)


ADAPTER = Mistral()
