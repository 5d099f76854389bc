"""What keeps one bad batch from ruining a run: steps with an absurd gradient are not taken.

The guard knows the loss and the gradient norm of the last 128 steps. A step whose norm lies more
than k standard deviations above their mean, and above twice the second largest of them, is skipped:
its data are consumed, the weights and the optimiser stay as they are. The second bound is for
batches of few sequences, whose norms have tails that no number of deviations fits: of 1,720
ordinary steps of two sequences each, 6 deviations alone would have skipped 15, both bounds skip 4;
of ordinary norms made 20 times as large they miss 0 and 1.3 %. What the guard knows is part of a
checkpoint, so that a run that was killed skips the same steps as one that was not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

WINDOW = 128
"""Steps that the guard remembers."""
LEAST_HISTORY = 64
"""Steps before which nothing counts as a spike: at first, norms fall steeply."""
_SEEN = 2.0

Reaction = Literal["skip", "stop"]


@dataclass(frozen=True, slots=True)
class GuardRules:
    """When the guard acts, and how.

    Args:
        max_grad_norm_sigma: k; a norm above mean + k standard deviations, and above twice the
            second largest, is a spike; 0: none is.
        on_spike: whether a spike costs the step or ends the run.
        on_nan: the same for a gradient that is not finite.
        max_skips: skipped steps within the last 128; one more ends the run.
    """

    max_grad_norm_sigma: float = 6.0
    on_spike: Reaction = "skip"
    on_nan: Reaction = "stop"
    max_skips: int = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a step must not be taken.

    Args:
        reason: for people.
        stop: whether the run ends here.
    """

    reason: str
    stop: bool


class Guard:
    """Judges each step before it is taken.

    Every finite norm enters the history, those of skipped steps too: where the norm rises for good
    (a new blend, say) a few steps are lost until the new level is an ordinary one.
    """

    def __init__(self, rules: GuardRules) -> None:
        self.rules = rules
        self.skipped = 0
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._skips: list[int] = []

    def judge(self, step: int, loss: float, norm: float) -> Finding | None:
        """Whether ``step`` may be taken; None where it may.

        Args:
            step: its number; each is judged once, in order.
            loss: mean over the global batch.
            norm: of its gradient, before clipping; the same on all ranks.
        """
        rules = self.rules
        found: str | None = None
        reaction = rules.on_nan
        if not math.isfinite(norm):
            found = f"the gradient is not finite (norm {norm})"
        elif norm > (limit := self.limit()):
            found = (
                f"the gradient's norm is {norm:.4g}, more than {limit:.4g}: of the last "
                f"{len(self._norms)} steps the mean + {rules.max_grad_norm_sigma:g} standard "
                f"deviations, and {_SEEN:g} times the second largest (the loss is {loss:.4g}, "
                f"{_deviations(loss, self._losses):+.1f} deviations)"
            )
            reaction = rules.on_spike
        if math.isfinite(norm) and math.isfinite(loss):
            self._losses.append(loss)
            self._norms.append(norm)
        if found is None:
            return None
        if reaction == "stop":
            return Finding(found, stop=True)
        self.skipped += 1
        self._skips = [s for s in self._skips if s > step - WINDOW] + [step]
        if len(self._skips) > rules.max_skips:
            return Finding(
                f"{len(self._skips)} of the last {WINDOW} steps were to be skipped, and "
                f"guard.max_skips is {rules.max_skips}; at last, {found}",
                stop=True,
            )
        return Finding(found, stop=False)

    def limit(self) -> float:
        """The largest norm that is no spike now; infinity while there is too little to compare."""
        if not self.rules.max_grad_norm_sigma or len(self._norms) < LEAST_HISTORY:
            return math.inf
        mean, deviation = _moments(self._norms)
        # Equal norms have a mean that is a rounding error off: they are no spikes.
        bound = (mean + self.rules.max_grad_norm_sigma * deviation) * (1 + 1e-9)
        # The second largest: one true spike must not hide the next.
        return max(bound, _SEEN * sorted(self._norms)[-2])

    def as_json(self) -> dict[str, Any]:
        """All that it remembers, exactly, for a checkpoint."""
        return {
            "skipped": self.skipped,
            "skips": self._skips,
            "losses": list(self._losses),
            "norms": list(self._norms),
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """The reverse of :meth:`as_json`."""
        self.skipped, self._skips = int(record["skipped"]), list(record["skips"])
        self._losses = deque(record["losses"], maxlen=WINDOW)
        self._norms = deque(record["norms"], maxlen=WINDOW)


def _moments(values: deque[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def _deviations(value: float, values: deque[float]) -> float:
    """How many standard deviations ``value`` lies above the mean."""
    mean, deviation = _moments(values)
    return (value - mean) / deviation if deviation else 0.0
