"""Qwen2: llama with biases in the query, key and value projections and nowhere else."""

from __future__ import annotations

from typing import Any

from regrow.model.adapters.base import HfConfig
from regrow.model.adapters.transformer import (
    check_gated,
    read_gated,
    read_window,
    transformer_names,
    write_gated,
    write_window,
)
from regrow.model.config import ModelConfig


class Qwen2:
    """``Qwen2ForCausalLM``.

    ``head_dim`` is no declared setting of its config: the stock class uses it where it stands
    there, other readers of these folders take ``hidden_size / heads``. So it is honoured on input
    and never written, and a shape that needs it is not exported.
    """

    family = "qwen2"
    architecture = "Qwen2ForCausalLM"
    aliases = ()

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return ModelConfig.model_validate(
            {
                **read_gated(hf, self.family, max_positions=32768, missing_kv_heads=32),
                "qkv_bias": True,
                "sliding_window": read_window(hf),
            },
            strict=False,
        )

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return {
            **write_gated(config, self.family, self.architecture),
            **write_window(config),
        }

    def check(self, config: ModelConfig) -> list[str]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        expected = {"qk_norm": False, "qkv_bias": True, "output_bias": False, "mlp_bias": False}
        problems = check_gated(config, self.architecture, expected)
        across = config.heads * config.head_dim
        if across and config.hidden_size != across:
            problems.append(
                f"{self.architecture} has no declared head_dim, so its readers take hidden_size / "
                f"heads; hidden_size {config.hidden_size} is not heads {config.heads} x head_dim "
                f"{config.head_dim} = {across}; make it that, or use layout qwen3 or mistral"
            )
        return problems

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """See :class:`~regrow.model.adapters.base.Adapter`."""
        return transformer_names(config)


ADAPTER = Qwen2()
