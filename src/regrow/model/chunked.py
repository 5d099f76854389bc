"""Losses over a large vocabulary whose gradients are formed in the forward pass, chunk by chunk.

For a chunk of C tokens: project to logits, take the softmax in fp32, add to the loss, turn the
probabilities in place into the gradient of the logits, and multiply it back into the gradients of
the hidden states and of the matrix. Logits of one chunk exist at a time.

Here are the parts that all such losses share, and the cross-entropy; ``chunked_matching.py`` has
the losses against a teacher.

Legend: N tokens, C tokens of a chunk, D model, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Target that marks "no target here", as in torch.
IGNORED = -100

#: Elements of a chunk's logits. On a CPU a chunk should stay in the outer cache (256 tokens at a
#: vocabulary of 4096 measured best of 64 to 2048); on a GPU it should keep every core busy.
_CPU_ELEMENTS = 1 << 20
_GPU_ELEMENTS = 1 << 28


def chunk_size(vocabulary: int, device: torch.device) -> int:
    """Tokens of one chunk."""
    elements = _CPU_ELEMENTS if device.type == "cpu" else _GPU_ELEMENTS
    return max(128, elements // vocabulary)


class Accumulator:
    """Gradients of hidden states (N, D) and matrix (V, D), filled chunk by chunk.

    Products are in the operands' dtype; the matrix's gradient is summed over chunks in fp32.
    """

    def __init__(self, hidden: Tensor, matrix: Tensor, needs: tuple[bool, bool]) -> None:
        wide = torch.promote_types(matrix.dtype, torch.float32)
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        self.matrix = torch.zeros_like(matrix, dtype=wide) if needs[1] else None

    def add(self, rows: slice, gradient: Tensor, hidden: Tensor, matrix: Tensor) -> None:
        """``gradient`` (C, V) of the logits of ``rows``, with both operands of the projection."""
        if self.hidden is not None:
            self.hidden[rows] = gradient @ matrix
        if self.matrix is not None:
            if self.matrix.dtype == gradient.dtype:
                self.matrix.addmm_(gradient.t(), hidden)
            else:
                self.matrix += gradient.t() @ hidden


def save_gradients(ctx: Any, hidden: Tensor, matrix: Tensor, grads: Accumulator | None) -> None:
    """Keep for the backward pass what the forward pass has made."""
    ctx.dtypes = hidden.dtype, matrix.dtype
    ctx.save_for_backward(
        *(() if grads is None else (g for g in (grads.hidden, grads.matrix) if g is not None))
    )
    ctx.has = (
        (False, False) if grads is None else (grads.hidden is not None, grads.matrix is not None)
    )


def scaled_gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The saved gradients times the upstream one."""
    saved = iter(ctx.saved_tensors)
    hidden, matrix = (next(saved) if present else None for present in ctx.has)
    # The loop sums losses, so the upstream gradient is mostly one; only a CPU reads it for free.
    if not (upstream.device.type == "cpu" and upstream.item() == 1.0):
        hidden = hidden * upstream.to(hidden.dtype) if hidden is not None else None
        matrix = matrix * upstream.to(matrix.dtype) if matrix is not None else None
    return (
        hidden.to(ctx.dtypes[0]) if hidden is not None else None,
        matrix.to(ctx.dtypes[1]) if matrix is not None else None,
    )


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int
    ) -> Tensor:
        needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        grads = Accumulator(hidden, matrix, needs) if any(needs) else None
        wide = torch.promote_types(dtype, torch.float32)
        hidden_c, matrix_c = hidden.to(dtype), matrix.to(dtype)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, hidden.shape[0], chunk):
                rows = slice(start, start + chunk)
                target = targets[rows, None]
                log_p = torch.log_softmax(hidden_c[rows] @ matrix_c.t(), -1, dtype=wide)
                chosen = log_p.gather(1, target)
                total -= chosen.sum()
                if grads is not None:
                    # d loss / d logits = softmax - one_hot; expm1 keeps p - 1 exact near p = 1.
                    gradient = log_p.exp_().scatter_(1, target, chosen.expm1()).to(dtype)
                    grads.add(rows, gradient, hidden_c[rows], matrix_c)
        save_gradients(ctx, hidden, matrix, grads)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return *scaled_gradients(ctx, upstream[0]), None, None, None


def cross_entropy(
    hidden: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int
) -> Tensor:
    """Sum over tokens of ``-log softmax(h W^T)[target]``.

    Args:
        hidden: (N, D).
        matrix: (V, D).
        targets: (N,) int64, all of them ids.
        dtype: of the products.
        chunk: tokens at a time.

    Returns:
        Scalar in fp32 (float64 for float64 operands).
    """
    total: Tensor = apply(_CrossEntropy, hidden, matrix, targets, dtype, chunk)
    return total


def apply(function: Any, hidden: Tensor, matrix: Tensor, *rest: Any) -> Any:
    """Apply an autograd function, with inputs that ask for gradients only where they are on."""
    if not torch.is_grad_enabled():
        hidden, matrix = hidden.detach(), matrix.detach()
    return function.apply(hidden, matrix, *rest)
