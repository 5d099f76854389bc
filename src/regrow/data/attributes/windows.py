"""Which pieces of a long document a classifier reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW_CHARACTERS = 2048
"""About 512 tokens of English, what the encoders of such classifiers read at most."""


def windows(text: str, size: int = WINDOW_CHARACTERS) -> list[str]:
    """The text itself, or its beginning, middle and end.

    Args:
        text: of any length; an empty one gives one empty window.
        size: characters of a window at most.

    Returns:
        One window up to ``size`` characters, two (which may overlap) up to twice as many, else
        three. None begins or ends inside a word, unless the word is longer than an eighth of it.
    """
    if len(text) <= size:
        return [text]
    starts = [0, len(text) - size]
    if len(text) > 2 * size:
        starts.insert(1, (len(text) - size) // 2)
    return [_whole_words(text, start, start + size) for start in starts]


def _whole_words(text: str, start: int, end: int) -> str:
    slack = (end - start) // 8
    if start and not text[start - 1].isspace():
        start = next((i for i in range(start, start + slack) if text[i].isspace()), start)
    if end < len(text) and not text[end].isspace():
        end = next((i for i in range(end, end - slack, -1) if text[i - 1].isspace()), end)
    return text[start:end]


def in_windows(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The windows of several texts in a row, and how many each has.

    Returns:
        All windows, and ``(texts,)`` int64 that sums to their number.
    """
    pieces = [windows(text) for text in texts]
    counts = np.array([len(piece) for piece in pieces], np.int64)
    return [window for piece in pieces for window in piece], counts


def averaged(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the windows of each text.

    Args:
        logits: ``(windows, classes)`` float64.
        counts: ``(texts,)`` windows of each, at least 1.

    Returns:
        ``(texts, classes)`` float64.
    """
    first = np.cumsum(counts) - counts
    if not len(counts):
        return np.zeros((0, logits.shape[1]))
    means: np.ndarray = np.add.reduceat(logits, first, axis=0) / counts[:, None]
    return means
