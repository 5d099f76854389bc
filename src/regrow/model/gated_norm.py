"""The norm at the end of a Mamba-2 block: gate first, then normalise within each group.

``g = y silu(z)``, ``out = g / sqrt(mean_group(g^2) + eps) * weight``. Groups never mix, so a
tensor-parallel rank that owns whole groups needs no exchange.

Source: Mamba-2-Hybrid (arXiv 2406.07887, section 2); hybrid models keep the gate inside the norm.
Legend: B batch, T time, G groups, W channels of a group.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from regrow.model.norm import output_dtype


class _GatedNorm(torch.autograd.Function):
    """Saves the two inputs and one number a group; the rest is formed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int) -> Tensor:
        wide = torch.promote_types(y.dtype, torch.float32)
        gated = torch.unflatten(F.silu(z.to(wide)).mul_(y), -1, (groups, -1))
        scale = torch.linalg.vector_norm(gated, dim=-1, keepdim=True)
        scale = scale.square_().div_(gated.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(y, z, weight, scale)
        normed: Tensor = gated.mul_(scale).flatten(-2).mul_(weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        # With n = g s: dg = s (dout w - n mean(dout w n)), dw = sum(dout n), then dy = dg silu(z)
        # and dz = dg y silu'(z).
        y, z, weight, scale = ctx.saved_tensors
        gate = z.to(scale.dtype)
        opened = F.silu(gate)
        normed = torch.unflatten(opened * y, -1, (scale.shape[-2], -1)).mul_(scale)
        upstream = gradients[0].to(scale.dtype)
        pulled = upstream * normed.flatten(-2)
        grad_weight = pulled.flatten(0, -2).sum(0)
        mean = torch.unflatten(pulled.mul_(weight), -1, normed.shape[-2:]).mean(-1, keepdim=True)
        grad = torch.unflatten(upstream * weight, -1, normed.shape[-2:])
        grad = grad.addcmul_(normed, mean, value=-1).mul_(scale).flatten(-2)
        grad_y = grad * opened
        grad_z = torch.ops.aten.silu_backward(grad.mul_(y), gate)
        return grad_y.to(y.dtype), grad_z.to(z.dtype), grad_weight.to(weight.dtype), None, None


class GatedNorm(nn.Module):
    """RMSNorm of ``y silu(z)`` within each of ``groups`` groups of channels."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def reset_parameters(self) -> None:
        """Gain one."""
        nn.init.ones_(self.weight)

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """(..., G W) values and gates to (..., G W), in the dtype that the next linear reads."""
        dtype = output_dtype(z)
        with torch.autocast(y.device.type, enabled=False):
            normed = _GatedNorm.apply(y, z, self.weight, self.eps, self.groups)  # type: ignore[no-untyped-call]
        return cast(Tensor, normed).to(dtype)

    def extra_repr(self) -> str:
        """Width, groups and eps, for printing."""
        return f"{self.weight.shape[0]}, groups={self.groups}, eps={self.eps}"
