"""Settings of ``family``; no torch here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from regrow.compress.depth_config import DepthConfig
from regrow.compress.distill_config import DistillConfig, MatchConfig
from regrow.compress.importance_config import ImportanceConfig
from regrow.compress.prune_config import BudgetTarget, PruneConfig, ShapeTarget
from regrow.core.config import Config
from regrow.train.config import Count

_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
#: What else lies in the run folder.
_TAKEN = ("search", "trials", "export", "checkpoints", "lock")
_FILES = (".json", ".jsonl", ".yaml", ".html")
#: Shares of a trial's steps after which the worse half goes; ranks settle no sooner (arXiv
#: 2407.14679, figure 9: until about 300 of 400 steps they change).
HALVINGS = (0.25, 0.5)


class ChildConfig(Config):
    """One smaller model: a budget within which its shape is searched, or the shape itself."""

    budget: BudgetTarget | None = None
    """What it may take; shares are of the original model, whatever it is cut from."""
    shape: ShapeTarget | None = None
    """Its shape, where there is nothing to search."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.shape is None) == (self.budget is None):
            named = "none" if self.shape is None else "both"
            raise ValueError(f"give one of budget, shape, not {named}")
        return self


class TrialConfig(Config):
    """The lightweight retraining that candidates are compared by."""

    tokens: Count = Field(default=400_000, gt=0)
    """Tokens that the best candidates are trained on; others less, see ``halving``."""
    halving: bool = True
    """Whether the worse half goes after a quarter and after half of the steps; without it every
    candidate is trained to the end, which tells how far one can trust early ranks."""
    score_tokens: Count = Field(default=16_384, gt=0)
    """Held-out tokens of each source that candidates are scored on, at most."""


class FamilyConfig(MatchConfig):
    """Search shapes under one or several budgets, retrain the winners: a family of one model."""

    ordered: ClassVar[tuple[str, ...]] = ("children",)

    model: Path
    """A run folder with a model, or a Hugging Face folder; for ``--dry-run``, a preset too."""
    teacher: Path | None = None
    """What all children learn from; by default ``model``, the original, for each of them."""
    children: dict[str, ChildConfig] = Field(min_length=1)
    """Name to budget or shape, from the largest to the smallest; ``RUN/<name>`` is its model."""
    cut_from: Literal["previous", "original"] = "previous"
    """What each child but the first is cut from: the one before it, which is better where much
    goes (arXiv 2407.14679, table 14), or the original model."""
    candidates: int = Field(default=10, gt=0)
    """Shapes that are tried for each budget."""
    trial: TrialConfig = TrialConfig()
    """Lightweight retraining of the candidates."""
    latency: bool = False
    """Whether the decoding of every candidate is timed on this machine, for the Pareto front;
    budgets with ``latency_ms`` time theirs anyway."""
    samples: Count = Field(default=512, gt=0)
    """Windows of calibration text of each importance pass, of ``data.sequence`` tokens, in the
    blend of the last phase."""
    depth: DepthConfig = DepthConfig()
    """Which layers go, where a shape has fewer."""
    scratch_tokens: Count | None = Field(default=None, gt=0)
    """Tokens that training one of these models from scratch takes, to compare costs with; by
    default those that the runs which made ``model`` record."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in self.children:
            if not _NAME.fullmatch(name) or name in _TAKEN or name.endswith(_FILES):
                raise ValueError(
                    f"children.{name}: not a name for a folder of the run; use letters, digits, "
                    f"'-', '_' and '.', none of {', '.join(_TAKEN)}, and none of a file"
                )
        if self.parallel.tp > 1:
            raise ValueError(
                f"parallel.tp: {self.parallel.tp}, but family runs in one process; leave it out"
            )
        if self.depth.drop:
            raise ValueError(
                "depth.drop names layers of one cut, and here there is one for each candidate; let "
                "depth.metric and depth.rule choose them, or use prune"
            )
        searched = any(child.budget is not None for child in self.children.values())
        for name in ("candidates", "trial"):
            if not searched and name in self.model_fields_set and self._differs(name):
                raise ValueError(f"{name} has no effect: no child has a budget to search under")
        if searched and self.candidates > 1 and self.trial_steps < 4:
            least = 4 * self.train.batch_tokens
            raise ValueError(
                f"trial.tokens: {self.trial.tokens} are {self.trial_steps} steps, too few to drop "
                f"candidates after a quarter and a half of them; use at least {least}"
            )
        return self

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def trial_steps(self) -> int:
        """Optimiser steps of a trial that goes to the end."""
        return self.trial.tokens // self.train.batch_tokens

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Steps after which candidates are compared; 0 is before any retraining."""
        return (0, *(round(share * self.trial_steps) for share in (*HALVINGS, 1.0)))

    def importance(self, source: Path) -> ImportanceConfig:
        """Settings of ``importance`` over what one child is cut from."""
        return ImportanceConfig(
            model=source,
            shards=self.data.shards,
            samples=self.samples,
            sequence=self.data.sequence,
            weights=dict(self.data.phases[-1].weights) if self.data.phases else {},
            document_mask=self.data.document_mask,
            micro_batch=self.train.micro_batch,
            seed=self.seed,
        )

    def pruning(
        self, source: Path, scores: Path, shape: ShapeTarget, fewer_layers: bool
    ) -> PruneConfig:
        """Settings of ``prune`` for one candidate.

        Args:
            source: folder of what is cut.
            scores: of the source.
            shape: the candidate's.
            fewer_layers: whether it has fewer than the source.
        """
        by_loss = self.depth.task is None and self.depth.metric in ("auto", "ppl")
        return PruneConfig(
            model=source,
            scores=scores,
            shape=shape,
            depth=self.depth if fewer_layers else DepthConfig(),
            shards=self.data.shards if by_loss and fewer_layers else None,
            split=self.eval.split,
            max_tokens=self.eval.tokens,
            sequence=self.data.sequence,
            seed=self.seed,
        )

    def distillation(
        self, student: Path, teacher: Path, tokens: int | None = None
    ) -> DistillConfig:
        """Settings of ``distill`` for one model.

        Args:
            student: its folder.
            teacher: the teacher's.
            tokens: by default those of the full retraining.
        """
        shared = {n: getattr(self, n) for n in MatchConfig.model_fields if n != "train"}
        train = self.train
        if tokens is not None:
            train = train.model_copy(update={"tokens": tokens, "batch_ramp": ()})
        return DistillConfig(student=student, teacher=teacher, train=train, **shared)
