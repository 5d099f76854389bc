"""Rotary position embedding in the half-rotation form, over the first channels of each head.

For a rotated slice of width r: ``f_i = theta^(-2i/r)``, i = 0..r/2-1; channel i turns with channel
i + r/2 by the angle ``position * f_i``. The other channels pass through.

Source: RoFormer (arXiv 2104.09864), in the channel order of GPT-NeoX and Hugging Face.
Legend: B batch, T time, H heads, C head channels, R rotated channels.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from regrow.model.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each rotated channel pair, fp32 on the CPU, shape (R/2,)."""
    width = config.rotary_dim
    with torch.device("cpu"):
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        frequencies = 1.0 / (config.rope_theta**exponents)
        if config.rope_scaling is not None:
            frequencies = _scaled(frequencies, config.rope_scaling)
    return frequencies


def _scaled(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Frequencies for a longer context.

    ``llama3`` leaves wavelengths below ``original / high`` alone, divides those above
    ``original / low`` by the factor, and blends linearly in ``original / wavelength`` between.
    """
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - keep) * slow + keep * frequencies


def rotation(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle.

    Args:
        positions: (T,) or (B, T) integer positions.
        frequencies: (R/2,) fp32.

    Returns:
        Two fp32 tensors of shape (T, 1, R/2) or (B, T, 1, R/2), ready to meet (B, T, H, R/2).
    """
    angles = positions[..., None].to(torch.float32) * frequencies
    return angles.cos().unsqueeze(-2), angles.sin().unsqueeze(-2)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, backward: bool) -> Tensor:
    """Rotate in the dtype of the angles, backwards for the gradient."""
    half = cos.shape[-1]
    x = x.to(cos.dtype)
    out = torch.empty_like(x)
    first, second = x[..., :half], x[..., half : 2 * half]
    # Products first, then the sum, each rounded: a fused multiply-add differs from transformers in
    # the last bit, which the layers above make ten times larger.
    sign = -sin if backward else sin
    torch.sub(first * cos, second * sign, out=out[..., :half])
    torch.add(second * cos, first * sign, out=out[..., half : 2 * half])
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out


class _Rotate(torch.autograd.Function):
    """Rotation whose gradient is the opposite rotation: nothing of the input need be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _turn(x, cos, sin, backward=False).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradients[0], cos, sin, backward=True).to(ctx.dtype), None, None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate the first R channels of each head, in fp32 whatever the dtype of ``x``.

    Args:
        x: (B, T, H, C) queries or keys.
        cos: from :func:`rotation`.
        sin: likewise.
        dtype: of the result.

    Returns:
        (B, T, H, C), a new tensor.
    """
    wide = torch.promote_types(x.dtype, cos.dtype)
    cos, sin = cos.to(wide), sin.to(wide)
    if torch.compiler.is_compiling():  # which fuses the plain form, and differentiates it
        first, second, rest = x.to(wide).tensor_split((cos.shape[-1], 2 * cos.shape[-1]), -1)
        turned = (first * cos - second * sin, second * cos + first * sin, rest)
        return torch.cat(turned, -1).to(dtype)
    return cast(Tensor, _Rotate.apply(x, cos, sin, dtype))  # type: ignore[no-untyped-call]
