"""How far two orders of the same things agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(values: npt.ArrayLike) -> Floats:
    """Rank of each value from 1, lowest first; equal ones share their mean rank."""
    array = np.asarray(values, dtype=np.float64)
    _, back, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2)[back.reshape(-1)]
    return shared


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Spearman's rho: the correlation of the ranks.

    Returns:
        -1 to 1; None below two values, or where all values of a side are equal.
    """
    a, b = ranks(first), ranks(second)
    if len(a) < 2:
        return None
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale else None


def kendall(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Kendall's tau-b: pairs in the same order minus those in the opposite one.

    ``(concordant - discordant) / sqrt((pairs - ties in first) (pairs - ties in second))``.

    Returns:
        -1 to 1; None below two values, or where all values of a side are equal.
    """
    a, b = ranks(first), ranks(second)
    above = np.triu_indices(len(a), 1)
    one = np.sign(a[:, None] - a[None, :])[above]
    two = np.sign(b[:, None] - b[None, :])[above]
    scale = float(np.sqrt(np.abs(one).sum() * np.abs(two).sum()))
    return float((one * two).sum() / scale) if scale else None


def flips(before: npt.ArrayLike, after: npt.ArrayLike) -> list[tuple[int, int]]:
    """Pairs (i, j) of which i was strictly lower before, and strictly higher after."""
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    crossed = (a[:, None] < a[None, :]) & (b[:, None] > b[None, :])
    return [(int(i), int(j)) for i, j in np.argwhere(crossed)]
