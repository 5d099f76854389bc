"""What nothing else beats in every respect."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def front(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which rows no other row dominates; all figures are minimised.

    A row dominates another when it is nowhere larger and somewhere smaller. Equal rows do not
    dominate each other: all of them are on the front, or none.

    Args:
        values: (points, figures), finite or infinite.

    Returns:
        (points,) True on the front.

    Raises:
        ValueError: no table, or a NaN, which has no order.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values must be (points, figures), not of shape {table.shape}")
    if np.isnan(table).any():
        raise ValueError("values hold NaN, which is neither better nor worse")
    rows, back = np.unique(table, axis=0, return_inverse=True)
    best = np.ones(len(rows), dtype=bool)
    # Sorted by the first figure, so a row can only be dominated by one before it.
    for place, row in enumerate(rows):
        earlier = rows[:place][best[:place]]
        best[place] = not (earlier <= row).all(axis=1).any()
    return best[back.reshape(-1)]
