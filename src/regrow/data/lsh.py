"""The curve of MinHash bands: which similarity is found how often, and how many bands to take.

With b bands of r hashes two texts of Jaccard similarity s share a band, and become candidates,
with probability ``1 − (1 − s^r)^b``. More bands find more, more rows are stricter.
Source: Mining of Massive Datasets, 3.4; presets: FineWeb's (arXiv 2406.17557) and NeMo Curator's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrow.data.settings.fuzzy import FuzzyConfig, ShingleConfig, Unit

THRESHOLD = 0.8
_POINTS = 1001


@dataclass(frozen=True, slots=True)
class Lsh:
    """How texts are cut, signed and compared.

    Args:
        bands: b.
        rows: r, hashes of a band.
        unit: of a shingle.
        n: units of a shingle.
        threshold: similarity from which texts shall count as near duplicates.
    """

    bands: int
    rows: int
    unit: Unit
    n: int
    threshold: float

    @property
    def hashes(self) -> int:
        """Hashes of a signature."""
        return self.bands * self.rows

    def found(self, similarity: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probability that two texts of this Jaccard similarity share a band."""
        s = np.asarray(similarity, np.float64)
        return np.asarray(1 - (1 - s**self.rows) ** self.bands)

    def half(self) -> float:
        """The similarity that is found every other time."""
        return float((1 - 0.5 ** (1 / self.bands)) ** (1 / self.rows))

    def masses(self) -> tuple[float, float]:
        """Areas between the curve and a step at the threshold: what is missed, what is too much.

        Returns:
            The mean probability of a miss over similarities from the threshold to 1, times their
            share; the same of being found below it.
        """
        t = self.threshold
        below, above = np.linspace(0, t, _POINTS), np.linspace(t, 1, _POINTS)
        missed = np.trapezoid(1 - self.found(above), above)
        return float(missed), float(np.trapezoid(self.found(below), below))


WEB = Lsh(14, 8, "word", 5, THRESHOLD)
STRICT = Lsh(20, 13, "character", 24, THRESHOLD)
PRESETS = {"web": WEB, "strict": STRICT}


def best_bands(threshold: float, hashes: int) -> tuple[int, int]:
    """Bands and rows with the smallest sum of both masses; among equals the fewest hashes.

    Args:
        threshold: similarity in (0, 1).
        hashes: bands × rows at most.
    """
    pairs = [(b, r) for r in range(1, hashes + 1) for b in range(1, hashes // r + 1)]
    bands, rows = (np.array(values, np.float64)[:, None] for values in zip(*pairs, strict=True))
    sums = np.zeros(len(pairs))
    for low, high, above in ((0, threshold, False), (threshold, 1, True)):
        s = np.linspace(low, high, 201)[None]
        found = 1 - (1 - s**rows) ** bands
        sums += np.trapezoid(1 - found if above else found, s, axis=1)
    return min(zip(sums.round(9), pairs, strict=True), key=lambda x: (x[0], x[1][0] * x[1][1]))[1]


def resolve(config: FuzzyConfig) -> Lsh:
    """The settings with everything chosen that they leave open."""
    preset = PRESETS[config.preset]
    shingle = config.shingle or ShingleConfig(unit=preset.unit, n=preset.n)
    bands, rows = preset.bands, preset.rows
    if config.bands is not None and config.rows is not None:
        bands, rows = config.bands, config.rows
    elif config.threshold is not None:
        bands, rows = best_bands(config.threshold, config.hashes or preset.hashes)
    return Lsh(bands, rows, shingle.unit, shingle.n, config.threshold or preset.threshold)
