"""Nemotron-H: Mamba-2, attention without position encoding, and MLPs in any order."""

from __future__ import annotations

from typing import Any

from regrow.core.errors import InputError
from regrow.model.adapters.base import (
    HfConfig,
    check_settings,
    count,
    flag,
    get,
    read_ids,
    require,
    shorten,
    words,
    write_shape,
)
from regrow.model.adapters.recurrent import (
    read_number,
    read_silu,
    recurrent_names,
    write_limits,
    write_mamba,
)
from regrow.model.config import MambaConfig, ModelConfig

_ACTIVATIONS = ("relu2", "gelu")

#: Kinds of layers in today's and in older spellings. Mixtures of experts are mapped to their
#: symbol so that they are refused with the same words wherever they are found.
_SYMBOLS = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}
_KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}

#: Older names of settings, which win over today's as they do in the stock class.
_OLDER = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_expand": "expand",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_max": "time_step_max",
    "mamba_dt_init_floor": "time_step_floor",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
}

#: The stock class takes the logarithm of its lowest time step, so none at all is written as this.
_NO_LOWEST = 1e-30


class NemotronH:
    """``NemotronHForCausalLM``.

    The stock class raises time steps to ``time_step_min`` and never reads ``time_step_limit``; on
    input we do the same (``mamba.dt_low``), so that logits agree. Its token-by-token decoding
    forgets that bound, ours keeps it. Attention has no biases there whatever ``attention_bias``
    says, embeddings are never tied, whatever ``tie_word_embeddings`` says.
    """

    family = "nemotron_h"
    architecture = "NemotronHForCausalLM"
    aliases = (
        ("model.", "backbone."),
        ("backbone.embedding.", "backbone.embeddings."),
    )

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        hf = {**hf, **{new: hf[old] for old, new in _OLDER.items() if old in hf}}
        activation = get(hf, "mlp_hidden_act", "relu2")
        if activation not in _ACTIVATIONS:
            raise InputError(
                f"mlp_hidden_act {shorten(activation)} is not supported for nemotron_h "
                f"(supported: {', '.join(_ACTIVATIONS)})"
            )
        read_silu(hf, "mamba_hidden_act", self.family)
        pattern = _read_pattern(hf)
        heads = get(hf, "num_attention_heads", 32)
        kv_heads = hf.get("num_key_value_heads", 8)  # null has another meaning than no key
        pairs = pattern == "*-" * (len(pattern) // 2)
        return ModelConfig.model_validate(
            {
                "layout": self.family,
                "layers": len(pattern) // 2 if pairs else len(pattern),
                "pattern": pattern,
                "hidden_size": require(hf, "hidden_size"),
                "intermediate_size": get(hf, "intermediate_size", 21504),
                "heads": heads,
                "kv_heads": heads if kv_heads is None else kv_heads,
                # The stock class knows no older name of this one: it can load 128 only.
                "head_dim": get(hf, "head_dim", get(hf, "attention_head_dim", 128)),
                "vocab_size": require(hf, "vocab_size"),
                "tie_embeddings": False,
                "norm": "rmsnorm",
                "norm_eps": get(hf, "layer_norm_epsilon", 1e-5),
                "activation": activation,
                "mlp_bias": flag(hf, "mlp_bias", False),
                "rotary_fraction": 0.0,
                "max_positions": get(hf, "max_position_embeddings", 4096),
                "init_std": get(hf, "initializer_range", 0.02),
                "mamba": _read_mamba(hf) if "M" in pattern else None,
                **read_ids(hf),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        mamba: dict[str, Any] = {}
        if config.mamba is not None:
            low = max(config.mamba.dt_low, _NO_LOWEST)
            mamba = {
                "mamba_num_heads": config.mamba.heads,
                "mamba_head_dim": config.mamba.head_dim,
                "mamba_hidden_act": "silu",
                "ssm_state_size": config.mamba.state,
                "expand": config.mamba.expand,
                "time_step_min": low,
                "time_step_limit": write_limits(low, None),
                **write_mamba(config.mamba),
            }
        return {
            "model_type": self.family,
            "architectures": [self.architecture],
            "hybrid_override_pattern": config.pattern,
            "layers_block_type": [_KINDS[symbol] for symbol in config.pattern],
            **write_shape(config),
            "num_hidden_layers": len(config.pattern),
            "head_dim": config.head_dim,
            "mlp_hidden_act": config.activation,
            "mlp_bias": config.mlp_bias,
            "attention_bias": False,
            "layer_norm_epsilon": config.norm_eps,
            "residual_in_fp32": False,
            **mamba,
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {
            "norm": "rmsnorm",
            "qk_norm": False,
            "qkv_bias": False,
            "output_bias": False,
            "rotary_fraction": 0.0,
            "sliding_window": None,
            "tie_embeddings": False,
        }
        problems = check_settings(config, self.architecture, expected)
        if "*" not in config.pattern:
            problems.append(
                f"{self.architecture} cannot decode without an attention block (*), and pattern "
                f"{config.pattern!r} has none; a stack of M alone has layout mamba2"
            )
        if "-" in config.pattern and config.activation not in _ACTIVATIONS:
            problems.append(
                f"{self.architecture} has MLPs without a gate: activation relu2 or gelu, not "
                f"{config.activation!r}"
            )
        if config.mamba is not None and config.mamba.dt_high is not None:
            problems.append(
                f"{self.architecture} never cuts time steps: mamba.dt_high must be null, not "
                f"{config.mamba.dt_high:g}"
            )
        return problems

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return recurrent_names(config)


def _read_mamba(hf: HfConfig) -> dict[str, Any]:
    lowest = read_number(get(hf, "time_step_min", 1e-3), "time_step_min")
    highest = read_number(get(hf, "time_step_max", 0.1), "time_step_max")
    clamped = lowest > _NO_LOWEST or lowest < 0
    return {
        "state": get(hf, "ssm_state_size", 128),
        "head_dim": get(hf, "mamba_head_dim", 64),
        "heads": count(hf, "mamba_num_heads", 128),
        "groups": count(hf, "n_groups", 8),
        "expand": get(hf, "expand", 2),
        "conv": get(hf, "conv_kernel", 4),
        "chunk": get(hf, "chunk_size", 128),
        "conv_bias": flag(hf, "use_conv_bias", True),
        "proj_bias": flag(hf, "use_bias", False),
        "dt_low": lowest if clamped else 0.0,
        # One setting there is both the bound and where training starts from.
        "dt_min": lowest if clamped else min(MambaConfig().dt_min, highest),
        "dt_max": highest,
        "dt_floor": get(hf, "time_step_floor", 1e-4),
    }


def _read_pattern(hf: HfConfig) -> str:
    """The string of blocks, from the spellings that a config has; they must agree."""
    found: dict[str, str] = {}
    for key in ("layers_block_type", "layer_types"):
        kinds = words(hf, key)
        if kinds is not None:
            for index, kind in enumerate(kinds):
                if kind not in _SYMBOLS:
                    raise InputError(
                        f"{key}[{index}] is {shorten(kind)} (supported: {', '.join(_SYMBOLS)})"
                    )
            found[key] = "".join(_SYMBOLS[kind] for kind in kinds)
    written = hf.get("hybrid_override_pattern")
    if written is not None:
        if not isinstance(written, str):
            raise InputError(f"hybrid_override_pattern must be text, not {shorten(written)}")
        found["hybrid_override_pattern"] = written.replace("|", "")
    if not any(found.values()):
        raise InputError("config.json lacks layers_block_type and hybrid_override_pattern")
    pattern = next(iter(found.values()))
    if any(other != pattern for other in found.values()):
        raise InputError(
            f"{' and '.join(found)} say different patterns: "
            + ", ".join(shorten(value) for value in found.values())
        )
    layers = count(hf, "num_hidden_layers", len(pattern))
    if layers != len(pattern):
        raise InputError(
            f"num_hidden_layers is {layers}, but {next(iter(found))} has {len(pattern)} entries"
        )
    return pattern


ADAPTER = NemotronH()
