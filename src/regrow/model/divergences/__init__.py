"""How far a student's next-token distribution is from its teacher's: formulas by name.

To add one: a function in ``formulas.py`` (see there for what it is given and gives), a line in
``DIVERGENCES``, and its formula written out in ``tests/model/test_divergences.py``. Chunks,
temperature, top-k and cross-entropy are the same for all, and no formula knows of them. No torch
here: settings read this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regrow.core.registry import Registry

DIVERGENCES: Registry[Any] = Registry(
    "divergence",
    {
        "fkl": "regrow.model.divergences.formulas:forward_kl",
        "rkl": "regrow.model.divergences.formulas:reverse_kl",
        "jsd": "regrow.model.divergences.formulas:jensen_shannon",
    },
)


@dataclass(frozen=True, slots=True)
class Matching:
    """What a student's logits are to match, and how.

    Args:
        divergence: a name of :data:`DIVERGENCES`.
        temperature: tau, by which the logits of both sides are divided; the divergence is
            multiplied by tau^2, which keeps the gradient's size.
        top_k: compare the teacher's k likeliest ids and all others as one; None for every id.
        beta: ``jsd``: the teacher's share of the mixture.
        ce_weight: weight of the cross-entropy (at temperature 1) that is added.

    Raises:
        ValueError: a setting is out of range.
    """

    divergence: str = "fkl"
    temperature: float = 1.0
    top_k: int | None = None
    beta: float = 0.5
    ce_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            known = ", ".join(DIVERGENCES.names())
            raise ValueError(f"divergence {self.divergence!r} is unknown (known: {known})")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie between 0 and 1, not {self.beta}")
        if not self.ce_weight >= 0:
            raise ValueError(f"ce_weight must not be negative, not {self.ce_weight}")
