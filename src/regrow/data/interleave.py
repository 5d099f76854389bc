"""Which source the n-th sample comes from: a fixed interleave that never strays from its weights.

The rule is Tijdeman's for the chairman assignment problem (Discrete Mathematics 32, 1980): of the
sources whose deficit is large enough, take the one whose deadline is nearest. After n samples each
of S sources then has had ``w_i n`` samples up to ``1 - 1/(2S - 2)``, the best bound there is; plain
"largest deficit first" can stray further when many sources fall due together. Weights are taken as
the decimal fractions that they were written as, so the sequence has a period, and any n is found
in it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import gcd, isfinite, lcm

import numpy as np

from regrow.core.errors import ConfigError

# A longer period is not stored: weights are then rounded to this many parts.
MAX_PERIOD = 100_000


def integer_weights(weights: Mapping[str, float]) -> dict[str, int]:
    """The smallest integers in the exact ratio of ``weights``, by sorted name.

    Raises:
        ConfigError: no weights, or one that is not a positive number.
    """
    if not weights:
        raise ConfigError("weights are empty; name at least one source with a weight above 0")
    for name, weight in weights.items():
        if not isfinite(weight) or weight <= 0:
            raise ConfigError(
                f"the weight of {name!r} is {weight}, but must be above 0; "
                "leave a source out that is not to be used"
            )
    exact = {name: Fraction(repr(float(weights[name]))) for name in sorted(weights)}
    scale = lcm(*(value.denominator for value in exact.values()))
    whole = {name: int(value * scale) for name, value in exact.items()}
    divisor = gcd(*whole.values())
    return {name: value // divisor for name, value in whole.items()}


def _rounded(weights: dict[str, int], parts: int) -> dict[str, int]:
    """Integer weights that sum to ``parts``, by largest remainder, at least 1 each."""
    total = sum(weights.values())
    floors = {name: max(1, value * parts // total) for name, value in weights.items()}
    rest = parts - sum(floors.values())
    by_remainder = sorted(weights, key=lambda name: (-(weights[name] * parts % total), name))
    for name in by_remainder[: max(0, rest)]:
        floors[name] += 1
    if rest < 0:
        floors[max(floors, key=lambda name: floors[name])] += rest
    return floors


def _sequence(weights: list[int], length: int) -> list[int]:
    """The first ``length`` choices. All comparisons in integers, times P (2S - 2)."""
    sources = len(weights)
    if sources == 1:
        return [0] * length
    period, scale = sum(weights), 2 * sources - 2
    counts = [0] * sources
    chosen = []
    for n in range(1, length + 1):
        best, best_deadline = -1, 0.0
        for index, weight in enumerate(weights):
            due = scale * (n * weight - counts[index] * period) >= period
            if not due:
                continue
            # Exact enough for an order: ties and near ties may go either way.
            deadline = (scale * (counts[index] + 1) - 1) / weight
            if best < 0 or deadline < best_deadline:
                best, best_deadline = index, deadline
        counts[best] += 1
        chosen.append(best)
    return chosen


class Interleave:
    """The source of each sample of one phase.

    Args:
        weights: source to weight; they need not sum to 1.
        samples: how many samples the phase has.

    Raises:
        ConfigError: see :func:`integer_weights`.
    """

    def __init__(self, weights: Mapping[str, float], samples: int) -> None:
        exact = integer_weights(weights)
        if min(sum(exact.values()), samples) > MAX_PERIOD:
            exact = _rounded(exact, MAX_PERIOD)
        self.names = tuple(exact)
        length = min(sum(exact.values()), samples)
        self._order = np.array(_sequence(list(exact.values()), length), dtype=np.int64)
        self._positions = [np.flatnonzero(self._order == i) for i in range(len(self.names))]
        self._rank = np.empty(length, dtype=np.int64)
        for positions in self._positions:
            self._rank[positions] = np.arange(len(positions))
        self._per_period = np.array([len(p) for p in self._positions], dtype=np.int64)

    def locate(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source and occurrence of samples.

        Args:
            n: sample numbers within the phase, (count,).

        Returns:
            Index into ``names`` and how many samples that source had before, each (count,).
        """
        period, rest = np.divmod(n, len(self._order))
        source = self._order[rest]
        return source, period * self._per_period[source] + self._rank[rest]

    def counts(self, n: int) -> dict[str, int]:
        """How many of the first ``n`` samples come from each source."""
        period, rest = divmod(n, max(1, len(self._order)))
        return {
            name: int(period * self._per_period[i] + np.searchsorted(self._positions[i], rest))
            for i, name in enumerate(self.names)
        }
