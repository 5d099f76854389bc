"""What a verb is about to do, told before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """Printed at the start of each run, and all that ``--dry-run`` prints.

    Args:
        title: one line ("pretrain 1.2M parameters on 1.5M tokens").
        figures: name to value; names carry their unit (``flops``, ``checkpoint_bytes``).
        notes: anything that a reader should know before the run starts.
        missing: what there must be before it can start at all; with any, there is only the plan.
    """

    title: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON-able object."""
        return {"title": self.title, "figures": dict(self.figures), "notes": list(self.notes)}
