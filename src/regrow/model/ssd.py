"""The scan of Mamba-2, in chunks: the state space dual form with a hand-written gradient.

For head h of group g, with ``a_t = exp(dt_t A_h)``:
``S_t = a_t S_(t-1) + dt_t B_t x_t^T`` and ``y_t = S_t^T C_t + D_h x_t``.
Inside a chunk of Q tokens that is a masked product of ``C B^T``, formed once for each group;
between chunks only the states are carried, and each group's heads share one wide product. Only
the states that enter the chunks are kept for the gradient: decay matrices exist for a few chunks
at a time, in the forward pass and again in the backward pass, so memory does not grow with Q.

Decays are exponentials of differences that are masked before the exponential, never products, so
``dt = 0`` (nothing decays) and large ``dt |A|`` (everything does) give neither NaN nor infinity.
Documents are kept apart by masks on those decays, not by large negative numbers.

Source: Transformers are SSMs (arXiv 2405.21060, sections 6 and 7.2); groups and the reset at
document boundaries as in Mamba-2-Hybrid (arXiv 2406.07887).
Legend: B batch, T time, H heads, P head channels, G groups, R heads of a group, N state channels,
Q tokens of a chunk, n chunks of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Elements of the decay matrices that exist at once; a megabyte or two stays in a core's cache.
_BLOCK_ELEMENTS = 1 << 19


@dataclass(frozen=True, slots=True)
class Heads:
    """How the channels that the scan reads are divided: ``x`` (H P), ``B`` (G N), ``C`` (G N)."""

    heads: int
    head_dim: int
    groups: int
    state: int

    @property
    def inner(self) -> int:
        """H P."""
        return self.heads * self.head_dim

    @property
    def shared(self) -> int:
        """G N."""
        return self.groups * self.state

    @property
    def wide(self) -> int:
        """R P: channels of one group's heads."""
        return self.inner // self.groups

    def state_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(B, G, N, R P), the layout in which states are kept."""
        return batch, self.groups, self.state, self.wide


def scan(
    mixed: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    heads: Heads,
    chunk: int,
    initial: Tensor | None = None,
    documents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over whole rows.

    Args:
        mixed: (B, T, H P + 2 G N): x, B and C after the convolution.
        dt: (B, T, H) time steps, fp32 or wider, not negative. A token with a step of 0 leaves no
            trace in the state.
        A: (H,) negative decay rates.
        D: (H,) skip weights.
        heads: how ``mixed`` is divided.
        chunk: Q; decides speed and memory, and the result only in its rounding.
        initial: (B, G, N, R P) state before the first token; zeros without it.
        documents: (B, T) numbers; the state starts anew wherever they change.

    Returns:
        (B, T, H P) in fp32 or wider, and the state after the last token, (B, G, N, R P).
    """
    time = mixed.shape[1]
    chunk = min(chunk, time)
    missing = -time % chunk
    if missing:
        mixed, dt = F.pad(mixed, (0, 0, 0, missing)), F.pad(dt, (0, 0, 0, missing))
        if documents is not None:
            documents = F.pad(documents[:, None].float(), (0, missing), "replicate")[:, 0]
            documents = documents.long()
    with torch.autocast(mixed.device.type, enabled=False):
        y, final = cast(
            "tuple[Tensor, Tensor]",
            _Scan.apply(mixed, dt, A, D, initial, documents, heads, chunk),  # type: ignore[no-untyped-call]
        )
    return (y[:, :time] if missing else y), final


@dataclass(slots=True)
class _Decays:
    """Decays of all chunks; each already zero where a document ends in between.

    Attributes:
        sums: (n, Q, H) sums of ``dt A`` from the chunk's first token on, inclusive.
        outward: (n, Q, H) from the state that enters the chunk to each token.
        inward: (n, Q, H) from each token to the state that leaves the chunk.
        carry: (n, H) from state to state.
        documents: (n, Q) or None.
    """

    sums: Tensor
    outward: Tensor
    inward: Tensor
    carry: Tensor
    documents: Tensor | None

    @classmethod
    def of(cls, log_decay: Tensor, documents: Tensor | None, rows: int) -> _Decays:
        """From (n, Q, H) logarithms and (n, Q) documents of ``rows`` rows."""
        sums = log_decay.cumsum(1)
        outward, inward = sums.exp(), (sums[:, -1:] - sums).exp_()
        carry = outward[:, -1].clone()
        if documents is not None:
            last = documents[:, -1].view(rows, -1)
            before = torch.cat([documents.view(rows, -1)[:, :1], last[:, :-1]], 1).reshape(-1, 1)
            outward.mul_((documents == before)[..., None])
            inward.mul_((documents == documents[:, -1:])[..., None])
            carry.mul_(documents[:, -1:] == before)
        return cls(sums, outward, inward, carry, documents)

    def between(self, part: slice) -> Tensor:
        """(k, H, Q, Q) from token j (last) to token i of each chunk; zero above the diagonal."""
        sums = self.sums[part].transpose(1, 2)
        size = sums.shape[-1]
        hidden = torch.ones(size, size, dtype=torch.bool, device=sums.device).triu_(1)
        if self.documents is not None:
            documents = self.documents[part]
            apart = documents[:, :, None] != documents[:, None, :]
            hidden = (hidden | apart)[:, None]
        # Masked before the exponential: afterwards, infinity times zero would reach the gradient.
        return (sums[..., :, None] - sums[..., None, :]).masked_fill_(hidden, -torch.inf).exp_()


class _Views:
    """One tensor of mixed channels as (n, Q, ...) views of its three parts."""

    def __init__(self, mixed: Tensor, heads: Heads, chunk: int) -> None:
        flat = mixed.reshape(-1, chunk, mixed.shape[-1])
        self.whole = flat
        x, b, c = torch.split(flat, [heads.inner, heads.shared, heads.shared], -1)
        self.x = torch.unflatten(x, -1, (heads.heads, heads.head_dim))
        self.b = torch.unflatten(b, -1, (heads.groups, heads.state))
        self.c = torch.unflatten(c, -1, (heads.groups, heads.state))


def _blocks(chunks: int, heads: int, size: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ELEMENTS // (heads * size * size))
    for first in range(0, chunks, step):
        yield slice(first, min(first + step, chunks))


def _heads_first(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """(k, Q, H, P), times (k, Q, H), as (k H, Q, P), contiguous."""
    turned = x.transpose(1, 2)
    out = torch.empty(turned.shape, dtype=x.dtype, device=x.device)
    if factor is None:
        out.copy_(turned)
    else:
        torch.mul(turned, factor.transpose(1, 2)[..., None], out=out)
    return out.flatten(0, 1)


def _grouped(products: Tensor, decay: Tensor) -> Tensor:
    """(k, G, Q, Q) times (k, H, Q, Q) of each group's heads, in place of the second."""
    groups = products.shape[1]
    return torch.unflatten(decay, 1, (groups, -1)).mul_(products[:, :, None]).flatten(1, 2)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mixed: Tensor,
        dt: Tensor,
        A: Tensor,
        D: Tensor,
        initial: Tensor | None,
        documents: Tensor | None,
        heads: Heads,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        rows, time = mixed.shape[:2]
        wide = dt.dtype
        mixed = mixed.to(wide)
        parts = _Views(mixed, heads, chunk)
        steps = dt.reshape(-1, chunk, heads.heads)
        numbers = documents.reshape(-1, chunk) if documents is not None else None
        decays = _Decays.of(steps * A, numbers, rows)
        chunks = steps.shape[0]
        y = torch.empty(chunks, chunk, heads.heads, heads.head_dim, dtype=wide, device=mixed.device)
        states = torch.empty(
            chunks, heads.groups, heads.state, heads.wide, dtype=wide, device=mixed.device
        )
        for part in _blocks(chunks, heads.heads, chunk):
            x = parts.x[part]
            weights = _grouped(_products(parts, part), decays.between(part)).flatten(0, 1)
            inner = torch.bmm(weights, _heads_first(x, steps[part]))
            inner = inner.view(-1, heads.heads, chunk, heads.head_dim).transpose(1, 2)
            torch.addcmul(inner, x, D[:, None], out=y[part])
            fed = x * (steps[part] * decays.inward[part])[..., None]
            for group in range(heads.groups):
                b = parts.b[part, :, group].transpose(1, 2)
                states[part, group] = torch.bmm(b, fed[:, :, _own(heads, group)].flatten(2))
        final = _carry_forward(states, decays.carry, initial, rows, heads)
        for part in _blocks(chunks, heads.heads, chunk):
            for group in range(heads.groups):
                seen = torch.bmm(parts.c[part, :, group], states[part, group])
                own = _own(heads, group)
                y[part, :, own].addcmul_(
                    torch.unflatten(seen, -1, (-1, heads.head_dim)),
                    decays.outward[part, :, own, None],
                )
        ctx.save_for_backward(mixed, dt, A, D, documents, states, final, y)
        ctx.heads, ctx.chunk = heads, chunk
        ctx.needs_state = ctx.needs_input_grad[4]
        return y.view(rows, time, heads.inner), final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad_y.device.type, enabled=False):
            mixed, dt, A, D, initial = _backward(ctx, grad_y, grad_final)
        return mixed, dt, A, D, initial if ctx.needs_state else None, None, None, None


def _backward(ctx: Any, grad_y: Tensor, grad_final: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the mixed channels, the steps, A, D and the initial state.

    With Z the cumulated sums: a token's output depends on Z_i only through the factor exp(Z_i),
    and what it feeds only through exp(-Z_j). So the gradient of Z is <dy, y> - <d fed, fed>, and
    the last token's gets <dS, S> of the state that leaves; no decay matrix has a gradient of its
    own.
    """
    mixed, dt, A, D, documents, states, final, y = ctx.saved_tensors
    heads, chunk = ctx.heads, ctx.chunk
    rows = mixed.shape[0]
    parts = _Views(mixed, heads, chunk)
    steps = dt.reshape(-1, chunk, heads.heads)
    numbers = documents.reshape(-1, chunk) if documents is not None else None
    decays = _Decays.of(steps * A, numbers, rows)
    grad_mixed = torch.empty_like(mixed, memory_format=torch.contiguous_format)
    grads = _Views(grad_mixed, heads, chunk)
    upstream = grad_y.reshape(y.shape).to(dt.dtype)
    arriving = torch.empty_like(states)
    for part in _blocks(steps.shape[0], heads.heads, chunk):
        pulled = upstream[part] * decays.outward[part, ..., None]
        for group in range(heads.groups):
            theirs = pulled[:, :, _own(heads, group)].flatten(2)
            arriving[part, group] = torch.bmm(parts.c[part, :, group].transpose(1, 2), theirs)
            grads.c[part, :, group] = torch.bmm(theirs, states[part, group].transpose(1, 2))
    grad_initial = _carry_backward(arriving, decays.carry, grad_final, rows)
    grad_sums = (upstream * y).sum(-1)
    skipped, grad_steps = torch.empty_like(steps), torch.empty_like(steps)
    for part in _blocks(steps.shape[0], heads.heads, chunk):
        x, grad_x = parts.x[part], grads.x[part]
        _pull_chunks(parts, grads, part, upstream[part], steps[part], decays, arriving[part], heads)
        torch.sum(grad_x * x, -1, out=grad_steps[part])
        grad_x.mul_(steps[part, ..., None])
        torch.sum(upstream[part] * x, -1, out=skipped[part])
        grad_x.addcmul_(upstream[part], D[:, None])
    grad_sums.addcmul_(skipped, D, value=-1).addcmul_(grad_steps, steps, value=-1)
    leaving = torch.cat([states.view(rows, -1, *states.shape[1:])[:, 1:], final[:, None]], 1)
    kept = torch.unflatten(arriving * leaving.view_as(arriving), -1, (-1, heads.head_dim))
    grad_sums[:, -1] += kept.sum((2, 4)).flatten(1)
    grad_log = grad_sums.flip(1).cumsum(1).flip(1)
    grad_steps.addcmul_(grad_log, A)
    grad_a = (grad_log * steps).sum((0, 1))
    return grad_mixed, grad_steps.view_as(dt), grad_a, skipped.sum((0, 1)), grad_initial


def _pull_chunks(
    parts: _Views,
    grads: _Views,
    part: slice,
    upstream: Tensor,
    steps: Tensor,
    decays: _Decays,
    arriving: Tensor,
    heads: Heads,
) -> None:
    """Gradients of x (of what it feeds, so far), B and C of a few chunks, into ``grads``."""
    x, chunk = parts.x[part], steps.shape[1]
    decay = decays.between(part)
    above = _heads_first(upstream)
    inner = torch.bmm(above, _heads_first(x, steps).transpose(1, 2)).view_as(decay)
    inner = torch.unflatten(inner.mul_(decay), 1, (heads.groups, -1)).sum(2)
    weights = _grouped(_products(parts, part), decay).flatten(0, 1)
    fed = torch.bmm(weights.transpose(1, 2), above)
    grad_fed = fed.view(-1, heads.heads, chunk, heads.head_dim).transpose(1, 2)
    fed = x * (steps * decays.inward[part])[..., None]
    for group in range(heads.groups):
        b, c, own = parts.b[part, :, group], parts.c[part, :, group], _own(heads, group)
        grads.c[part, :, group] += torch.bmm(inner[:, group], b)
        grad_b = torch.bmm(inner[:, group].transpose(1, 2), c)
        grad_b.baddbmm_(fed[:, :, own].flatten(2), arriving[:, group].transpose(1, 2))
        grads.b[part, :, group] = grad_b
        through = torch.unflatten(torch.bmm(b, arriving[:, group]), -1, (-1, heads.head_dim))
        inward = decays.inward[part, :, own, None]
        torch.addcmul(grad_fed[:, :, own], through, inward, out=grads.x[part][:, :, own])


def _own(heads: Heads, group: int) -> slice:
    """The heads of one group."""
    size = heads.heads // heads.groups
    return slice(group * size, (group + 1) * size)


def _products(parts: _Views, part: slice) -> Tensor:
    """(k, G, Q, Q): ``C_i B_j`` of each group."""
    return torch.einsum("kign,kjgn->kgij", parts.c[part], parts.b[part])


def _per_channel(carry: Tensor, head_dim: int, groups: int) -> Tensor:
    """(..., H) factors as (..., G, 1, R P)."""
    return torch.unflatten(carry.repeat_interleave(head_dim, -1), -1, (groups, 1, -1))


def _carry_forward(
    states: Tensor, carry: Tensor, initial: Tensor | None, rows: int, heads: Heads
) -> Tensor:
    """Turn what each chunk adds, (n, G, N, R P), into the state that enters it; gives the last."""
    by_row = states.view(rows, -1, *states.shape[1:])
    factors = _per_channel(carry.view(rows, -1, heads.heads), heads.head_dim, heads.groups)
    current = torch.zeros_like(by_row[:, 0]) if initial is None else initial.to(states.dtype)
    for chunk in range(by_row.shape[1]):
        following = torch.addcmul(by_row[:, chunk], current, factors[:, chunk])
        by_row[:, chunk] = current
        current = following
    return current


def _carry_backward(arriving: Tensor, carry: Tensor, grad_final: Tensor, rows: int) -> Tensor:
    """Turn the gradient of the state that enters each chunk, by its own tokens alone, into that of
    the state that leaves it; returns the gradient of the initial state.
    """
    by_row = arriving.view(rows, -1, *arriving.shape[1:])
    groups, width = arriving.shape[1], arriving.shape[-1]
    head_dim = groups * width // carry.shape[-1]
    factors = _per_channel(carry.view(rows, -1, carry.shape[-1]), head_dim, groups)
    current = grad_final.to(arriving.dtype)
    for chunk in reversed(range(by_row.shape[1])):
        following = torch.addcmul(by_row[:, chunk], current, factors[:, chunk])
        by_row[:, chunk] = current
        current = following
    return current
