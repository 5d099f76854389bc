"""The MLP block: gated (SwiGLU), squared ReLU or GELU.

Legend: B batch, T time, D model, F inner width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model.blocks import SequenceContext, initialise_linear, linear
from regrow.model.config import ModelConfig


class MLP(nn.Module):
    """``down(silu(gate x) * up x)`` (arXiv 2002.05202), or ``down(act(up x))``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.activation = config.activation
        self.gate_proj = linear(width, inner, config.mlp_bias) if config.gated else None
        self.up_proj = linear(width, inner, config.mlp_bias)
        self.down_proj = linear(inner, width, config.mlp_bias)

    def new_state(
        self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Nothing is remembered between tokens."""
        return

    def initialise(self, generator: torch.Generator, std: float, residual_std: float) -> None:
        """Fresh weights; ``residual_std`` is for the projection that writes to the residual."""
        for module in (self.gate_proj, self.up_proj):
            if module is not None:
                initialise_linear(module, std, generator)
        initialise_linear(self.down_proj, residual_std, generator)

    def forward(self, x: Tensor, context: SequenceContext, state: None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        inner = self.up_proj(x)
        if self.gate_proj is not None:
            inner = F.silu(self.gate_proj(x)) * inner
        elif self.activation == "relu2":
            inner = F.relu(inner).square()
        else:
            inner = F.gelu(inner)
        return cast(Tensor, self.down_proj(inner))
