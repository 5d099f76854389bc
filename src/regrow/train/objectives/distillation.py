"""Learning from the full distribution of a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regrow.train.objective import Loss
from regrow.train.objectives.next_token import TokenBatch

IGNORED = -100


class Distillation:
    """Forward KL divergence from teacher to student at every target position.

    ``sum over targets of tau^2 * KL(p_teacher(tau) || p_student(tau))``, plus ``ce_weight`` times
    the cross-entropy. The logged ``kl`` and ``ce`` are per target; ``ce`` only where it is part of
    the loss, since it costs another pass over the vocabulary.

    Args:
        student: the decoder to train.
        teacher: a decoder of the same vocabulary; never changed, always in evaluation mode.
        temperature: tau, by which both sides' logits are divided.
        ce_weight: weight of the cross-entropy; 0 for none.

    Raises:
        ValueError: the vocabularies differ, or a setting is out of range.

    Source: Minitron (arXiv 2407.14679, section 3): logit-only distillation is the best recipe.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        temperature: float = 1.0,
        ce_weight: float = 0.0,
    ) -> None:
        if temperature <= 0 or ce_weight < 0:
            raise ValueError(
                f"temperature {temperature} must be > 0 and ce_weight {ce_weight} >= 0"
            )
        self._student: Any = student
        self._teacher: Any = teacher.eval().requires_grad_(False)
        sizes = [getattr(m.config, "vocab_size", None) for m in (self._student, self._teacher)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the student has {sizes[0]} ids, the teacher {sizes[1]}: not the same"
            )
        self.temperature = temperature
        self.ce_weight = ce_weight

    def loss(self, batch: TokenBatch) -> Loss:
        """KL, and cross-entropy if weighted, summed over the targets."""
        with torch.no_grad():
            taught: Tensor = self._teacher.hidden(batch.tokens, batch.documents)
        hidden: Tensor = self._student.hidden(batch.tokens, batch.documents)
        hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
        kl, count = self._student.head.distillation(
            hidden,
            taught.flatten(0, 1),
            self._teacher.head,
            targets != IGNORED,
            temperature=self.temperature,
        )
        if not self.ce_weight:
            return Loss(kl, count, {"kl": kl.detach()})
        ce, _ = self._student.head.cross_entropy(hidden, targets)
        total = kl + self.ce_weight * ce
        return Loss(total, count, {"kl": kl.detach(), "ce": ce.detach()})

    def trainable(self) -> nn.Module:
        """The student."""
        module: nn.Module = self._student
        return module
