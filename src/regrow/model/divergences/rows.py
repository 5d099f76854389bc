"""The loss of a few rows of logits: temperature, top-k and cross-entropy around a divergence.

Legend: R rows, V vocabulary, K ids that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from regrow.model.divergences import DIVERGENCES, Matching

Formula = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


class RowLoss(NamedTuple):
    """What is made of R rows."""

    divergence: Tensor
    """(R,) nats, times the square of the temperature."""
    cross_entropy: Tensor | None
    """(R,) nats, not weighted; None without targets."""
    gradient: Tensor
    """(R, V) of divergence plus weighted cross-entropy, by the student's logits."""


def compare(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor | None,
    matching: Matching,
    wide: torch.dtype,
) -> RowLoss:
    """Loss and gradient of rows that have a teacher's logits beside them.

    Args:
        student: (R, V) logits; they may be overwritten.
        teacher: (R, V) logits; they may be overwritten.
        targets: (R,) int64 ids, for the cross-entropy.
        matching: what to compute.
        wide: dtype of softmaxes and sums.
    """
    formula: Formula = DIVERGENCES.get(matching.divergence)
    tau = matching.temperature
    log_s = _log_softmax(student, tau, wide)
    log_t = _log_softmax(teacher, tau, wide)
    chosen = p_s = None
    if targets is not None:
        plain = log_s if tau == 1.0 else torch.log_softmax(student, -1, dtype=wide)
        chosen = plain.gather(1, targets[:, None])
        if matching.ce_weight:
            p_s = plain.exp() if tau == 1.0 else plain.exp_()
    if matching.top_k is not None and matching.top_k < log_s.shape[1]:
        divergence, gradient = _top_k(formula, log_s, log_t, matching.top_k, matching.beta)
    else:
        divergence, gradient = formula(log_s, log_t, matching.beta)
    if tau != 1.0:
        divergence.mul_(tau**2)
        gradient.mul_(tau)  # tau^2, and one over tau from the inner derivative
    if p_s is not None and targets is not None:
        weight = matching.ce_weight
        gradient.add_(p_s, alpha=weight)
        gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -weight))
    return RowLoss(divergence, None if chosen is None else -chosen[:, 0], gradient)


def _log_softmax(logits: Tensor, temperature: float, wide: torch.dtype) -> Tensor:
    if temperature != 1.0:
        logits = logits.to(wide) / temperature
    return torch.log_softmax(logits, -1, dtype=wide)


def _top_k(
    formula: Formula, log_s: Tensor, log_t: Tensor, k: int, beta: float
) -> tuple[Tensor, Tensor]:
    """The divergence of K + 1 outcomes: the teacher's likeliest ids, and any other.

    The probability of *any other* is summed over the ids that it stands for, so it is exact however
    small it is. A student's id that is among the others moves their sum by its own share of it.
    """
    kept_t, ids = log_t.topk(k, -1, sorted=False)
    kept_s = log_s.gather(1, ids)
    others = [
        torch.logsumexp(log_p.scatter_(1, ids, -torch.inf), -1, keepdim=True)
        for log_p in (log_s, log_t)
    ]
    loss, outcome = formula(
        torch.cat([kept_s, others[0]], 1), torch.cat([kept_t, others[1]], 1), beta
    )
    share = log_s.sub_(others[0]).exp_()  # zero for the ids that are kept
    return loss, share.mul_(outcome[:, -1:]).scatter_(1, ids, outcome[:, :-1])
