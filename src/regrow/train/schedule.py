"""Learning rates as pure functions of consumed tokens.

"Consumed" counts the batch of the step itself: the first step of a warmup already learns, the last
step of a decay has exactly the minimum, and each record of ``metrics.jsonl`` holds
``lr == schedule.lr_at(tokens)``. Steps play no part, so batches may change their size on the way.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

ScheduleName = Literal["cosine", "wsd", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warmup from zero, then the named curve from ``lr`` to ``lr * min_ratio``.

    Args:
        name: ``cosine``; ``linear``; ``wsd`` (constant, then a linear decay over the last
            ``decay_fraction`` of all tokens); ``constant``.
        lr: the peak rate, eta.
        tokens: T, consumed tokens at which the minimum is reached.
        min_ratio: m, the minimum as a share of the peak.
        warmup_tokens: W; the rate is ``lr * t / W`` before.
        decay_fraction: only for ``wsd``.
    """

    name: ScheduleName
    lr: float
    tokens: int
    min_ratio: float = 0.1
    warmup_tokens: int = 0
    decay_fraction: float = 0.2

    @property
    def min_lr(self) -> float:
        """The rate at the end."""
        return self.lr if self.name == "constant" else self.lr * self.min_ratio

    @property
    def decay_start(self) -> float:
        """Consumed tokens after which the rate falls."""
        if self.name == "wsd":
            return max(self.tokens * (1 - self.decay_fraction), self.warmup_tokens)
        return self.warmup_tokens

    def lr_at(self, consumed: float) -> float:
        """The rate of the step that brings the consumed tokens to ``consumed``."""
        if consumed < self.warmup_tokens:
            return self.lr * consumed / self.warmup_tokens
        start = self.decay_start
        if self.name == "constant" or consumed <= start:
            return self.lr
        if consumed >= self.tokens:
            return self.min_lr
        progress = (consumed - start) / (self.tokens - start)
        share = (1 + math.cos(math.pi * progress)) / 2 if self.name == "cosine" else 1 - progress
        return self.lr * (self.min_ratio + (1 - self.min_ratio) * share)

    def tokens_at_lr_fraction(self, fraction: float) -> float:
        """Consumed tokens, after the warmup, at which the rate has fallen to ``fraction * lr``.

        For a cosine without warmup and minimum ratio m that is
        ``T * acos(2 (f - m) / (1 - m) - 1) / pi``; with m = 0.01 and f = 1/5, 0.7113 T.

        Args:
            fraction: f, in (0, 1).

        Raises:
            ValueError: the curve never comes down to it.

        Source: Reuse, Don't Retrain (arXiv 2407.07263), the switch at eta/5.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"lr_fraction {fraction:g} must lie between 0 and 1")
        if self.name == "constant":
            raise ValueError(
                f"lr_fraction {fraction:g} is never reached on a constant schedule; "
                "end the phase at tokens or at a fraction"
            )
        m = self.min_ratio
        if fraction < m:
            raise ValueError(
                f"lr_fraction {fraction:g} is never reached: the schedule ends at min_ratio {m:g}"
            )
        share = min(1.0, (fraction - m) / (1 - m))
        progress = math.acos(2 * share - 1) / math.pi if self.name == "cosine" else 1 - share
        start = self.decay_start
        return start + progress * (self.tokens - start)

    def as_json(self) -> dict[str, Any]:
        """The schedule as a JSON-able object."""
        return asdict(self)
