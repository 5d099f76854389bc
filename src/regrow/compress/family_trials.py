"""Candidates that are retrained side by side: the same batches, one teacher's pass for all.

Each candidate is a :class:`regrow.train.trainer.Trainer` in a run folder of its own, with its own
checkpoints; here they take turns, a few steps each, so that what the teacher made of a batch serves
all of them. A candidate that fell behind (its checkpoint was older when the run was killed) catches
up by itself: what it learns does not depend on who else is there.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrow.compress.divergence import Distance, divergence
from regrow.core.errors import Interrupted, RunError
from regrow.core.part import Part
from regrow.core.run import Run
from regrow.data.loader import Loader
from regrow.data.shards import Shard
from regrow.train.trainer import Settings, Trainer


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


class Lockstep:
    """Trains and scores candidates.

    Args:
        run: the whole; shows the progress.
        teacher: what all learn from, shared.
        objective: makes the objective of a student and the teacher.
        loader: the batches that all see.
        settings: of the loop, for a model.
        held_out: source to held-out shard, to score on.
        score_tokens: of each source, at most.
        document_mask: whether documents are kept apart.
        turn: steps of one candidate before the next one's turn.
        device: of all models.
    """

    def __init__(
        self,
        run: Run,
        teacher: SharedTeacher,
        objective: Callable[[nn.Module, nn.Module], Any],
        loader: Loader,
        settings: Callable[[nn.Module], Settings],
        held_out: Mapping[str, Shard],
        score_tokens: int,
        document_mask: bool,
        turn: int,
        device: torch.device,
    ) -> None:
        self.run, self.teacher, self.loader = run, teacher, loader
        self.turn, self.device = turn, device
        self._objective, self._settings = objective, settings
        self._held_out, self._score_tokens = held_out, score_tokens
        self._document_mask = document_mask

    def candidate(self, part: Part, model: nn.Module) -> Candidate:
        """A model that will be trained in a claimed part of the run."""
        model = model.to(self.device)
        objective = self._objective(model, self.teacher)
        trainer = Trainer(objective, self.loader, self._settings(model), part)
        return Candidate(part.path, model, trainer, part)

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

    def score(self, models: Sequence[nn.Module], batch: int) -> list[Distance]:
        """How far models are from the teacher on held-out text."""
        teacher = self.teacher.teacher
        return divergence(
            models, teacher, self._held_out, self.loader.sequence, batch, self._score_tokens,
            self._document_mask,
        )  # fmt: skip


def clear(folder: Path) -> None:
    """Drop what a candidate that goes no further took: its cut model and its checkpoints."""
    for name in ("cut", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)
