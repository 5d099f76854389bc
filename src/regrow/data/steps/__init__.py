"""Steps over the document table: one file a step.

A step is a class made from the whole ``CurateConfig``. It works in two parts. ``score`` computes
columns from the documents that are still there, which may be expensive; ``judge`` says from these
columns alone who has to go, so that thresholds move without computing again. Neither removes a
row: the job does, and counts, so that in = out + dropped holds for each step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from regrow.core.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

    from regrow.data.condition import Condition
    from regrow.data.config import CurateConfig
    from regrow.data.engine import Frame


class Step(Protocol):
    """What the job asks of a step."""

    name: str
    version: int
    """Raised when the same settings would give other scores than before."""
    per_document: bool
    """Whether a document's scores depend on that document alone."""

    def reads(self) -> tuple[str, ...]:
        """Columns that ``score`` needs beside ``id``, those of earlier steps included."""
        ...

    def makes(self) -> pa.Schema:
        """Names and types of the columns that ``score`` gives beside ``id``."""
        ...

    def key(self) -> Any:
        """The settings that the scores depend on, as JSON; thresholds do not belong here."""
        ...

    def score(self, frame: Frame, folder: Path) -> Frame:
        """``id`` and the step's columns, a row for each row of ``frame``, in any order.

        Args:
            frame: ``id`` and what ``reads`` names, of the documents that are still there.
            folder: empty; for what is no column (clusters, a fitted model). It appears and stays
                together with the scores.
        """
        ...

    def judge(self, scores: Frame, folder: Path) -> Frame:
        """``id``, ``reason`` (text, null where the document stays) and ``value`` (float64 or null).

        Args:
            scores: what ``score`` gave.
            folder: where it put what is no column.
        """
        ...

    def exhibits(self, scores: Frame, folder: Path) -> list[dict[str, Any]]:
        """What the card shows of the step, see ``regrow.data.exhibits``; JSON."""
        ...


@runtime_checkable
class Noting(Protocol):
    """A step that has something to say before it is run."""

    def notes(self) -> list[str]:
        """What a reader of the plan should know."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """A step that chooses among the documents by their columns."""

    condition: Condition | None


class StepClass(Protocol):
    """How a step is made."""

    def __call__(self, config: CurateConfig) -> Step:
        """The step with its settings taken from ``config``."""
        ...


STEPS: Registry[StepClass] = Registry(
    "step",
    {
        "language": "regrow.data.steps.language:Language",
        "attributes": "regrow.data.steps.attributes:Attributes",
        "classifier": "regrow.data.steps.classifier:ClassifierFilter",
        "decontaminate": "regrow.data.steps.decontaminate:Decontaminate",
        "exact": "regrow.data.steps.exact:Exact",
        "fuzzy": "regrow.data.steps.fuzzy:Fuzzy",
        "filter": "regrow.data.steps.filter:Filter",
        "perplexity": "regrow.data.steps.perplexity:Perplexity",
        "select": "regrow.data.steps.select:Select",
        "split": "regrow.data.steps.split:Split",
    },
)
