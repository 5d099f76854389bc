"""Settings of which layers go; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.train.config import Count

Metric = Literal["bi", "ppl", "task"]
Rule = Literal["contiguous", "independent"]


class DepthConfig(Config):
    """Which layers go where some have to.

    Layers are attention+MLP pairs of a transformer, and blocks of any other stack.
    """

    metric: Literal["auto", "bi", "ppl", "task"] = "auto"
    """What the loss of a layer is measured by: ``bi``, block influence, from the scores; ``ppl``,
    the loss of calibration text without the layer; ``task``, the accuracy of a task without it.
    auto: task where ``task`` is given, else ppl where the prune run has ``shards``, else bi."""
    rule: Rule = "contiguous"
    """``contiguous``: the run of neighbours goes whose removal as a whole costs least, which keeps
    tasks best (arXiv 2408.11796); ``independent``: those that each cost least by themselves."""
    drop: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Exactly these layers go, from 0 in the source; nothing is measured then."""
    allow_ends: bool = False
    """Whether the first and the last layer may go, which matter most nearly always."""
    samples: Count = Field(default=32, gt=0)
    """Metric ppl: windows of the train split, read once for each removal that is tried."""
    task: str | None = None
    """Metric task: a task of ``evaluate``, by name."""
    data: Path | None = None
    """Metric task: the folder of its files; by default the one that REGROW_DATA names."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Metric task: items at most, evenly spaced; by default all."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.metric == "task" and self.task is None:
            raise ValueError("metric task needs a task: depth.task=NAME (evaluate --list has them)")
        if self.metric not in ("auto", "task") and self.task is not None:
            raise ValueError(f"task has no effect with metric {self.metric}; leave one of them out")
        if self.task is None and (self.data is not None or self.limit is not None):
            raise ValueError("data and limit have no effect without a task")
        if self.task is not None:
            from regrow.eval.tasks import TASKS

            try:
                TASKS.get(self.task)
            except ConfigError as error:
                raise ValueError(f"task: {error}") from error
        if len(set(self.drop)) != len(self.drop):
            raise ValueError("drop names a layer twice")
        if self.drop and (self.metric != "auto" or self.task is not None):
            raise ValueError("metric and task have no effect with drop; leave one of them out")
        return self

    def measured_by(self, has_shards: bool) -> Metric:
        """The metric that is meant.

        Args:
            has_shards: whether there is calibration text.
        """
        if self.metric != "auto":
            return self.metric
        if self.task is not None:
            return "task"
        return "ppl" if has_shards else "bi"
