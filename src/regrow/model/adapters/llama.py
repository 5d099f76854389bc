"""Llama: RMSNorm, SwiGLU, rotary embedding on whole heads, grouped-query attention."""

from __future__ import annotations

from typing import Any

from regrow.core.errors import InputError
from regrow.model.adapters.base import (
    HfConfig,
    check_transformer,
    get,
    read_ids,
    read_rope,
    require,
    transformer_names,
    write_rope,
    write_shape,
)
from regrow.model.config import ModelConfig


class Llama:
    """``LlamaForCausalLM``."""

    family = "llama"
    architecture = "LlamaForCausalLM"

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        activation = get(hf, "hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise InputError(
                f"hidden_act {activation!r} is not supported for llama (supported: silu)"
            )
        rope = read_rope(hf, fraction=1.0)
        if rope["rotary_fraction"] != 1.0:
            raise InputError(
                f"partial_rotary_factor {rope['rotary_fraction']}: the stock llama class rotates "
                "whole heads; remove the key or set it to 1"
            )
        heads = require(hf, "num_attention_heads")
        bias = get(hf, "attention_bias", False)
        return ModelConfig.model_validate(
            {
                "layout": self.family,
                "layers": require(hf, "num_hidden_layers"),
                "hidden_size": require(hf, "hidden_size"),
                "intermediate_size": require(hf, "intermediate_size"),
                "heads": heads,
                "kv_heads": get(hf, "num_key_value_heads", heads),
                "head_dim": get(hf, "head_dim", 0),
                "vocab_size": require(hf, "vocab_size"),
                "tie_embeddings": get(hf, "tie_word_embeddings", False),
                "norm": "rmsnorm",
                "norm_eps": get(hf, "rms_norm_eps", 1e-6),
                "activation": "swiglu",
                "qkv_bias": bias,
                "output_bias": bias,
                "mlp_bias": get(hf, "mlp_bias", False),
                "max_positions": get(hf, "max_position_embeddings", 2048),
                "init_std": get(hf, "initializer_range", 0.02),
                **rope,
                **read_ids(hf),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            "model_type": self.family,
            "architectures": [self.architecture],
            "hidden_act": "silu",
            "rms_norm_eps": config.norm_eps,
            "rope_parameters": write_rope(config),
            **write_shape(config),
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {
            "norm": "rmsnorm",
            "activation": "swiglu",
            "qk_norm": False,
            "rotary_fraction": 1.0,
        }
        problems = check_transformer(config, self.architecture, expected)
        width, heads = config.hidden_size, config.heads
        if width % heads:
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
