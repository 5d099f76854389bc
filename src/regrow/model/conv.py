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

#: Rows and times of some tokens; None where there are none.
Places = tuple[Tensor, Tensor] | None

#: Elements of a stretch: half a megabyte stays in a core's cache.
_CACHED_ELEMENTS = 1 << 17


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


def _crossing(positions: Tensor | None, taps: int) -> list[Places]:
    """For each tap but the token's own, rows and times where it would cross a boundary."""
    if positions is None:
        return [None] * taps
    times = torch.arange(positions.shape[1], device=positions.device)
    found = [((positions < back) & (times >= back)).nonzero(as_tuple=True) for back in range(taps)]
    return [cast("tuple[Tensor, Tensor]", pair) for pair in found]


def _stretches(time: int, channels: int, whole: bool) -> Iterator[slice]:
    """Parts of a row that stay in a core's cache while each tap passes over them."""
    step = time if whole else max(16, _CACHED_ELEMENTS // channels)
    for first in range(0, time, step):
        yield slice(first, min(first + step, time))


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Tensor | None,
    crossing: list[Places],
    part: slice,
) -> Tensor:
    """The convolution before its activation, of one stretch; in fp32 or wider."""
    taps, first = weight.shape[1], part.start
    out = x[:, part] * weight[:, -1]
    if bias is not None:
        out += bias
    for back in range(1, taps):
        places = crossing[back]
        kept = out[places] if places is not None else None
        tap = weight[:, taps - 1 - back]
        begin = max(first, back)
        if begin < part.stop:
            out[:, begin - first :].addcmul_(x[:, begin - back : part.stop - back], tap)
        if window is not None and first < back:
            stop = min(back, part.stop)
            before = window[:, taps - 1 - back + first : taps - 1 - back + stop]
            out[:, : stop - first].addcmul_(before, tap)
        if places is not None and kept is not None:
            out[places] = kept
    return out


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
        values, weight, bias, window = _widened(x, weight, bias, window)
        crossing = _crossing(positions, weight.shape[1])
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for part in _stretches(x.shape[1], x.shape[2], positions is not None):
            linear = _linear(values, weight, bias, window, crossing, part)
            out[:, part] = F.silu(linear, inplace=True)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, window, positions = ctx.saved_tensors
        values, wide_weight, wide_bias, before = _widened(x, weight, bias, window)
        taps = weight.shape[1]
        crossing = _crossing(positions, taps)
        grad_x = torch.empty(x.shape, dtype=values.dtype, device=x.device)
        grad_weight = torch.zeros_like(wide_weight)
        grad_bias = torch.zeros_like(wide_weight[:, 0])
        for part in _stretches(x.shape[1], x.shape[2], positions is not None):
            linear = _linear(values, wide_weight, wide_bias, before, crossing, part)
            upstream = gradients[0][:, part].to(values.dtype)
            pulled = torch.ops.aten.silu_backward(upstream, linear)
            grad_bias += pulled.sum((0, 1))
            for back in range(taps):
                _pull_tap(
                    pulled,
                    values,
                    before,
                    part,
                    back,
                    crossing[back],
                    wide_weight,
                    grad_weight,
                    grad_x,
                )
        return (
            grad_x.to(x.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype) if bias is not None else None,
            None,
            None,
        )


def _widened(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The operands in fp32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return (
        x.to(wide),
        weight.to(wide),
        bias.to(wide) if bias is not None else None,
        window.to(wide) if window is not None else None,
    )


def _pull_tap(
    pulled: Tensor,
    values: Tensor,
    window: Tensor | None,
    part: slice,
    back: int,
    places: Places,
    weight: Tensor,
    grad_weight: Tensor,
    grad_x: Tensor,
) -> None:
    """Gradients through the tap ``back`` tokens behind, of one stretch; into the last two."""
    place, first = weight.shape[1] - 1 - back, part.start
    tap = weight[:, place]
    if not back:
        torch.mul(pulled, tap, out=grad_x[:, part])
        grad_weight[:, place] += (pulled * values[:, part]).sum((0, 1))
        return
    begin = max(first, back)
    if begin < part.stop:
        later, earlier = pulled[:, begin - first :], slice(begin - back, part.stop - back)
        if places is None:
            grad_weight[:, place] += (later * values[:, earlier]).sum((0, 1))
            grad_x[:, earlier].addcmul_(later, tap)
        else:  # a stretch is then the whole row
            source = places[0], places[1] - back
            kept = grad_x[source]
            product = later * values[:, earlier]
            product[source] = 0
            grad_weight[:, place] += product.sum((0, 1))
            grad_x[:, earlier].addcmul_(later, tap)
            grad_x[source] = kept
    if window is not None and first < back:
        stop = min(back, part.stop)
        seen = window[:, place + first : place + stop]
        grad_weight[:, place] += (pulled[:, : stop - first] * seen).sum((0, 1))
