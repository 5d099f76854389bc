"""The output head: logits, and losses that never hold the logits of more than a chunk of tokens.

Legend: B batch, T time, N tokens of a flattened batch, D model, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model import chunked
from regrow.model.config import ModelConfig
from regrow.model.norm import output_dtype


class OutputHead(nn.Module):
    """Hidden states to logits: ``h W^T``.

    Args:
        config: the shape.
        embedding: whose matrix to use when the two are tied; the head then has no parameter of its
            own, and none in the state dict.
    """

    def __init__(self, config: ModelConfig, embedding: nn.Embedding | None) -> None:
        super().__init__()
        # In a tuple, so that the embedding is not registered as a part of the head.
        self._tied = (embedding,) if embedding is not None else ()
        if embedding is None:
            self.weight = nn.Parameter(torch.zeros(config.vocab_size, config.hidden_size))

    @property
    def matrix(self) -> Tensor:
        """The (V, D) output matrix, tied or not."""
        return self._tied[0].weight if self._tied else self.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return F.linear(hidden, self.matrix)

    def cross_entropy(
        self, hidden: Tensor, targets: Tensor, chunk_tokens: int | None = None
    ) -> tuple[Tensor, int]:
        """Next-token loss summed over targets.

        The gradients of the hidden states and of the matrix are formed in the forward pass, chunk
        by chunk, so memory does not grow with N x V.

        Args:
            hidden: (N, D), or (B, T, D).
            targets: (N,), or (B, T), int64; -100 is not a target.
            chunk_tokens: tokens whose logits exist at once; chosen by V when not given. The result
                does not depend on it beyond rounding.

        Returns:
            The sum in nats (fp32 scalar, differentiable), and the number of targets.
        """
        hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        rows = _selected(targets != chunked.IGNORED)
        if rows is not None:
            hidden, targets = hidden[rows], targets[rows]
        chunk = chunk_tokens or chunked.chunk_size(self.matrix.shape[0], hidden.device)
        loss = chunked.cross_entropy(hidden, self.matrix, targets, output_dtype(hidden), chunk)
        return loss, targets.shape[0]

    def distillation(
        self,
        hidden: Tensor,
        teacher_hidden: Tensor,
        teacher_head: OutputHead,
        mask: Tensor | None = None,
        temperature: float = 1.0,
        chunk_tokens: int | None = None,
    ) -> tuple[Tensor, int]:
        """Forward KL divergence from the teacher's next-token distribution, summed over tokens.

        ``temperature^2 * sum_v p_t(v) (log p_t(v) - log p_s(v))``, both softmaxes at that
        temperature (the factor keeps the gradient's size). Chunked as :meth:`cross_entropy`; the
        teacher gets no gradient.

        Args:
            hidden: (N, D) of the student, or (B, T, D).
            teacher_hidden: (N, D') of the teacher on the same tokens; D' may differ.
            teacher_head: the teacher's head, over the same vocabulary.
            mask: (N,) or (B, T) bool, True where a token counts; all without it.
            temperature: softens both distributions when above 1.
            chunk_tokens: as in :meth:`cross_entropy`.

        Returns:
            The sum in nats (fp32 scalar, differentiable), and the number of tokens that count.

        Raises:
            ValueError: the two vocabularies differ in size, or the temperature is not positive.

        Source: Minitron (arXiv 2407.14679), section 3.3: KL divergence alone, temperature 1.
        """
        if teacher_head.matrix.shape[0] != self.matrix.shape[0]:
            raise ValueError(
                f"the teacher has a vocabulary of {teacher_head.matrix.shape[0]}, the student of "
                f"{self.matrix.shape[0]}; both must be the same"
            )
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        hidden = hidden.reshape(-1, hidden.shape[-1])
        teacher_hidden = teacher_hidden.reshape(-1, teacher_hidden.shape[-1])
        rows = _selected(mask.reshape(-1)) if mask is not None else None
        if rows is not None:
            hidden, teacher_hidden = hidden[rows], teacher_hidden[rows]
        chunk = chunk_tokens or chunked.chunk_size(self.matrix.shape[0], hidden.device)
        loss = chunked.distillation(
            hidden,
            self.matrix,
            teacher_hidden.detach(),
            teacher_head.matrix.detach(),
            temperature,
            output_dtype(hidden),
            output_dtype(teacher_head.matrix),
            chunk,
        )
        return loss, hidden.shape[0]


def _selected(counts: Tensor) -> Tensor | None:
    """Indices of the True entries, or None when all are."""
    rows = counts.nonzero().squeeze(-1)
    return None if rows.shape[0] == counts.shape[0] else rows
