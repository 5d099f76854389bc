"""Settings of ``evaluate``; no torch here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.train.config import Count

_NAME = re.compile(r"^[A-Za-z0-9][\w.\-]*$")


def _named(value: Any) -> Any:
    """A bare model becomes one that is called after its folder."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    folder = path.parent if path.name == "export" else path
    return {folder.name or "model": str(value)}


class DecodeConfig(Config):
    """How the speed of decoding is measured: greedily, one sequence, with the cache."""

    prompt_tokens: Count = Field(default=32, gt=0)
    """Tokens that are read before the first one is made."""
    new_tokens: Count = Field(default=64, gt=1)
    """Tokens that are made in one repeat."""
    repeats: int = Field(default=3, ge=0)
    """How often; the median counts. 0: not measured."""


class SamplesConfig(Config):
    """Text that the models write."""

    prompts: tuple[str, ...] = ("def ", "The ", "import ", "class ")
    """Beginnings that each model continues; none for no samples."""
    new_tokens: Count = Field(default=64, gt=0)
    """Tokens of a continuation, at most."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw from the most likely tokens whose probabilities sum to this."""


class EvaluateConfig(Config):
    """Held-out loss, speed, samples and tasks of one or several models.

    With ``shards`` come the loss by source, the speed of decoding and samples; with ``tasks`` or a
    ``suite`` come their figures. At least one of the three is needed.
    """

    models: Annotated[dict[str, Path], BeforeValidator(_named)] = Field(min_length=1)
    """Name to run folder or Hugging Face folder; a bare path is named after its folder."""
    shards: Path | None = None
    """A run folder of ``tokenize``, or its shards folder; the keys from split to samples are about
    what is measured with it."""
    split: Literal["validation", "test"] = "test"
    """Which held-out split is scored."""
    max_tokens: Count = Field(default=131_072, gt=0)
    """Held-out tokens of each source, at most."""
    sequence: Count = Field(default=256, gt=0)
    """Tokens of a window; windows do not overlap."""
    batch: Count = Field(default=16, gt=0)
    """Windows in memory at once."""
    document_mask: bool = False
    """Whether attention and positions stay inside a document."""
    baselines: bool = True
    """Whether a unigram and an interpolated bigram are scored on the same targets."""
    baseline_run: Path | None = None
    """A pretraining run: the baselines count the very tokens that it was trained on."""
    baseline_tokens: Count = Field(default=0, ge=0)
    """Training tokens that the baselines count; 0: all of the run, or all of the train split."""
    decode: DecodeConfig = DecodeConfig()
    """Speed of decoding."""
    samples: SamplesConfig = SamplesConfig()
    """Text that the models write."""
    tasks: tuple[str, ...] = ()
    """Tasks by name; ``evaluate --list`` prints them."""
    suite: str | None = None
    """A named list of tasks, besides those of tasks."""
    data: Path | None = None
    """The folder that holds the tasks' files; by default the one that REGROW_DATA names."""
    shots: Annotated[int, Field(ge=0)] | None = None
    """Solved examples in front of each question; by default as many as the task has."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Items of each task at most, evenly spaced over all; by default all."""
    lengths: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(256, 512), min_length=1)
    """Of the recall tasks: tokens of a prompt with its answer, one group of items each."""
    samples_per_length: int = Field(default=64, gt=0)
    """Of the recall tasks: items of each length."""
    threads: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """CPU threads; auto: the cores that this process may use."""
    seed: int = Field(default=0, ge=0)
    """Of the samples, of whatever tasks draw, and of the baselines' order of tokens where there is
    no run."""

    def task_names(self) -> list[str]:
        """Those of the suite and of tasks, each once."""
        from regrow.eval.tasks import SUITES

        return list(dict.fromkeys((*(SUITES[self.suite] if self.suite else ()), *self.tasks)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.models:
            if not _NAME.match(name):
                raise ValueError(
                    f"models: {name!r} cannot name a file; use letters, digits, '_', '-', '.'"
                )
        self._check_tasks()
        for key in ("baseline_run", "baseline_tokens"):
            if not self.baselines and getattr(self, key):
                raise ValueError(f"{key} has no effect with baselines false")
        return self

    def _check_tasks(self) -> None:
        from regrow.eval.tasks import SUITES, TASKS

        if self.suite is not None and self.suite not in SUITES:
            raise ValueError(f"suite: {self.suite!r} is none of {', '.join(SUITES)}")
        named = self.task_names()
        for name in named:
            try:
                task = TASKS.get(name)
            except ConfigError as error:
                raise ValueError(f"tasks: {error}") from error
            if self.shots and len(named) == 1 and self.shots > task.max_shots:
                raise ValueError(
                    f"shots: task {name} has {task.max_shots} solved examples, not {self.shots}"
                )
        if not named and self.shards is None:
            raise ValueError("nothing to measure: give shards, tasks or a suite")
        for key in ("data", "shots", "limit"):
            if not named and getattr(self, key) is not None:
                raise ValueError(f"{key} has no effect without tasks or a suite")
