"""Llama: RMSNorm, SwiGLU, rotary embedding on whole heads, grouped-query attention."""

from __future__ import annotations

from typing import Any

from regrow.model.adapters.base import HfConfig, flag
from regrow.model.adapters.transformer import (
    check_gated,
    check_one_bias_switch,
    read_gated,
    transformer_names,
    write_gated,
)
from regrow.model.config import ModelConfig


class Llama:
    """``LlamaForCausalLM``."""

    family = "llama"
    architecture = "LlamaForCausalLM"
    aliases = ()

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        bias = flag(hf, "attention_bias", False)
        return ModelConfig.model_validate(
            {
                **read_gated(hf, self.family, max_positions=2048),
                "qkv_bias": bias,
                "output_bias": bias,
                "mlp_bias": flag(hf, "mlp_bias", False),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            **write_gated(config, self.family, self.architecture),
            "head_dim": config.head_dim,
            "attention_bias": config.qkv_bias,
            "mlp_bias": config.mlp_bias,
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {"qk_norm": False, "sliding_window": None}
        problems = check_gated(config, self.architecture, expected)
        problems += check_one_bias_switch(config, self.architecture)
        width, heads = config.hidden_size, config.heads
        if heads and width % heads:
            below, above = width // heads * heads, (width // heads + 1) * heads
            legal = f"{below} or {above}" if below else f"{above}"
            problems.append(
                f"{self.architecture} refuses a hidden_size ({width}) that is no multiple of its "
                f"heads ({heads}), even with head_dim given; nearest legal hidden_size: {legal}"
            )
        return problems

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return transformer_names(config)


ADAPTER = Llama()
