"""Causal grouped-query attention.

Legend: B batch, T time, S keys seen, D model, H query heads, K kv heads, C head channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model import tiled
from regrow.model.blocks import SequenceContext, initialise_linear, linear
from regrow.model.config import ModelConfig
from regrow.model.norm import RMSNorm
from regrow.model.rope import rotate


@dataclass(slots=True)
class KeyValues:
    """Keys and values of the tokens seen so far, (B, capacity, K, C) each, filled from the left."""

    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.keys.nbytes + self.values.nbytes

    def extend(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, T, K, C) at ``start``; returns all that is stored up to there.

        Raises:
            ValueError: the cache was made for fewer tokens.
        """
        end = start + keys.shape[1]
        if end > self.keys.shape[1]:
            raise ValueError(f"the cache holds {self.keys.shape[1]} tokens; {end} are needed")
        self.keys[:, start:end] = keys
        self.values[:, start:end] = values
        return self.keys[:, :end], self.values[:, :end]


class Attention(nn.Module):
    """Attention of H query heads over K key/value heads; head h reads kv head ``h // (H / K)``.

    The four projections stay separate modules: on a CPU one joined product of queries, keys and
    values measures no faster, and adapters, slicing and tensor-parallel plans address each by name.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_dim, self.window = config.head_dim, config.sliding_window
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = linear(config.hidden_size, query, config.qkv_bias)
        self.k_proj = linear(config.hidden_size, key, config.qkv_bias)
        self.v_proj = linear(config.hidden_size, key, config.qkv_bias)
        self.o_proj = linear(query, config.hidden_size, config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def new_state(
        self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> KeyValues:
        """An empty cache for ``capacity`` tokens of ``batch`` sequences."""
        shape = (batch, capacity, self.kv_heads, self.head_dim)
        return KeyValues(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )

    def initialise(self, generator: torch.Generator, std: float, residual_std: float) -> None:
        """Fresh weights; ``residual_std`` is for the projection that writes to the residual."""
        for module in (self.q_proj, self.k_proj, self.v_proj):
            initialise_linear(module, std, generator)
        initialise_linear(self.o_proj, residual_std, generator)

    def forward(
        self, x: Tensor, context: SequenceContext, state: KeyValues | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D); with a state, the T tokens follow those that it holds."""
        batch, time = x.shape[:2]
        queries = self.q_proj(x).view(batch, time, self.heads, self.head_dim)
        keys = self.k_proj(x).view(batch, time, self.kv_heads, self.head_dim)
        values = self.v_proj(x).view(batch, time, self.kv_heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        # On a CPU the fused attention is no faster in bf16 than in fp32, on some half as fast; so
        # under autocast either tiles go through the matrix library, or it runs in fp32.
        wide = torch.is_autocast_enabled("cpu") and x.device.type == "cpu"
        tiles = wide and state is None and torch.get_autocast_dtype("cpu") == torch.bfloat16
        dtype = torch.float32 if wide else values.dtype
        if context.rotation is not None:
            cos, sin = context.rotation
            queries, keys = rotate(queries, cos, sin, dtype), rotate(keys, cos, sin, dtype)
        if state is not None:
            keys, values = state.extend(context.start, keys, values)
            if self.window is not None and time == 1 and context.mask is None:
                keys, values = keys[:, -self.window :], values[:, -self.window :]
        if tiles:
            mixed = tiled.attend(queries, keys, values, context.mask)
        else:
            mixed = self._attend(queries.to(dtype), keys.to(dtype), values.to(dtype), context.mask)
        return cast(Tensor, self.o_proj(mixed.reshape(batch, time, -1)))

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, H, C) queries over (B, S, K, C) keys and values, to (B, T, H, C)."""
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(
                queries.transpose(1, 2),
                keys.transpose(1, 2),
                values.transpose(1, 2),
                attn_mask=mask,
                is_causal=mask is None and queries.shape[1] > 1,
                enable_gqa=self.heads != self.kv_heads,
            )
        return mixed.transpose(1, 2)
