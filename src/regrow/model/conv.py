"""Causal depthwise convolution followed by SiLU, channels last.

``out_t = silu(bias + sum_k weight_k in_(t-k))``, one multiply-add over the row for each of the few
taps; with documents, no tap reaches over a boundary.

Legend: B batch, T time, C channels, K taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Convolve and activate.

    Args:
        x: (B, T, C).
        weight: (C, K), the tap of the token itself last, as torch and Hugging Face store it.
        bias: (C,) or None.
        window: (B, K - 1, C) what came before the first token; zeros without it. It gets no
            gradient.
        positions: (B, T) place of each token in its document; without it a row is one document.

    Returns:
        (B, T, C) in the dtype of ``x``.
    """
    with torch.autocast(x.device.type, enabled=False):
        return cast(
            Tensor,
            _CausalConv.apply(x, weight, bias, window, positions),  # type: ignore[no-untyped-call]
        )


def _crossing(positions: Tensor | None, taps: int) -> list[tuple[Tensor, Tensor] | None]:
    """For each tap but the token's own, rows and times where it would cross a boundary."""
    if positions is None:
        return [None] * taps
    times = torch.arange(positions.shape[1], device=positions.device)
    found = [((positions < back) & (times >= back)).nonzero(as_tuple=True) for back in range(taps)]
    return [cast("tuple[Tensor, Tensor]", pair) for pair in found]


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Tensor | None,
    crossing: list[tuple[Tensor, Tensor] | None],
) -> Tensor:
    """The convolution before its activation, in fp32 or wider."""
    taps, time = weight.shape[1], x.shape[1]
    out = x * weight[:, -1]
    if bias is not None:
        out += bias
    for back in range(1, taps):
        places = crossing[back]
        kept = out[places] if places is not None else None
        tap = weight[:, taps - 1 - back]
        if back < time:
            out[:, back:].addcmul_(x[:, :-back], tap)
        if window is not None:
            count = min(back, time)
            out[:, :count].addcmul_(window[:, taps - 1 - back : taps - 1 - back + count], tap)
        if places is not None and kept is not None:
            out[places] = kept
    return out


def _rows(time: int, channels: int, taps: int) -> Iterator[tuple[int, int]]:
    """Stretches of a row that stay in a core's cache while each tap passes over them."""
    step = max(64, (1 << 17) // channels)
    for first in range(0, time, step):
        yield first, min(first + step, time)


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        window: Tensor | None,
        positions: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, window, positions)
        wide = torch.promote_types(x.dtype, torch.float32)
        weight = weight.to(wide)
        crossing = _crossing(positions, weight.shape[1])
        bias = bias.to(wide) if bias is not None else None
        window = window.to(wide) if window is not None else None
        out = _linear(x.to(wide), weight, bias, window, crossing)
        return F.silu(out, inplace=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, window, positions = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        taps, time = weight.shape[1], x.shape[1]
        crossing = _crossing(positions, taps)
        full, before = weight.to(wide), window.to(wide) if window is not None else None
        shift = bias.to(wide) if bias is not None else None
        values = x.to(wide)
        before_activation = _linear(values, full, shift, before, crossing)
        upstream = gradients[0].to(wide)
        pulled = torch.ops.aten.silu_backward(upstream, before_activation)
        del before_activation
        grad_x = pulled * full[:, -1]
        grad_weight = torch.empty_like(full)
        grad_weight[:, -1] = (pulled * values).sum((0, 1))
        for back in range(1, taps):
            grad_weight[:, taps - 1 - back] = 0
            places = crossing[back]
            if back < time:
                later, earlier = pulled[:, back:], values[:, :-back]
                grad_weight[:, taps - 1 - back] = (later * earlier).sum((0, 1))
                if places is not None:
                    source = places[0], places[1] - back
                    kept = grad_x[source]
                    wrong = (pulled[places] * values[source]).sum(0)
                    grad_weight[:, taps - 1 - back] -= wrong
                grad_x[:, :-back].addcmul_(later, full[:, taps - 1 - back])
                if places is not None:
                    grad_x[source] = kept
            if before is not None:
                count = min(back, time)
                seen = before[:, taps - 1 - back : taps - 1 - back + count]
                grad_weight[:, taps - 1 - back] += (pulled[:, :count] * seen).sum((0, 1))
        grad_bias = pulled.sum((0, 1)).to(bias.dtype) if bias is not None else None
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias, None, None
