"""Next-token cross-entropy.

Legend: B batch, T time, D model.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from regrow.train.objective import Loss


class TokenBatch(Protocol):
    """What the language objectives read of a batch."""

    @property
    def tokens(self) -> Tensor:
        """(B, T) int64 ids."""

    @property
    def targets(self) -> Tensor:
        """(B, T) int64 ids to predict; -100 where there is nothing to predict."""

    @property
    def documents(self) -> Tensor | None:
        """(B, T) numbers of the documents, where attention stays inside them."""


def cross_entropy(model: Any, batch: TokenBatch) -> tuple[Tensor, int | Tensor]:
    """Summed cross-entropy in nats, and how many targets it sums.

    Args:
        model: a :class:`regrow.model.decoder.Decoder`, or whatever has its ``hidden`` and ``head``.
        batch: one micro-batch.
    """
    hidden = model.hidden(batch.tokens, batch.documents)
    total, count = model.head.cross_entropy(hidden.flatten(0, 1), batch.targets.flatten())
    return total, count


class NextToken:
    """Predict each token from those before it.

    Args:
        model: the decoder to train.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def loss(self, batch: TokenBatch) -> Loss:
        """Cross-entropy summed over the targets."""
        total, count = cross_entropy(self.model, batch)
        return Loss(total, count)

    def trainable(self) -> nn.Module:
        """The decoder."""
        return self.model
