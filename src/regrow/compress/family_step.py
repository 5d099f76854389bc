"""One child of a family: scores of its source, a search for its shape, the winner's retraining.

In the run folder::

    trials.jsonl                     every score of every candidate, as it came
    candidates.jsonl                 the same by candidate
    search/<child>/scores/           a run of importance
    search/<child>/trials/<shape>/   a candidate's training; its cut model and its checkpoints
                                     are there only as long as it may go on
    <child>/pruned/, <child>/        the winner: a run of prune, and one of distill
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from regrow.compress.distill_config import DistillConfig
from regrow.compress.family_config import HALVINGS, FamilyConfig
from regrow.compress.family_cost import child_cost, steps_in_turn
from regrow.compress.family_record import candidate_records, compared, rank_report
from regrow.compress.family_shapes import (
    ShortList,
    conditions,
    shape_name,
    short_list,
    sizes_of,
)
from regrow.compress.family_trials import (
    Candidate,
    Lockstep,
    ScoreSettings,
    SharedTeacher,
    clear,
)
from regrow.compress.jobs import distill, importance, prune
from regrow.compress.prune_config import ShapeTarget
from regrow.core.errors import RunError
from regrow.core.lineage import TRIALS
from regrow.core.part import claim_part, run_part
from regrow.core.run import Run
from regrow.model.config import ModelConfig
from regrow.model.folder import load, load_config
from regrow.search.halving import Rung, SuccessiveHalving
from regrow.search.log import TrialLog
from regrow.search.optimiser import Outcome, Point, Trial, search
from regrow.train.device import resolve_device
from regrow.train.sources import Sources
from regrow.train.stage import make_loader

SEARCH = "search"


@dataclass(slots=True)
class Found:
    """What the search for one child came to.

    Args:
        records: of its candidates; see :func:`candidate_records`.
        winner: the shape that is retrained.
        rungs: the shapes that were scored at each rung.
    """

    records: list[dict[str, Any]]
    winner: ModelConfig
    rungs: list[list[ModelConfig]] = field(default_factory=list)


class ChildStep:
    """Makes one child; everything that was done before a kill is taken up again.

    Args:
        config: of the family, its precision settled.
        run: the family's run.
        log: of all its trials.
        name: of the child.
        source: folder of the model that is cut.
        original: shape of the model that budgets' shares are of.
        teacher: folder of the teacher.
    """

    def __init__(
        self,
        config: FamilyConfig,
        run: Run,
        log: TrialLog,
        name: str,
        source: Path,
        original: ModelConfig,
        teacher: Path,
    ) -> None:
        self.config, self.run, self.log, self.name = config, run, log, name
        self.source, self.source_shape = source, load_config(source)
        self.teacher = teacher
        self.folder = run.path / SEARCH / name
        child = config.children[name]

        def decided() -> str:
            made = short_list(
                name, child, self.source_shape, original, config.candidates, config.latency
            )
            return made.as_decision()

        # Timings differ from one attempt to the next, so the first one's list stands.
        told = run.decide(f"short_list.{name}", decided)
        self.listed = ShortList.from_decision(told, self.source_shape)
        self.shapes = {shape_name(shape): shape for shape in self.listed.shapes}
        self.sources = Sources.open(config.data, config.eval.split)

    # Parts

    def scores(self) -> Path:
        """Importance over the source, measured once."""
        folder = self.folder / "scores"
        run_part(
            self.run, folder, "importance", self.config.importance(self.source), importance.run
        )
        return folder

    def cut(self, shape: ModelConfig, folder: Path, whole: Run, scores: Path) -> dict[str, Any]:
        """The source cut to a shape, as a run of prune in ``folder``."""
        fewer = shape.layers < self.source_shape.layers
        sizes = ShapeTarget(**sizes_of(shape))
        settings = self.config.pruning(self.source, scores, sizes, fewer)
        return run_part(whole, folder, "prune", settings, prune.run)

    # The search

    def search(self, scores: Path) -> Found:
        """Score the short list before any retraining, then by successive halving.

        Raises:
            RunError: every candidate failed.
        """
        config = self.config
        keep = 0.5 if config.trial.halving else 1.0
        shares = (1.0, *(keep for _ in HALVINGS), 1.0)
        rungs = [Rung(s, k) for s, k in zip(config.rung_steps, shares, strict=True)]
        points = [self._point(shape) for shape in self.listed.shapes]
        if len(points) == 1:
            rungs = rungs[:1]
        halving = SuccessiveHalving(points, rungs)
        with ExitStack() as stack:
            told = search(halving, self.log, _Trials(self, halving, scores, stack).evaluate)
        try:
            best = halving.best
        except ValueError as error:
            raise RunError(
                f"children.{self.name}: every candidate's training broke down; try a lower "
                f"optim.lr (logs in {self.folder / TRIALS})"
            ) from error
        records = candidate_records(self.name, self.listed, halving, told)
        by_rung = [
            [self._shape(o.trial.point) for o in told if o.trial.resource == rung.resource]
            for rung in rungs
        ]
        return Found(records, self._shape(best), [shapes for shapes in by_rung if shapes])

    def _point(self, shape: ModelConfig) -> dict[str, Any]:
        return {"child": self.name, **sizes_of(shape)}

    def _shape(self, point: Point) -> ModelConfig:
        return next(s for s in self.shapes.values() if self._point(s) == dict(point))

    def trial_folder(self, shape: ModelConfig) -> Path:
        """Where a candidate is trained."""
        return self.folder / TRIALS / shape_name(shape)

    # The winner

    def retrain(self, shape: ModelConfig, scores: Path) -> dict[str, Any]:
        """Cut the source to the winning shape and distil it in full, in ``RUN/<child>``."""
        folder = self.run.path / self.name
        settings = self.config.distillation(folder / "pruned", self.teacher)

        def job(settings: Any, part: Run) -> dict[str, Any]:
            self.cut(shape, folder / "pruned", part, scores)
            made = distill.run(settings, part)
            distance = self._distance(part.export)
            return {**made, "kld": distance}

        return run_part(self.run, folder, "distill", settings, job)

    def _distance(self, folder: Path) -> float:
        """Divergence of a finished child from the teacher, on held-out text."""
        lockstep = self.lockstep(resolve_device(self.config.train.device))
        model = load(folder, dtype=torch.float32).to(lockstep.device)
        return lockstep.score([model])[0].kld

    def lockstep(self, device: torch.device) -> Lockstep:
        """What trains and scores candidates; holds the teacher."""
        config = self.config
        loaded = distill.load_teacher(self.teacher, config.teacher_dtype).to(device)
        turn = steps_in_turn(config.train.batch_tokens, loaded.config.hidden_size)
        per_step = config.train.batch_tokens // config.data.sequence // config.train.micro_batch
        teacher = SharedTeacher(loaded, turn * per_step)
        pair = distill.prepare_pair(self.trial_config(self.source))
        score = ScoreSettings(
            self.sources.held_out, config.trial.score_tokens, config.data.document_mask,
            config.train.micro_batch, pair.vocabulary,
        )  # fmt: skip
        return Lockstep(self.run, teacher, make_loader(pair.stage), score, max(1, turn), device)

    @property
    def searched(self) -> bool:
        """Whether there is more than one candidate."""
        return len(self.listed.entries) > 1

    def trial_config(self, student: Path) -> DistillConfig:
        """Settings of a candidate's lightweight retraining."""
        tokens = self.config.trial.tokens if self.searched else None
        return self.config.distillation(student, self.teacher, tokens)

    def _figures(self, shape: ModelConfig) -> dict[str, Any]:
        return next(entry.figures() for entry in self.listed.entries if entry.shape == shape)

    def run_all(self) -> tuple[dict[str, Any], Found]:
        """Everything; what is there already is not done again.

        Returns:
            The child's part of the family's result, and what the search found.
        """
        scores = self.scores()
        found = self.search(scores)
        made = self.retrain(found.winner, scores)
        for shape in self.listed.shapes:
            clear(self.trial_folder(shape))
        score_tokens = sum(
            min(self.config.trial.score_tokens, shard.num_tokens - 1)
            for shard in self.sources.held_out.values()
        )
        cost = child_cost(
            self.config, load_config(self.teacher), self.source_shape, found.rungs, found.winner,
            made["tokens"], score_tokens,
        )  # fmt: skip
        taught = made["teacher_flops"]  # with what matching hidden states takes
        cost = replace(cost, retraining_flops=made["flops"] - taught, teacher_flops=taught)
        kept = ("parameters", "non_embedding_parameters", "loss", "losses", "bits_per_byte", "kld")
        return {
            "source": str(self.source),
            "shape": sizes_of(found.winner),
            "winner": shape_name(found.winner),
            **self._figures(found.winner),
            "conditions": conditions(self.config.children[self.name], self.source_shape),
            **{key: made[key] for key in kept if key in made},
            "counted": self.listed.counted,
            "candidates": len(self.listed.entries),
            "seconds": made["seconds"],
            **cost.as_json(),
            "ranks": rank_report(found.records),
            "pareto": compared(found.records),
            "run": str(self.run.path / self.name),
        }, found


class _Trials:
    """The evaluator of one child's search; models and trainers are made when they are needed."""

    def __init__(
        self, step: ChildStep, halving: SuccessiveHalving, scores: Path, stack: ExitStack
    ) -> None:
        self._step, self._halving, self._scores, self._stack = step, halving, scores, stack
        self._lockstep: Lockstep | None = None
        self._open: dict[str, Candidate] = {}

    def evaluate(self, trials: list[Trial]) -> Iterator[Outcome]:
        """Train all to the trials' step, score them together, yield one after the other."""
        step, target = self._step, trials[0].resource
        if self._lockstep is None:
            self._lockstep = step.lockstep(resolve_device(step.config.train.device))
        self._drop()
        going = [self._candidate(step._shape(trial.point)) for trial in trials]
        if target:
            self._lockstep.train(going, target)
        whole = [one for one in going if one.failure is None]
        scored = self._lockstep.score([one.model for one in whole])
        distances = {id(one): each for one, each in zip(whole, scored, strict=True)}
        for trial, one in zip(trials, going, strict=True):
            figures: dict[str, Any] = {"step": target, "tokens": target * self._batch}
            distance = distances.get(id(one))
            failure = one.failure
            if distance is not None and not math.isfinite(distance.kld + distance.loss):
                failure = "its divergence from the teacher is not finite"
            if distance is None or failure is not None:
                yield Outcome(trial, math.inf, 0.0, {**figures, "failure": failure})
                continue
            figures |= {"kld": distance.kld, "loss": distance.loss}
            yield Outcome(trial, distance.kld, float(figures["tokens"]), figures)

    @property
    def _batch(self) -> int:
        return self._step.config.train.batch_tokens

    def _candidate(self, shape: ModelConfig) -> Candidate:
        name, step = shape_name(shape), self._step
        if name not in self._open:
            assert self._lockstep is not None
            folder = step.trial_folder(shape)
            settings = step.trial_config(folder / "cut")
            part = claim_part(step.run, folder, "distill", settings, quiet=True)
            self._stack.callback(part.release)
            step.cut(shape, folder / "cut", part, self._scores)
            self._open[name] = self._lockstep.candidate(part, settings)
        return self._open[name]

    def _drop(self) -> None:
        """Let go of what the search has dropped."""
        alive = {shape_name(self._step._shape(point)) for point in self._halving.alive}
        for name in [name for name in self._open if name not in alive]:
            clear(self._open.pop(name).folder)
