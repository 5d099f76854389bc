"""Divergences of rows of log-probabilities, each with its gradient.

A formula takes ``log_s`` and ``log_t``, (R, V) normalised log-probabilities of student and teacher,
both its own to overwrite, and ``beta``. It gives the divergence of each row (R,) in nats, and its
gradient (R, V) with respect to logits of which ``log_s`` is the log-softmax.

For a divergence with partial derivatives ``u = dL/dp_s`` that gradient is ``p_s (u - sum(p_s u))``.

Legend: R rows, V ids.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: From where on ``softplus(x)`` is x to the last bit, in float64 too.
_LINEAR = 40.0


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

    With ``x = log(beta p_t / ((1 - beta) p_s))`` the logarithms are ``log(p_s / m) =
    -log(1 - beta) - softplus(x)`` and ``log(p_t / m) = -log(beta) - softplus(-x)``. The constants
    have no gradient: without them it keeps its digits where the two hardly overlap, and nothing
    takes the logarithm of a probability that has underflowed.

    Source: GKD (arXiv 2306.13649), section 2.
    """
    x = torch.sub(log_t, log_s).add_(math.log(beta / (1 - beta)))
    p_s, p_t = log_s.exp_(), log_t.exp_()
    ahead = F.softplus(x, threshold=_LINEAR)
    behind = x.neg_().add_(ahead)
    theirs = behind.mul_(p_t).sum(-1).add_(math.log(beta))
    ours = torch.mul(ahead, p_s, out=p_t).sum(-1)
    gradient = ahead.neg_().add_(ours[:, None]).mul_(p_s).mul_(1 - beta)
    loss = theirs.mul_(-beta).sub_(ours.add_(math.log(1 - beta)), alpha=1 - beta)
    return loss, gradient
