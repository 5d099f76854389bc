"""Figures of a classifier on labelled texts, and the calibration of its probabilities.

Legend: N texts, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ECE_BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    """``(N, K)`` logits as probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is done to logits before they become probabilities: ``logits * scale + shift``.

    For several classes ``shift`` is 0 and ``1 / scale`` is a temperature (Guo et al., 2017). For
    two, the difference of the logits is scaled and shifted, which is Platt's method.

    Args:
        scale: above 0.
        shift: ``(K,)``.
    """

    scale: float = 1.0
    shift: tuple[float, ...] = ()

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """``(N, K)`` calibrated logits."""
        return logits * self.scale + (np.array(self.shift) if self.shift else 0.0)


def negative_log_likelihood(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean over texts, in nats."""
    top = logits.max(axis=1)
    normaliser = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(np.mean(normaliser - logits[np.arange(len(truth)), truth]))


def fit_calibration(logits: np.ndarray, truth: np.ndarray) -> Calibration:
    """The scale, and for two classes the shift, of least negative log-likelihood.

    Args:
        logits: ``(N, K)`` of texts that the classifier was not trained on.
        truth: ``(N,)`` their classes.

    Returns:
        Within e^-5 to e^5 of the logits as they are.
    """
    from scipy.optimize import minimize

    binary = logits.shape[1] == 2

    def loss(values: np.ndarray) -> float:
        return negative_log_likelihood(_calibration(values, binary)(logits), truth)

    bounds = [(-5.0, 5.0), (-20.0, 20.0)] if binary else [(-5.0, 5.0)]
    found = minimize(loss, np.zeros(len(bounds)), method="L-BFGS-B", bounds=bounds)
    return _calibration(found.x, binary)


def _calibration(values: np.ndarray, binary: bool) -> Calibration:
    shift = (-float(values[1]) / 2, float(values[1]) / 2) if binary else ()
    return Calibration(float(np.exp(values[0])), shift)


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """``(K, K)`` counts: a row is what a text is, a column what it was taken for."""
    counts = np.bincount(truth * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes)


def f1_by_class(table: np.ndarray) -> np.ndarray:
    """``(K,)`` F1 of each class from a confusion table; 0 where it was neither met nor said."""
    right = np.diag(table).astype(np.float64)
    total = table.sum(axis=0) + table.sum(axis=1)
    f1: np.ndarray = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    return f1


def macro_f1_interval(
    truth: np.ndarray, found: np.ndarray, classes: int, draws: int = 1000
) -> tuple[float, float]:
    """Where 95 % of the macro-F1 lie when as many texts are drawn again with replacement.

    Args:
        truth: ``(N,)``.
        found: ``(N,)`` what they were taken for.
        classes: K.
        draws: always the same ones.
    """
    random = np.random.Generator(np.random.PCG64(0))
    values = []
    for _ in range(draws):
        chosen = random.integers(0, len(truth), len(truth))
        table = confusion(truth[chosen], found[chosen], classes)
        values.append(f1_by_class(table)[table.sum(axis=1) > 0].mean())
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high


def calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = ECE_BINS
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of the chosen class, in bins of equal width.

    Args:
        probabilities: ``(N, K)``.
        truth: ``(N,)``.
        bins: of [0, 1].

    Returns:
        The mean over texts of |accuracy - confidence| of their bin, and for each bin with texts
        ``confidence``, ``accuracy`` and ``texts``.

    Source: Guo et al., On Calibration of Modern Neural Networks, equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    rows, error = [], 0.0
    for number in np.unique(place).tolist():
        inside = place == number
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        error += inside.mean() * abs(accuracy - mean)
        rows.append(
            {"confidence": mean, "accuracy": accuracy, "texts": int(inside.sum())},
        )
    return float(error), rows


def evaluate(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """All figures of a classifier on texts that it was not trained on, as JSON.

    Args:
        probabilities: ``(N, K)``, N at least 1.
        truth: ``(N,)`` classes.
        labels: ``(K,)`` their names.

    Returns:
        ``texts``, ``accuracy``, ``macro_f1`` (mean over the classes that occur) and its
        ``macro_f1_interval`` (95 %, by drawing again), ``f1`` by class, ``confusion`` (rows:
        truth), ``ece``, ``reliability`` by bin, ``log_loss`` (nats), and ``majority``: accuracy
        and macro-F1 of always saying the commonest class.
    """
    found = probabilities.argmax(axis=1)
    table = confusion(truth, found, len(labels))
    f1 = f1_by_class(table)
    met = table.sum(axis=1) > 0
    error, reliability = calibration_error(probabilities, truth)
    commonest = int(table.sum(axis=1).argmax())
    constant = confusion(truth, np.full_like(truth, commonest), len(labels))
    logs = np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300))
    return {
        "texts": len(truth),
        "accuracy": float(np.trace(table) / len(truth)),
        "macro_f1": float(f1[met].mean()),
        "macro_f1_interval": list(macro_f1_interval(truth, found, len(labels))),
        "f1": {label: float(value) for label, value in zip(labels, f1, strict=True)},
        "confusion": table.tolist(),
        "ece": error,
        "reliability": reliability,
        "log_loss": float(-logs.mean()),
        "majority": {
            "label": labels[commonest],
            "accuracy": float(np.trace(constant) / len(truth)),
            "macro_f1": float(f1_by_class(constant)[met].mean()),
        },
    }
