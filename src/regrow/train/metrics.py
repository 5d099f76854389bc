"""Averages between two records, and how much of the machine's arithmetic the training uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrow.train.objective import Sum


def mfu(
    flops_per_token: float, tokens_per_second: float, peak_flops: float, devices: int = 1
) -> float:
    """Model FLOPs utilisation, in [0, 1].

    Args:
        flops_per_token: forward and backward, attention not halved, recomputation not counted
            (:func:`regrow.model.shapes.flops_per_token`).
        tokens_per_second: of all devices together.
        peak_flops: of one device, in FLOP per second at the precision of the run.
        devices: how many.

    Source: this convention reproduces table 2 of Nemotron-4 15B (arXiv 2402.16819).
    """
    return flops_per_token * tokens_per_second / (peak_flops * devices)


class Window:
    """Sums since the last record; part of a checkpoint, so that a resumed run logs the same.

    Sums stay where they were made (on a GPU, say) until a record or a checkpoint asks for them.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.weight = 0.0
        self.norm = 0.0
        self.sums: dict[str, Sum] = {}

    def add(self, loss: Sum, weight: float, norm: float, metrics: Mapping[str, Sum]) -> None:
        """Count one step: loss and metrics as sums over its targets, the gradient's norm."""
        self.steps += 1
        self.weight += weight
        self.norm += norm
        for name, value in (("loss", loss), *metrics.items()):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def averages(self) -> dict[str, float]:
        """``loss`` and each metric per target, and the mean ``grad_norm``."""
        means = {name: float(value) / self.weight for name, value in self.sums.items()}
        return means | {"grad_norm": self.norm / self.steps}

    def as_json(self) -> dict[str, Any]:
        """The sums, exactly, for a checkpoint."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "weight": self.weight,
            "norm": self.norm,
            "sums": {name: float(value) for name, value in self.sums.items()},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Window:
        """The reverse of :meth:`as_json`."""
        window = cls()
        window.steps, window.seconds = record["steps"], record["seconds"]
        window.weight, window.norm = record["weight"], record["norm"]
        window.sums = dict(record["sums"])
        return window
