"""Candidates that are retrained side by side: the same batches, one teacher's pass for all.

Each candidate is a :class:`regrow.train.trainer.Trainer` in a run folder of its own, with its own
checkpoints; here they take turns, a few steps each, so that what the teacher made of a batch serves
all of them. A candidate that fell behind (its checkpoint was older when the run was killed) catches
up by itself: what it learns does not depend on who else is there.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrow.compress.distill_config import DistillConfig
from regrow.compress.divergence import Distance, divergence
from regrow.compress.jobs import distill
from regrow.core.errors import Interrupted, RunError
from regrow.core.part import Part
from regrow.core.run import Run
from regrow.data.loader import Loader
from regrow.data.shards import Shard
from regrow.model.folder import load
from regrow.train.settings import Settings
from regrow.train.stage import loop_settings
from regrow.train.trainer import Trainer


class SharedTeacher(nn.Module):
    """A teacher that remembers what it made of the last batches.

    Args:
        teacher: a decoder.
        capacity: micro-batches that are remembered; 0 for none.
    """

    def __init__(self, teacher: nn.Module, capacity: int) -> None:
        super().__init__()
        self.teacher = teacher
        self.head: Any = teacher.head
        self.config: Any = teacher.config
        self.capacity = capacity
        self.passes = 0
        self._kept: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """The teacher's hidden states, (B, T, D); computed once for equal tokens."""
        if not self.capacity:
            return self._computed(tokens, documents)
        key = (
            tuple(tokens.shape),
            tokens.cpu().numpy().tobytes(),
            None if documents is None else documents.cpu().numpy().tobytes(),
            torch.is_autocast_enabled(tokens.device.type),
        )
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._computed(tokens, documents)
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return found

    def _computed(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        self.passes += 1
        made: Tensor = self.teacher.hidden(tokens, documents)  # type: ignore[operator]
        return made


@dataclass(slots=True)
class Candidate:
    """One shape in training.

    Args:
        folder: its run folder.
        model: on its device.
        trainer: of that model; its checkpoints lie in the folder.
        failure: why it can go on no longer.
    """

    folder: Path
    model: nn.Module
    trainer: Trainer
    part: Part
    failure: str | None = None

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return self.trainer.step


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """What candidates are scored on.

    Args:
        shards: source to held-out shard.
        tokens: of each source, at most.
        document_mask: whether documents are kept apart.
        batch: windows at once.
        vocabulary: ids that are compared; None for all.
    """

    shards: Mapping[str, Shard]
    tokens: int
    document_mask: bool
    batch: int
    vocabulary: int | None


class Lockstep:
    """Trains and scores candidates.

    Args:
        run: the whole; shows the progress.
        teacher: what all learn from, shared.
        loader: the batches that all see.
        score: what they are scored on.
        turn: steps of one candidate before the next one's turn.
        device: of all models.
    """

    def __init__(
        self,
        run: Run,
        teacher: SharedTeacher,
        loader: Loader,
        score: ScoreSettings,
        turn: int,
        device: torch.device,
    ) -> None:
        self.run, self.teacher, self.loader = run, teacher, loader
        self.turn, self.device = turn, device
        self._score = score

    def candidate(self, part: Part, config: DistillConfig) -> Candidate:
        """The student of a distillation, to be trained in a claimed part of the run."""
        pair = distill.prepare_pair(config)
        model = load(pair.student, dtype=torch.float32)
        distill.match_widths(config, pair, model)
        model = model.to(self.device)
        # Hidden states are watched as the teacher computes them, so then nothing is remembered.
        teacher = self.teacher if pair.hidden is None else self.teacher.teacher
        objective = distill.objective_of(config, pair, model, teacher)
        for block in model.blocks:
            block.recompute = config.train.activation_checkpointing  # type: ignore[assignment]
        settings = loop_settings(pair.stage, Settings, "trial")
        return Candidate(part.path, model, Trainer(objective, self.loader, settings, part), part)

    def train(self, candidates: Sequence[Candidate], target: int) -> None:
        """Bring all candidates to the same step, and commit a checkpoint of each.

        A candidate whose training breaks down (a loss that is not finite, a guard that gives up)
        is left where it is, with the reason.

        Args:
            candidates: at whatever steps.
            target: the step to reach.

        Raises:
            Interrupted: a stop was asked for; a checkpoint of each was committed.
        """
        going = [one for one in candidates if one.failure is None]
        for one in going:
            self._advance(one, 0)  # takes up its checkpoint
        left = sum(max(0, target - one.step) for one in going)
        tokens = self.loader.sequence * going[0].trainer.settings.batch_samples if going else 0
        with self.run.progress("trials", left * tokens) as progress:
            while going:
                last = min(one.step for one in going)
                if last >= target:
                    break
                until = min(target, (last // self.turn + 1) * self.turn)
                for one in going:
                    before = one.step
                    try:
                        self._advance(one, until)
                    except Interrupted:
                        for other in going:
                            other.trainer.save()
                        raise
                    progress.advance((one.step - before) * tokens)
                going = [one for one in going if one.failure is None]
        for one in going:
            one.trainer.save()

    @staticmethod
    def _advance(one: Candidate, until: int) -> None:
        try:
            one.trainer.train(until_step=until)
        except RunError as error:
            if type(error) is not RunError:  # a broken checkpoint or a full disk is no bad shape
                raise
            one.failure = error.message
            one.part.log("trial_failed", message=error.message)

    def score(self, models: Sequence[nn.Module]) -> list[Distance]:
        """How far models are from the teacher on held-out text."""
        of = self._score
        return divergence(
            models, self.teacher.teacher, of.shards, self.loader.sequence, of.batch, of.tokens,
            of.document_mask, of.vocabulary,
        )  # fmt: skip


def clear(folder: Path) -> None:
    """Drop what a candidate that goes no further took: its cut model and its checkpoints."""
    for name in ("cut", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)
