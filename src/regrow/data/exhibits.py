"""What a step shows on the card: plain JSON that the page draws without knowing the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def histogram(
    title: str, values: Any, edges: Any, thresholds: Sequence[float] = (), unit: str = ""
) -> dict[str, Any]:
    """Counts of values between edges, with the bounds that decide.

    Args:
        title: what is counted.
        values: ``(documents,)``; null and NaN are left out, those outside count at the ends.
        edges: ``(bins + 1,)``, rising.
        thresholds: where documents begin to be dropped.
        unit: of the values.
    """
    edges = np.asarray(edges, np.float64)
    values = np.asarray(values, np.float64)
    values = np.clip(values[~np.isnan(values)], edges[0], edges[-1])
    counts, _ = np.histogram(values, edges)
    return {
        "kind": "histogram",
        "title": title,
        "unit": unit,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "thresholds": list(thresholds),
    }


def curve(
    title: str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str = "",
    y_label: str = "",
    marks: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Lines over a shared axis.

    Args:
        title: what is drawn.
        x: ``(points,)``.
        lines: name to ``(points,)``.
        x_label: what the axis measures.
        y_label: what the lines measure.
        marks: name to a place on the axis.
    """
    return {
        "kind": "curve",
        "title": title,
        "x": list(x),
        "lines": {name: list(values) for name, values in lines.items()},
        "x_label": x_label,
        "y_label": y_label,
        "marks": dict(marks or {}),
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Rows of text and numbers under headings."""
    return {
        "kind": "table",
        "title": title,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
    }
