"""Nemotron: LayerNorm with a gain stored minus one, squared ReLU, partly rotated heads."""

from __future__ import annotations

from typing import Any

from regrow.core.errors import InputError
from regrow.model.adapters.base import (
    HfConfig,
    flag,
    get,
    read_rope,
    shorten,
    write_rope,
    write_shape,
)
from regrow.model.adapters.transformer import (
    check_one_bias_switch,
    check_pairs,
    read_shape,
    transformer_names,
)
from regrow.model.config import ModelConfig

_ACTIVATIONS = ("relu2", "gelu")


class Nemotron:
    """``NemotronForCausalLM``.

    Its config may leave ``num_key_value_heads`` null, from which the stock class cannot be built;
    here null means as many as query heads, and a number is always written. ``head_dim`` is never
    derived where the config gives it: pruned members of the family have 48 heads of 128 on a width
    of 4096. The rotary share is one half where a config is silent.
    """

    family = "nemotron"
    architecture = "NemotronForCausalLM"
    aliases = ()

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        activation = get(hf, "hidden_act", "relu2")
        if activation not in _ACTIVATIONS:
            raise InputError(
                f"hidden_act {shorten(activation)} is not supported for nemotron "
                f"(supported: {', '.join(_ACTIVATIONS)})"
            )
        bias = flag(hf, "attention_bias", False)
        return ModelConfig.model_validate(
            {
                "layout": self.family,
                "norm": "layernorm1p",
                "norm_eps": get(hf, "norm_eps", 1e-5),
                "activation": activation,
                "qkv_bias": bias,
                "output_bias": bias,
                "mlp_bias": flag(hf, "mlp_bias", False),
                "max_positions": get(hf, "max_position_embeddings", 4096),
                "init_std": get(hf, "initializer_range", 0.0134),
                **read_shape(hf),
                **read_rope(hf, fraction=0.5),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            "model_type": self.family,
            "architectures": [self.architecture],
            "hidden_act": config.activation,
            "norm_eps": config.norm_eps,
            "head_dim": config.head_dim,
            "attention_bias": config.qkv_bias,
            "mlp_bias": config.mlp_bias,
            "rope_parameters": {
                **write_rope(config),
                "partial_rotary_factor": config.rotary_fraction,
            },
            **write_shape(config),
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {"norm": "layernorm1p", "qk_norm": False, "sliding_window": None}
        problems = check_pairs(config, self.architecture, expected)
        problems += check_one_bias_switch(config, self.architecture)
        if config.activation not in _ACTIVATIONS:
            problems.append(
                f"{self.architecture} has activation relu2 or gelu only, not {config.activation!r}"
            )
        if config.head_dim and not config.rotary_dim:
            problems.append(
                f"{self.architecture} always rotates: rotary_fraction {config.rotary_fraction} of "
                f"head_dim {config.head_dim} leaves nothing; at least {2 / config.head_dim:g}"
            )
        return problems

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return transformer_names(config)


ADAPTER = Nemotron()
