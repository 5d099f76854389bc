"""Averages between two records, and how much of the machine's arithmetic the training uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from regrow.model.shapes import mfu
from regrow.train.objective import Loader, Sum


def speed(
    tokens_per_second: float,
    flops_per_token: float = 0.0,
    flops_per_token_causal: float = 0.0,
    peak_flops: float = 0.0,
    devices: int = 1,
) -> dict[str, float]:
    """The fields of a record that tell how fast it went.

    Args:
        tokens_per_second: of all devices together.
        flops_per_token: as in :func:`regrow.model.shapes.mfu`; 0 if unknown.
        flops_per_token_causal: with half of attention's products; 0 if unknown.
        peak_flops: of one device; 0 if unknown.
        devices: how many.

    Returns:
        ``tokens_per_second``; where ``peak_flops`` is known, also ``tokens_per_second_device``,
        ``mfu`` and ``mfu_causal``.
    """
    fields = {"tokens_per_second": round(tokens_per_second, 1)}
    if peak_flops and flops_per_token:
        fields["tokens_per_second_device"] = round(tokens_per_second / devices, 1)
        fields["mfu"] = round(mfu(flops_per_token, tokens_per_second, peak_flops, devices), 4)
    if peak_flops and flops_per_token_causal:
        causal = mfu(flops_per_token_causal, tokens_per_second, peak_flops, devices)
        fields["mfu_causal"] = round(causal, 4)
    return fields


def sources_read(loader: Loader, first: int, end: int) -> dict[str, dict[str, int]]:
    """``{"sources": {source: tokens}}`` of samples ``first`` to ``end``; empty if there is one.

    A source that none of them came from is left out.
    """
    before, after = loader.ledger(first), loader.ledger(end)
    if len(after) < 2:
        return {}
    read = {
        name: int(entry["tokens"] - before[name]["tokens"])
        for name, entry in after.items()
        if entry["tokens"] > before[name]["tokens"]
    }
    return {"sources": read}


class Window:
    """Sums since the last record; part of a checkpoint, so that a resumed run logs the same.

    Sums stay where they were made (on a GPU, say) until a record or a checkpoint asks for them.
    A step whose gradient was not finite counts as a step, but enters no average.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.averaged = 0
        self.skipped = 0
        self.seconds = 0.0
        self.weight = 0.0
        self.norm = 0.0
        self.sums: dict[str, Sum] = {}

    def add(self, loss: Sum, weight: float, norm: float, metrics: Mapping[str, Sum]) -> None:
        """Count one step: loss and metrics as sums over its targets, the gradient's norm."""
        self.steps += 1
        if not math.isfinite(norm):
            return
        self.averaged += 1
        self.weight += weight
        self.norm += norm
        for name, value in (("loss", loss), *metrics.items()):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def averages(self) -> dict[str, float]:
        """``loss`` and each metric per target, and the mean ``grad_norm``; {} of no step at all."""
        if not self.averaged:
            return {}
        means = {name: float(value) / self.weight for name, value in self.sums.items()}
        return means | {"grad_norm": self.norm / self.averaged}

    def as_json(self) -> dict[str, Any]:
        """The sums, exactly, for a checkpoint."""
        return {
            "steps": self.steps,
            "averaged": self.averaged,
            "skipped": self.skipped,
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
        window.averaged = record.get("averaged", window.steps)  # older checkpoints have neither
        window.skipped = record.get("skipped", 0)
        window.weight, window.norm = record["weight"], record["norm"]
        window.sums = dict(record["sums"])
        return window
