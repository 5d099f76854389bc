"""Qwen3: llama with a norm over each query and key head and an explicit head size."""

from __future__ import annotations

from typing import Any

from regrow.model.adapters.base import HfConfig, flag
from regrow.model.adapters.transformer import (
    check_gated,
    check_one_bias_switch,
    read_gated,
    read_window,
    transformer_names,
    write_gated,
    write_window,
)
from regrow.model.config import ModelConfig


class Qwen3:
    """``Qwen3ForCausalLM``; a config without ``head_dim`` means 128, whatever its width."""

    family = "qwen3"
    architecture = "Qwen3ForCausalLM"
    aliases = ()

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        bias = flag(hf, "attention_bias", False)
        return ModelConfig.model_validate(
            {
                **read_gated(
                    hf, self.family, max_positions=32768, head_dim=128, missing_kv_heads=32
                ),
                "qk_norm": True,
                "qkv_bias": bias,
                "output_bias": bias,
                "sliding_window": read_window(hf),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            **write_gated(config, self.family, self.architecture),
            "head_dim": config.head_dim,
            "attention_bias": config.qkv_bias,
            **write_window(config),
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {"qk_norm": True, "mlp_bias": False}
        problems = check_gated(config, self.architecture, expected)
        return problems + check_one_bias_switch(config, self.architecture)

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return transformer_names(config)


ADAPTER = Qwen3()
