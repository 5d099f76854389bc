"""Learning from the full distribution of a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regrow.model.divergences import Matching
from regrow.train.objective import Loss
from regrow.train.objectives.hidden_match import (
    MAP,
    HiddenMatch,
    distances,
    dynamic_weights,
    watched,
)
from regrow.train.objectives.next_token import TokenBatch

IGNORED = -100


class Distillation:
    """Divergence of student from teacher at every target position.

    ``sum over targets of tau^2 * D(p_teacher(tau), p_student(tau))``, plus ``ce_weight`` times the
    cross-entropy, plus ``alpha`` times the distance of hidden states. Logged per target: ``kl``
    (the divergence, whichever it is), ``ce``, and with hidden states ``hidden`` (their distance)
    and ``alpha``.

    Args:
        student: the decoder to train.
        teacher: a decoder of the same vocabulary; never changed, always in evaluation mode.
        temperature: tau, by which both sides' logits are divided.
        ce_weight: weight of the cross-entropy; 0 for none.
        divergence: ``fkl``, ``rkl`` or ``jsd``.
        beta: the teacher's share of the mixture of ``jsd``.
        top_k: compare the teacher's k likeliest ids and all others as one.
        vocabulary: ids that are compared, where the matrices have padding behind them that may
            differ; all by default.
        hidden: hidden states to compare; the student must have its map
            (:func:`regrow.train.objectives.hidden_match.add_map`).

    Raises:
        ValueError: the vocabularies differ, a setting is out of range, or the map is missing.

    Source: Minitron (arXiv 2407.14679, section 3): logit-only distillation is the best recipe.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        temperature: float = 1.0,
        ce_weight: float = 0.0,
        *,
        divergence: str = "fkl",
        beta: float = 0.5,
        top_k: int | None = None,
        vocabulary: int | None = None,
        hidden: HiddenMatch | None = None,
    ) -> None:
        self.matching = Matching(divergence, temperature, top_k, beta, ce_weight)
        self._student: Any = student
        self._teacher: Any = teacher.eval().requires_grad_(False)
        sizes = [getattr(m.config, "vocab_size", None) for m in (self._student, self._teacher)]
        if sizes[0] != sizes[1] and vocabulary is None:
            raise ValueError(
                f"the student has {sizes[0]} ids, the teacher {sizes[1]}: not the same"
            )
        self.vocabulary = vocabulary
        if hidden is not None:
            if not hidden.places:
                raise ValueError("hidden names no pair of layers and no embedding")
            if not hasattr(student, MAP):
                raise ValueError("the student has no map to the teacher's width: call add_map")
        self.hidden = hidden

    def loss(self, batch: TokenBatch) -> Loss:
        """Divergence, and what else is weighted, summed over the targets."""
        places = self.hidden.places if self.hidden is not None else ()
        with torch.no_grad(), watched(self._teacher, [theirs for _, theirs in places]) as goals:
            taught: Tensor = self._teacher.hidden(batch.tokens, batch.documents)
        with watched(self._student, [ours for ours, _ in places]) as states:
            hidden: Tensor = self._student.hidden(batch.tokens, batch.documents)
        made = self._student.head.match(
            hidden,
            taught,
            self._teacher.head,
            self.matching,
            targets=batch.targets,
            vocabulary=self.vocabulary,
        )
        metrics = {"kl": made.divergence.sum(), "ce": made.cross_entropy}
        if self.hidden is None:
            return Loss(made.loss, made.tokens, metrics)
        rows = (batch.targets.flatten() != IGNORED).nonzero().squeeze(-1)
        each = distances(self.hidden, getattr(self._student, MAP), states, goals, rows)
        if self.hidden.alpha == "dynamic":
            count, time = batch.targets.shape
            sequence = rows // time
            sums = each.new_zeros(count).index_add(0, sequence, each.detach())
            alpha = dynamic_weights(made.divergence.sum(-1), sums)[sequence]
        else:
            alpha = each.new_full(each.shape, self.hidden.alpha)
        total = made.loss + (alpha * each).sum()
        metrics |= {"hidden": each.detach().sum(), "alpha": alpha.sum()}
        return Loss(total, made.tokens, metrics)

    def trainable(self) -> nn.Module:
        """The student."""
        module: nn.Module = self._student
        return module
