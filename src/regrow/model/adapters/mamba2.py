"""Mamba2: nothing but Mamba-2 blocks."""

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
    write_ids,
)
from regrow.model.adapters.recurrent import (
    read_limits,
    read_silu,
    recurrent_names,
    write_limits,
    write_mamba,
)
from regrow.model.config import MambaConfig, ModelConfig


class Mamba2:
    """``Mamba2ForCausalLM``.

    Its inner width is ``expand x hidden_size`` with a whole ``expand``, and the heads fill it.
    ``time_step_limit`` bounds the time steps; the stock class forgets it when it decodes token by
    token, ours does not.
    """

    family = "mamba2"
    architecture = "Mamba2ForCausalLM"
    aliases = (("backbone.embedding.", "backbone.embeddings."),)

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        read_silu(hf, "hidden_act", self.family)
        layers = count(hf, "num_hidden_layers")
        low, high = read_limits(hf)
        config = ModelConfig.model_validate(
            {
                "layout": self.family,
                "layers": layers,
                # Beyond what a pattern may hold, its length alone is what is wrong.
                "pattern": "M" * max(1, min(layers, 1 << 14)),
                "hidden_size": require(hf, "hidden_size"),
                "vocab_size": require(hf, "vocab_size"),
                "tie_embeddings": flag(hf, "tie_word_embeddings", False),
                "norm": "rmsnorm",
                "norm_eps": get(hf, "layer_norm_epsilon", 1e-5),
                "max_positions": get(hf, "max_position_embeddings", 4096),
                "init_std": get(hf, "initializer_range", 0.1),
                "mamba": {
                    "state": get(hf, "state_size", 128),
                    "head_dim": get(hf, "head_dim", 64),
                    "heads": count(hf, "num_heads", 128),
                    "groups": count(hf, "n_groups", 8),
                    "expand": get(hf, "expand", 2),
                    "conv": get(hf, "conv_kernel", 4),
                    "chunk": get(hf, "chunk_size", 256),
                    "conv_bias": flag(hf, "use_conv_bias", True),
                    "proj_bias": flag(hf, "use_bias", False),
                    "dt_low": low,
                    "dt_high": high,
                    "dt_min": get(hf, "time_step_min", 1e-3),
                    "dt_max": get(hf, "time_step_max", 0.1),
                    "dt_floor": get(hf, "time_step_floor", 1e-4),
                },
                **read_ids(hf),
            },
            strict=False,
        )
        mamba = config.mamba
        assert mamba is not None  # the pattern has M
        if mamba.inner != mamba.expand * config.hidden_size:
            raise InputError(
                f"expand {mamba.expand} x hidden_size {config.hidden_size} = "
                f"{mamba.expand * config.hidden_size} is not num_heads x head_dim = "
                f"{mamba.heads} x {mamba.head_dim} = {mamba.inner}; make them equal"
            )
        return config

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        mamba = config.mamba
        assert mamba is not None  # check() has passed
        return {
            "model_type": self.family,
            "architectures": [self.architecture],
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.layers,
            "num_heads": mamba.heads,
            "head_dim": mamba.head_dim,
            "state_size": mamba.state,
            "expand": mamba.inner // config.hidden_size,
            "hidden_act": "silu",
            "layer_norm_epsilon": config.norm_eps,
            "initializer_range": config.init_std,
            "max_position_embeddings": config.max_positions,
            "residual_in_fp32": False,
            "tie_word_embeddings": config.tie_embeddings,
            "time_step_limit": write_limits(mamba.dt_low, mamba.dt_high),
            "time_step_min": mamba.dt_min,
            "use_cache": True,
            **write_mamba(mamba),
            **write_ids(config),
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        if config.pattern.strip("M"):
            return [
                f"{self.architecture} holds Mamba-2 blocks only, not pattern {config.pattern!r}; "
                "use layout nemotron_h"
            ]
        return check_settings(config, self.architecture, {"norm": "rmsnorm"}) + _check_width(config)

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return recurrent_names(config)


def _check_width(config: ModelConfig) -> list[str]:
    mamba = config.mamba or MambaConfig()
    width, inner = config.hidden_size, mamba.inner
    if inner and inner % width == 0:
        return []
    above = -(-inner // width) * width
    near = [n for n in (above - width, above) if n and n % mamba.head_dim == 0]
    legal = " or ".join(str(n // mamba.head_dim) for n in near) or "a multiple of both"
    return [
        f"Mamba2ForCausalLM needs heads x head_dim ({mamba.heads} x {mamba.head_dim} = {inner}) to "
        f"be a whole multiple (expand) of hidden_size {width}; legal heads: {legal}"
    ]


ADAPTER = Mamba2()
