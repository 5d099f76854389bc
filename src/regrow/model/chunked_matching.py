"""A student's logits against its teacher's, chunk by chunk, with the gradient formed in the forward
pass.

A chunk of C tokens is projected as one, so that the matrices are read from memory few times. Its
logits are then compared a few rows at a time: those rows stay in the cache through all the passes
that softmaxes, divergence and gradient take. The gradient is written over the student's logits, in
buffers that every chunk uses again.

Legend: N tokens, C tokens of a chunk, D model, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regrow.model.chunked import Accumulator, apply, save_gradients, scaled_gradients
from regrow.model.divergences import Matching
from regrow.model.divergences.rows import compare

#: Tokens that are projected as one on a CPU, at the least; more where the vocabulary is small.
_CPU_TOKENS = 192
_CPU_ELEMENTS = 1 << 20
_GPU_ELEMENTS = 1 << 28

#: Logits that are compared as one on a CPU: a few copies of them should stay in its cache.
_ROW_ELEMENTS = 1 << 17


def chunk_size(vocabulary: int, device: torch.device) -> int:
    """Tokens of one chunk."""
    if device.type == "cpu":
        return max(_CPU_TOKENS, _CPU_ELEMENTS // vocabulary)
    return max(_CPU_TOKENS, _GPU_ELEMENTS // vocabulary)


def _rows_at_once(vocabulary: int, device: torch.device, chunk: int) -> int:
    if device.type != "cpu":
        return chunk
    return max(torch.get_num_threads(), _ROW_ELEMENTS // vocabulary)


class _Matching(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        teacher_hidden: Tensor,
        teacher_matrix: Tensor,
        targets: Tensor | None,
        matching: Matching,
        dtype: torch.dtype,
        teacher_dtype: torch.dtype,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        grads = Accumulator(hidden, matrix, needs) if any(needs) else None
        count, vocabulary = hidden.shape[0], matrix.shape[0]
        wide = torch.promote_types(dtype, torch.float32)
        ours, theirs = hidden.to(dtype), teacher_hidden.to(teacher_dtype)
        our_matrix, their_matrix = matrix.to(dtype), teacher_matrix.to(teacher_dtype)
        divergence = torch.zeros(count, dtype=wide, device=hidden.device)
        entropy = torch.zeros((), dtype=wide, device=hidden.device)
        chunk = min(chunk, count)
        stride = _rows_at_once(vocabulary, hidden.device, chunk)
        our_logits = ours.new_empty(chunk, vocabulary)
        their_logits = theirs.new_empty(chunk, vocabulary)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, count, max(1, chunk)):
                rows = slice(start, min(start + chunk, count))
                ours_c, theirs_c = ours[rows], theirs[rows]
                size = ours_c.shape[0]
                student = torch.mm(ours_c, our_matrix.t(), out=our_logits[:size])
                teacher = torch.mm(theirs_c, their_matrix.t(), out=their_logits[:size])
                for first in range(0, size, stride):
                    few = slice(first, min(first + stride, size))
                    places = slice(start + few.start, start + few.stop)
                    target = targets[places] if targets is not None else None
                    made = compare(student[few], teacher[few], target, matching, wide)
                    divergence[places] = made.divergence
                    if made.cross_entropy is not None:
                        entropy += made.cross_entropy.sum()
                    if grads is not None:
                        student[few] = made.gradient
                if grads is not None:
                    grads.add(rows, student, ours_c, our_matrix)
        save_gradients(ctx, hidden, matrix, grads)
        ctx.mark_non_differentiable(divergence, entropy)
        return divergence.sum() + matching.ce_weight * entropy, divergence, entropy

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return *scaled_gradients(ctx, upstream[0]), *[None] * 7


def match(
    hidden: Tensor,
    matrix: Tensor,
    teacher_hidden: Tensor,
    teacher_matrix: Tensor,
    targets: Tensor | None,
    matching: Matching,
    dtype: torch.dtype,
    teacher_dtype: torch.dtype,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Divergence from a teacher, plus weighted cross-entropy, summed over tokens.

    Args:
        hidden: (N, D) of the student.
        matrix: (V, D) of the student.
        teacher_hidden: (N, D').
        teacher_matrix: (V, D').
        targets: (N,) int64, all of them ids; None where there is no cross-entropy to tell.
        matching: what to compute.
        dtype: of the student's products.
        teacher_dtype: of the teacher's.
        chunk: tokens at a time.

    Returns:
        The loss, a differentiable scalar; the divergence of each token (N,) and the sum of the
        cross-entropy, both without a gradient and not weighted. All in fp32 (float64 for float64
        operands).
    """
    made: tuple[Tensor, Tensor, Tensor] = apply(
        _Matching,
        hidden,
        matrix,
        teacher_hidden,
        teacher_matrix,
        targets,
        matching,
        dtype,
        teacher_dtype,
        chunk,
    )
    return made
