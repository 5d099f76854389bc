"""The output head: logits, and losses that never hold the logits of more than a chunk of tokens.

Legend: B batch, T time, N tokens of a flattened batch, D model, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model import chunked, chunked_matching
from regrow.model.config import ModelConfig
from regrow.model.divergences import Matching
from regrow.model.norm import output_dtype


class Matched(NamedTuple):
    """A student's logits against its teacher's."""

    loss: Tensor
    """fp32 scalar, differentiable: divergence plus weighted cross-entropy, summed, in nats."""
    tokens: int
    """How many tokens count."""
    divergence: Tensor
    """(N,) or (B, T) divergence of each token, zero where it does not count; no gradient."""
    cross_entropy: Tensor
    """Scalar: sum of the plain cross-entropy; zero without targets; no gradient."""


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

        :meth:`match` at its plainest; arguments and errors as there.

        Returns:
            The sum in nats (fp32 scalar, differentiable), and the number of tokens that count.
        """
        matching = Matching(temperature=temperature)
        made = self.match(hidden, teacher_hidden, teacher_head, matching, mask, None, chunk_tokens)
        return made.loss, made.tokens

    def match(
        self,
        hidden: Tensor,
        teacher_hidden: Tensor,
        teacher_head: OutputHead,
        matching: Matching,
        mask: Tensor | None = None,
        targets: Tensor | None = None,
        chunk_tokens: int | None = None,
        vocabulary: int | None = None,
    ) -> Matched:
        """Divergence from the teacher's next-token distribution, summed over tokens.

        Chunked as :meth:`cross_entropy`; the teacher gets no gradient.

        Args:
            hidden: (N, D) of the student, or (B, T, D).
            teacher_hidden: (N, D') of the teacher on the same tokens; D' may differ.
            teacher_head: the teacher's head, over the same vocabulary.
            matching: which divergence, at which temperature, with what beside it.
            mask: (N,) or (B, T) bool, True where a token counts; all without it.
            targets: (N,) or (B, T) int64, for the cross-entropy; -100 does not count.
            chunk_tokens: as in :meth:`cross_entropy`.
            vocabulary: compare the first so many ids only: those beyond are padding of the
                matrices, which then may differ in rows.

        Raises:
            ValueError: vocabularies of different sizes, or a cross-entropy without targets.

        Source: Minitron (arXiv 2407.14679), section 3.3: forward KL alone, temperature 1.
        """
        ours, theirs = self.matrix, teacher_head.matrix.detach()
        if vocabulary is not None:
            ours, theirs = ours[:vocabulary], theirs[:vocabulary]
        if theirs.shape[0] != ours.shape[0]:
            raise ValueError(
                f"the teacher has a vocabulary of {theirs.shape[0]}, the student of "
                f"{ours.shape[0]}; both must be the same"
            )
        if matching.ce_weight and targets is None:
            raise ValueError(f"ce_weight {matching.ce_weight} needs targets")
        shape = hidden.shape[:-1]
        hidden = hidden.reshape(-1, hidden.shape[-1])
        teacher_hidden = teacher_hidden.reshape(-1, teacher_hidden.shape[-1]).detach()
        counts = mask.reshape(-1) if mask is not None else None
        if targets is not None:
            targets = targets.reshape(-1)
            given = targets != chunked.IGNORED
            counts = given if counts is None else counts & given
        rows = _selected(counts) if counts is not None else None
        if rows is not None:
            hidden, teacher_hidden = hidden[rows], teacher_hidden[rows]
            targets = targets[rows] if targets is not None else None
        loss, each, entropy = chunked_matching.match(
            hidden,
            ours,
            teacher_hidden,
            theirs,
            targets,
            matching,
            output_dtype(hidden),
            output_dtype(theirs),
            chunk_tokens or chunked_matching.chunk_size(ours.shape[0], hidden.device),
        )
        if rows is not None:
            each = each.new_zeros(shape.numel()).index_copy_(0, rows, each)
        return Matched(loss, hidden.shape[0], each.view(shape), entropy)


def _selected(counts: Tensor) -> Tensor | None:
    """Indices of the True entries, or None when all are."""
    rows = counts.nonzero().squeeze(-1)
    return None if rows.shape[0] == counts.shape[0] else rows
