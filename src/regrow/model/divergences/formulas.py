"""Divergences of rows of log-probabilities, each with its gradient.

A formula takes ``log_s`` and ``log_t``, (R, V) normalised log-probabilities of student and teacher,
both its own to overwrite, and ``beta``. It gives the divergence of each row (R,) in nats, and its
gradient (R, V) with respect to logits of which ``log_s`` is the log-softmax.

For a divergence with partial derivatives ``u = dL/dp_s`` that gradient is ``p_s (u - sum(p_s u))``.

Legend: R rows, V ids.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward_kl(log_s: Tensor, log_t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """``KL(p_t || p_s)``, with the gradient ``p_s - p_t``.

    Source: Minitron (arXiv 2407.14679), section 3.3.
    """
    p_t = log_t.exp()
    loss = log_t.sub_(log_s).mul_(p_t).sum(-1)
    return loss, log_s.exp_().sub_(p_t)


def reverse_kl(log_s: Tensor, log_t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """``KL(p_s || p_t)``, with the gradient ``p_s (log p_s - log p_t - KL)``.

    Source: MiniLLM (arXiv 2306.08543), section 2.1.
    """
    ratio = log_t.neg_().add_(log_s)
    p_s = log_s.exp_()
    loss = (p_s * ratio).sum(-1)
    return loss, p_s.mul_(ratio.sub_(loss[:, None]))


def jensen_shannon(log_s: Tensor, log_t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """``beta KL(p_t || m) + (1 - beta) KL(p_s || m)`` with ``m = beta p_t + (1 - beta) p_s``.

    ``dL/dp_s`` is ``(1 - beta) log(p_s / m)`` up to a constant. Where both underflow to zero their
    mixture is raised to the smallest number, so that zero times its logarithm stays zero.

    Source: GKD (arXiv 2306.13649), section 2.
    """
    p_s, p_t = log_s.exp(), log_t.exp()
    log_m = (p_t * beta).add_(p_s, alpha=1 - beta)
    log_m.clamp_(min=torch.finfo(log_m.dtype).tiny).log_()
    theirs = log_t.sub_(log_m).mul_(p_t).sum(-1)
    ratio = log_s.sub_(log_m)
    ours = torch.mul(p_s, ratio, out=log_m).sum(-1)
    gradient = p_s.mul_(ratio.sub_(ours[:, None])).mul_(1 - beta)
    return theirs.mul_(beta).add_(ours, alpha=1 - beta), gradient
