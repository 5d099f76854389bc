"""Norms over the residual stream, with their statistics in fp32.

Under autocast a norm computes in fp32 and hands over the autocast dtype: what reads it are linears,
which would round it to that dtype anyway, once each.
Legend: B batch, T time, D model.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model.config import ModelConfig


def output_dtype(x: Tensor) -> torch.dtype:
    """Dtype in which the linears that follow will read ``x``."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


class _RMSNorm(torch.autograd.Function):
    """RMSNorm for the CPU, where torch has no fused kernel: few passes, one saved activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (wide * scale).mul_(weight).to(dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # y = x s w with s = (mean x^2 + eps)^-1/2, so ds/dx = -s^3 x / D and, with n = x s,
        # dx = s (g w - n mean(g w n)).
        x, weight, scale = ctx.saved_tensors
        gradient = gradients[0].to(scale.dtype)
        unit = x * scale
        pulled = gradient * unit
        grad_weight = pulled.reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        mean = pulled.mul_(weight).mean(-1, keepdim=True)
        grad_x = (gradient * weight).addcmul_(unit, mean, value=-1).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension; any leading shape."""
    dtype = output_dtype(x)
    if not torch.is_grad_enabled():
        # In the order of operations of transformers' norm, so that logits agree to the last
        # bits; training takes the faster order.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        return (wide * scale).mul_(weight).to(dtype)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        normed = _RMSNorm.apply(x, weight, eps, dtype)  # type: ignore[no-untyped-call]
        return cast(Tensor, normed)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = F.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps)
    return normed.to(dtype)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain one."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension; any leading shape."""
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Width and eps, for printing."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class LayerNorm1P(nn.Module):
    """LayerNorm whose gain is stored minus one: ``(1 + weight) * normalised + bias``.

    Fresh weights are zero, which is a gain of one. (transformers starts them at one, a gain of two;
    NeMo, which trained these models, at zero.)
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Stored gain and bias zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension; any leading shape."""
        dtype = output_dtype(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        gain, bias = self.weight.to(wide) + 1.0, self.bias.to(wide)
        return F.layer_norm(x.to(wide), self.weight.shape, gain, bias, self.eps).to(dtype)

    def extra_repr(self) -> str:
        """Width and eps, for printing."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm1P:
    """The norm that ``config`` names, over the residual stream."""
    kind = RMSNorm if config.norm == "rmsnorm" else LayerNorm1P
    return kind(config.hidden_size, config.norm_eps)
