"""Steps over the document table: one file a step.

A step is a class made from the whole ``CurateConfig``, with ``apply(frame) -> frame``. It may add
columns; it never removes a row, but names in the column ``reason`` why the row is to go (null:
stays). The job does the removing and counts, so that in = out + dropped holds for each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from regrow.core.registry import Registry

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig
    from regrow.data.engine import Frame


class Step(Protocol):
    """What the job asks of a step."""

    name: str

    def apply(self, frame: Frame) -> Frame:
        """The same rows with a column ``reason`` (text or null), and what the step adds."""
        ...


class StepClass(Protocol):
    """How a step is made."""

    def __call__(self, config: CurateConfig) -> Step:
        """The step with its settings taken from ``config``."""
        ...


STEPS: Registry[StepClass] = Registry(
    "step",
    {
        "exact": "regrow.data.steps.exact:Exact",
        "split": "regrow.data.steps.split:Split",
    },
)
