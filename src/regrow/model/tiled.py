"""Attention on a CPU in bf16: a few products a tile through the matrix library, no fused kernel.

torch's fused attention takes as long in bf16 as in fp32 on a CPU, where the matrix library may be
several times faster in bf16. So a tile of queries meets the keys that it may see in one batched
product each for scores and mixture; of the scores nothing is kept, they are formed again in the
backward pass.

Products round their result to bf16. A score of 20 would lose all behind the first digit, so the
row's largest score m is subtracted inside the product, where sums are fp32, as one more channel:
``[q, m] . [k, -1]``. What is rounded is then small where the probability is large. The backward
pass does the same with d, the row's sum of gradient times output.

Source: tiles and recomputation as in FlashAttention (arXiv 2205.14135, section 3.1).
Legend: B batch, T time, H query heads, K kv heads, G = H / K, N = B K, C head channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

#: Tokens of a tile, and scores of one: what is fastest at 512 tokens on one and on two threads.
_ROWS = (64, 128)
_SCORES = 1 << 19
#: Constant channels behind those of a head: two, so that rows keep an even number.
_MORE = 2
#: From here on a bf16 is off by so much (128) that exponentials may overflow, or all be zero.
_COARSE = 1 << 15


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Grouped-query attention of T tokens to themselves, differentiable.

    Args:
        queries: (B, T, H, C); head h reads kv head ``h // G``.
        keys: (B, T, K, C).
        values: (B, T, K, C).
        mask: (B or 1, 1, T, T) bool, True where attention may look, somewhere in each row; None
            for causal.

    Returns:
        (B, T, H, C) in bf16.
    """
    return cast(Tensor, _forward(queries, keys, values, mask)[0])


class _Tile(NamedTuple):
    """A stretch of tokens in some of the N heads, and the keys that it may see.

    Attributes:
        heads: of N.
        rows: of T G.
        columns: of T.
        bias: minus infinity where it may not look, else 0: (sequences or 1, rows / G, columns from
            ``first`` on).
        first: column of the tile where ``bias`` begins.
    """

    heads: slice
    rows: slice
    columns: slice
    bias: Tensor
    first: int

    def scores(self, room: Tensor) -> Tensor:
        """Memory for them, (heads, rows, columns)."""
        shape = [part.stop - part.start for part in (self.heads, self.rows, self.columns)]
        return room[: math.prod(shape)].view(shape)

    def hide(self, scores: Tensor) -> Tensor:
        """Set the scores, (heads, rows, columns), of what may not be seen to minus infinity."""
        sequences, rows, _ = self.bias.shape
        heads, all_rows, columns = scores.shape
        view = scores.view(sequences, heads // sequences, rows, all_rows // rows, columns)
        view[..., self.first :] += self.bias[:, None, :, None]
        return scores


def _extent(n: int, time: int, group: int) -> tuple[int, int]:
    """Tokens and heads of a tile."""
    rows = min(time, _ROWS[1], max(_ROWS[0], _SCORES // (time * group)))
    return rows, min(n, max(1, _SCORES // (rows * group * time)))


def _room(n: int, time: int, group: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Memory for the scores of a tile, twice: fresh pages for each cost more than the products."""
    rows, heads = _extent(n, time, group)
    size = heads * rows * group * time
    return like.new_empty(size), like.new_empty(size)


def _tiles(n: int, time: int, group: int, batch: int, mask: Tensor | None) -> Iterator[_Tile]:
    """All scores that count, tile by tile."""
    (rows, most), each = _extent(n, time, group), n // batch
    for start in range(0, time, rows):
        stop = min(time, start + rows)
        taken = slice(start * group, stop * group)
        if mask is None:
            triangle = _bias(torch.ones(1, stop - start, stop - start, dtype=torch.bool).tril_())
            for first in range(0, n, most):
                heads = slice(first, min(n, first + most))
                yield _Tile(heads, taken, slice(0, stop), triangle, start)
            continue
        # A tile lies inside one sequence, whose documents bound what it may see.
        for sequence in range(batch):
            seen = mask[min(sequence, mask.shape[0] - 1), :, start:stop]
            places = seen.any(0).any(0).nonzero()
            columns = slice(int(places[0]), int(places[-1]) + 1)
            bias = _bias(seen[..., columns])
            for first in range(0, each, most):
                begin = sequence * each
                heads = slice(begin + first, begin + min(each, first + most))
                yield _Tile(heads, taken, columns, bias, 0)


def _bias(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, -torch.inf)


def _channels(x: Tensor, group: int) -> Tensor:
    """(B, T, H, C) as (B, K, T, G, C), a view: rows of one kv head stand together."""
    batch, time, heads, width = x.shape
    return x.view(batch, time, heads // group, group, width).transpose(1, 2)


def _packed(x: Tensor, group: int, constant: float) -> Tensor:
    """(N, T G, C + 2) in bf16, with constant channels."""
    padded = F.pad(x.to(torch.bfloat16), (0, _MORE), value=constant)
    return _channels(padded, group).flatten(1, 3).view(-1, x.shape[1] * group, padded.shape[-1])


def _unpacked(x: Tensor, batch: int, group: int) -> Tensor:
    """The reverse, without the constant channels: (N, T G, C) to (B, T, H, C) in bf16."""
    view = x.to(torch.bfloat16).view(batch, x.shape[0] // batch, -1, group, x.shape[-1])
    return view.transpose(1, 2).flatten(2, 3).contiguous()


def _exponentials(scores: Tensor, largest: Tensor) -> Tensor:
    """Of differences ``score - m``, (heads, rows, columns), with m, (heads, rows); in place.

    Where m was rounded by too much, the largest difference of a row is taken off once more.
    """
    if float(largest.abs().amax()) >= _COARSE:
        scores -= scores.amax(-1, keepdim=True)
    return scores.exp_()


@torch.library.custom_op("regrow::tiled_attention", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mixture (B, T, H, C), and for the backward pass: queries with m, keys and values with
    their constant channels, and the sum of ``exp(score - m)`` of each row, (N, T G).
    """
    batch, time, heads, width = queries.shape
    group = heads // keys.shape[2]
    query = _packed(queries.float() * width**-0.5, group, 0.0)
    key, value = _packed(keys, 1, -1.0), _packed(values, 1, -1.0)
    plain = value[..., :width].contiguous()  # products of an even width are a third faster
    room = _room(query.shape[0], time, group, query)
    sums = query.new_empty(query.shape[:2], dtype=torch.float32)
    mixed = query.new_empty(*query.shape[:2], width, dtype=torch.float32)
    for tile in _tiles(query.shape[0], time, group, batch, mask):
        own, other = query[tile.heads, tile.rows], key[tile.heads, tile.columns].transpose(1, 2)
        scores = tile.hide(torch.bmm(own, other, out=tile.scores(room[0])))
        own[..., width] = scores.amax(-1)
        weights = _exponentials(tile.hide(torch.bmm(own, other, out=scores)), own[..., width])
        torch.sum(weights, -1, dtype=torch.float32, out=sums[tile.heads, tile.rows])
        mixed[tile.heads, tile.rows] = torch.bmm(weights, plain[tile.heads, tile.columns])
    mixed /= sums[..., None]
    return _unpacked(mixed, batch, group), query, key, value, sums


@_forward.register_fake
def _(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, time, heads, width = queries.shape
    n = batch * keys.shape[2]
    rows = time * heads // keys.shape[2]
    made = torch.empty(0, dtype=torch.bfloat16, device=queries.device)
    return (
        made.new_empty(queries.shape),
        made.new_empty(n, rows, width + _MORE),
        made.new_empty(n, time, width + _MORE),
        made.new_empty(n, time, width + _MORE),
        made.new_empty(n, rows, dtype=torch.float32),
    )


@torch.library.custom_op("regrow::tiled_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sums: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries (B, T, H, C), keys and values (B, T, K, C), in bf16.

    With u = exp(score - m), l its sum, g the gradient: ``dV = u^T (g / l)``,
    ``dS = u (g / l . V - d / l)`` with ``d = g . out``, ``dQ = dS K``, ``dK = dS^T Q``.
    """
    batch, time, heads, width = gradient.shape
    n = query.shape[0]
    group = heads * batch // n
    wide = gradient.float()
    each = _channels((wide * out.float()).sum(-1, keepdim=True), group).reshape(n, -1) / sums
    scale = sums.reciprocal().view(batch, -1, time, group).transpose(1, 2).reshape(batch, time, -1)
    pulled = _packed(wide * scale[..., None], group, 0.0)
    # d / l in two parts, since a single bf16 would be off by up to 0.4 %.
    pulled[..., width] = each
    pulled[..., width + 1] = each - pulled[..., width].float()
    plain = [x[..., :width].contiguous() for x in (query, key, pulled)]
    d_query = torch.empty_like(plain[0])
    d_key = torch.zeros_like(plain[1], dtype=torch.float32)
    d_value = torch.zeros_like(d_key)
    room = _room(n, time, group, query)
    for tile in _tiles(n, time, group, batch, mask):
        rows, columns = (tile.heads, tile.rows), (tile.heads, tile.columns)
        scores = torch.bmm(query[rows], key[columns].transpose(1, 2), out=tile.scores(room[0]))
        weights = _exponentials(tile.hide(scores), query[rows][..., width])
        d_value[columns] += torch.bmm(weights.transpose(1, 2), plain[2][rows])
        fed = tile.scores(room[1])
        torch.bmm(pulled[rows], value[columns].transpose(1, 2), out=fed)
        d_scores = weights.mul_(fed)
        d_query[rows] = torch.bmm(d_scores, plain[1][columns])
        d_key[columns] += torch.bmm(d_scores.transpose(1, 2), plain[0][rows])
    return (
        _unpacked(d_query.mul_(width**-0.5), batch, group),
        _unpacked(d_key, batch, 1),
        _unpacked(d_value, batch, 1),
    )


@_backward.register_fake
def _(
    gradient: Tensor,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sums: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, time, _, width = gradient.shape
    shape = (batch, time, query.shape[0] // batch, width)
    made = torch.empty(0, dtype=torch.bfloat16, device=gradient.device)
    return made.new_empty(gradient.shape), made.new_empty(shape), made.new_empty(shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    out, query, key, value, sums = output
    ctx.save_for_backward(out, query, key, value, sums, inputs[3])
    ctx.dtypes = tuple(x.dtype for x in inputs[:3])
    ctx.mark_non_differentiable(query, key, value, sums)


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    *saved, mask = ctx.saved_tensors
    made = _backward(gradients[0].to(torch.bfloat16).contiguous(), *saved, mask)
    return *(x.to(dtype) for x, dtype in zip(made, ctx.dtypes, strict=True)), None


_forward.register_autograd(_differentiate, setup_context=_remember)
