"""What a sample says of the whole, with intervals that hold where documents come in groups.

Documents that share a key enter a sample together, so that the key and not the document is the
unit that was drawn. Legend: N documents of the sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of the whole.

    Args:
        value: the best guess.
        low: what it will hardly be below.
        high: what it will hardly be above.
    """

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """The same of a larger whole."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, low: float, value: float, high: float) -> Estimate:
        """With what the sample says nothing of."""
        return Estimate(self.value + value, self.low + low, self.high + high)

    def as_counts(self) -> dict[str, int]:
        """Whole numbers, rounded so that the interval stays as wide."""
        low, high = math.floor(self.low + 1e-9), math.ceil(self.high - 1e-9)
        return {"estimate": min(max(round(self.value), low), high), "low": low, "high": high}


def width(intervals: int, confidence: float = 0.95) -> float:
    """Standard deviations either way, so that all intervals hold together (Bonferroni)."""
    return NormalDist().inv_cdf(1 - (1 - confidence) / (2 * max(1, intervals)))


def ratio(
    parts: Floats, whole: Floats, groups: npt.NDArray[np.int64], drawn: float, z: float
) -> Estimate:
    """The share that a part has of a whole, from a sample of groups.

    The variance is that of a ratio of sums over groups, each of which was drawn with the same
    probability (Särndal et al., Model Assisted Survey Sampling, 5.6); the interval is Wilson's with
    as many documents as would give this variance one by one, but never more than the groups are
    worth by their sizes: where all of a sample stay or go the variance says nothing.

    Args:
        parts: ``(N,)``, what a document adds to the part.
        whole: ``(N,)``, what it adds to the whole; not 0 everywhere.
        groups: ``(N,)``, equal for what was drawn together.
        drawn: probability with which a group was drawn, in (0, 1].
        z: width in standard deviations.

    Returns:
        Shares, from 0 to 1.
    """
    total = float(whole.sum())
    mean = float(np.clip(parts.sum() / total, 0, 1))
    if drawn >= 1:
        return Estimate(mean, mean, mean)
    codes = np.unique(groups, return_inverse=True)[1]
    spread = np.bincount(codes, parts - mean * whole)
    sizes = np.bincount(codes, whole)
    variance = float((spread**2).sum()) / total**2 * (1 - drawn)
    worth = total**2 / float((sizes**2).sum()) / (1 - drawn)
    if variance > 0 and 0 < mean < 1:
        worth = min(worth, mean * (1 - mean) / variance)
    return _wilson(mean, worth, z)


def _wilson(mean: float, number: float, z: float) -> Estimate:
    middle = (mean + z * z / (2 * number)) / (1 + z * z / number)
    half = (
        z
        / (1 + z * z / number)
        * math.sqrt(mean * (1 - mean) / number + z * z / (4 * number * number))
    )
    return Estimate(mean, min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half)))


def line(small: tuple[float, float], large: tuple[float, float], whole: float) -> float:
    """Seconds for the whole, on the line through two sizes that were timed.

    Args:
        small: size and seconds of the smaller one; of size 0 where it was not timed.
        large: size and seconds of the larger one.
        whole: size to tell for.
    """
    (x0, y0), (x1, y1) = small, large
    if not 0 < x0 < x1:
        return y1 * whole / x1 if x1 else y1
    rate = max(0.0, (y1 - y0) / (x1 - x0))
    return y1 + rate * max(0.0, whole - x1)
