"""The one training loop.

A step: micro-batches forward and backward, divide by the weight of the whole global batch, clip,
optimise, log, evaluate, save. All of it is a function of (settings, step): a run that is killed and
goes on from a checkpoint writes the same weights and the same metrics as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from regrow.core.errors import CheckpointError, Interrupted, RunError
from regrow.core.run import Run
from regrow.core.seed import derive
from regrow.train import checkpoint, gradient
from regrow.train.callbacks import Callback
from regrow.train.device import (
    Precision,
    device_of,
    faster_precision,
    resolve_threads,
    rng_state,
    set_rng_state,
)
from regrow.train.guard import Guard
from regrow.train.metrics import Window, sources_read, speed
from regrow.train.objective import Loader, Objective
from regrow.train.optimiser import (
    build_optimiser,
    load_optimiser_state,
    optimiser_state,
    set_lr,
)
from regrow.train.parallel import Sharding
from regrow.train.settings import ModelKind, Settings
from regrow.train.shared_checkpoint import save_together
from regrow.train.world import World

__all__ = ["TIME_FIELDS", "ModelKind", "Settings", "Trainer"]

#: Fields of a metrics record that tell of time, and so differ between two equal runs.
TIME_FIELDS = ("tokens_per_second", "tokens_per_second_device", "seconds", "mfu", "mfu_causal")


class Trainer:
    """Trains what an objective says, on what a loader gives, in a run folder.

    Args:
        objective: what to minimise.
        loader: samples by number.
        settings: everything else.
        run: the claimed run folder.
        evaluate: returns held-out figures (JSON-able); called in between and at the end.
        kind: how to export; without it nothing is exported.
        optimiser: by default AdamW over all trained parameters.
        callbacks: who else is told of each record.
        sharding: how the module lies over several processes, all of which make this call; None
            for one.

    Example:
        >>> trainer = Trainer(NextToken(model), loader, settings, run)
        >>> trainer.train(until_step=100)
        >>> trainer.train()  # to the end; or in a new process, from the last checkpoint
    """

    def __init__(
        self,
        objective: Objective,
        loader: Loader,
        settings: Settings,
        run: Run,
        evaluate: Callable[[], dict[str, Any]] | None = None,
        kind: ModelKind | None = None,
        optimiser: torch.optim.Optimizer | None = None,
        callbacks: Sequence[Callback] = (),
        sharding: Sharding | None = None,
    ) -> None:
        self.objective = objective
        self.loader = loader
        self.settings = settings
        self.run = run
        self.evaluate = evaluate
        self.kind = kind
        self.callbacks = tuple(callbacks)
        self.sharding = sharding
        self.world = sharding.world if sharding is not None else World()
        self.module = objective.trainable()
        self.device = device_of(self.module)
        self.precision: Precision = "fp32"
        self.optimiser = optimiser or build_optimiser(
            self.module, settings.betas, settings.eps, settings.weight_decay
        )
        self.step = 0
        self.seconds = 0.0
        self.validation: dict[str, Any] | None = None
        self._parameters = [p for p in self.module.parameters() if p.requires_grad]
        self._batches = settings.batches
        self._guard = Guard(settings.guard)
        self._window = Window()
        self._last_loss: float | None = None
        self._started = False
        self._saved_step: int | None = None
        self._exported = False

    @property
    def tokens(self) -> int:
        """Tokens consumed so far."""
        return self.samples * self.settings.sequence

    @property
    def samples(self) -> int:
        """Samples consumed so far."""
        return self._batches.before(self.step)

    def train(self, until_step: int | None = None) -> dict[str, Any]:
        """Go on to ``until_step``, by default to the end; then evaluate, save and export.

        The first call takes up the newest whole checkpoint of the run folder, if there is one.

        Args:
            until_step: stop after so many optimiser steps of the run in all.

        Returns:
            ``step, tokens, loss`` (training), ``validation``, ``seconds_training``, ``ledger``,
            ``skipped_steps``.

        Raises:
            Interrupted: a stop was asked for; a checkpoint was committed.
            RunError: a loss or gradient is not finite, or the guard stops the run; the last
                checkpoint is good.
        """
        settings = self.settings
        self._start()
        target = settings.steps if until_step is None else min(until_step, settings.steps)
        left = max(0, self._batches.before(target) - self.samples) * settings.sequence
        showing = self.run.progress(settings.label, left, settings.unit) if left else nullcontext()
        self.module.train()
        with showing as progress:
            while self.step < target:
                self._one_step(progress)
                if self.step == settings.steps:
                    break
                if self._due(settings.save_every_tokens):
                    self.save()
                if self._stop_requested():
                    self.save()
                    raise Interrupted(
                        f"stopped after step {self.step} of {settings.steps}; "
                        f"the same command goes on in {self.run.path}"
                    )
        if self.step == settings.steps:
            self._finish()
        return self._figures()

    def _precision(self) -> Precision:
        if self.settings.precision != "auto":
            return self.settings.precision
        rows = self.settings.micro_batch * self.settings.sequence
        made = self.world.share(
            self.run.decide("precision", lambda: faster_precision(self.module, rows, self.device))
        )
        return "bf16" if made == "bf16" else "fp32"

    def _stop_requested(self) -> bool:
        """Whether any process was asked to stop; all then do, after the same step."""
        return self.world.total([float(self.run.stop_requested)])[0] > 0

    def save(self) -> None:
        """Commit a checkpoint of the present step, unless it is there already."""
        if self._saved_step == self.step:
            return
        state = checkpoint.State(
            model=self.module.state_dict(),
            optimizer=optimiser_state(self.optimiser, self.module),
            rng=rng_state(self.device),
            trainer={
                "step": self.step,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "threads": torch.get_num_threads(),
                "precision": self.precision,
                "loss": self._last_loss,
                "window": self._window.as_json(),
                "guard": self._guard.as_json(),
                "validation": self.validation,
                "settings": self._identity(),
            },
            data={"samples": self.samples, "ledger": self.loader.ledger(self.samples)},
        )
        how: dict[str, Any] = {
            "config_hash": self.run.config_hash,
            "keep": self.settings.keep,
            "flush": (self.run.metrics.path,),
        }
        if self.sharding is None:
            checkpoint.save(self.run.checkpoints, self.step, state, **how)
        else:
            save_together(self.run.checkpoints, self.step, state, self.sharding, **how)
        self._saved_step = self.step
        self.run.log("checkpoint", step=self.step)

    def _start(self) -> None:
        if self._started:
            return
        threads = resolve_threads(self.settings.threads)
        torch.set_num_threads(threads)
        self.precision = self._precision()
        # Dropout draws from torch's own generator: seed it, and keep it in checkpoints.
        torch.manual_seed(derive(self.settings.seed, "train"))
        newest = self._newest_checkpoint()
        if newest is None:
            self.run.metrics.truncate(-1)
            self.run.log("training_starts", threads=threads, precision=self.precision)
        else:
            self._restore(checkpoint.load(newest), newest, threads)
            if self.run.writes:
                checkpoint.retain(self.run.checkpoints, self.step, self.settings.keep)
            self.run.metrics.truncate(self.step)
            self.run.log("training_resumes", step=self.step, checkpoint=newest.name)
        for callback in self.callbacks:
            callback.begin(self.run.metrics.read())
        self._started = True

    def _newest_checkpoint(self) -> Path | None:
        """The newest that is whole; the first process looks, and all take the same."""
        return cast("Path | None", self.world.first(self._look_for_checkpoint))

    def _look_for_checkpoint(self) -> Path | None:
        folder = self.run.checkpoints
        if folder.is_dir():
            from regrow.core.atomic import remove_leftovers

            for path in remove_leftovers(folder):
                self.run.log("leftover_removed", path=str(path))
        return checkpoint.latest(folder, self.run.log)

    def _restore(self, state: checkpoint.State, path: Path, threads: int) -> None:
        record = state.trainer
        theirs, ours = record["settings"], self._identity()
        odd = [
            f"{k}: {theirs.get(k)} there, {v} now" for k, v in ours.items() if theirs.get(k) != v
        ]
        if odd:
            raise CheckpointError(f"checkpoint {path} is of a run with other settings", odd)
        try:
            if self.sharding is None:
                self.module.load_state_dict(dict(state.model), strict=True)
            else:
                self.sharding.load(self.module, state.model)
        except RuntimeError as error:
            raise CheckpointError(f"checkpoint {path} does not fit the model: {error}") from error
        self.load_optimiser(state.optimizer)
        set_rng_state(state.rng)
        self.step = self._saved_step = int(record["step"])
        self.seconds = float(record["seconds"])
        self.validation = record["validation"]
        self._last_loss = record["loss"]
        self._window = Window.from_json(record["window"])
        if "guard" in record:  # older checkpoints have none
            self._guard.restore(record["guard"])
        for what, was, now in (
            ("threads", record["threads"], threads),
            ("precision", record["precision"], self.precision),
        ):
            if was != now:
                self.run.log(
                    "resumed_differently",
                    level="warning",
                    message=f"{what}: {was} before, {now} now; results will differ in rounding",
                )

    def load_optimiser(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state of an optimiser of the whole model, ``parameter/key`` to tensor.

        Raises:
            CheckpointError: it does not fit.
        """
        if self.sharding is not None:
            state = self.sharding.shares(self.module, state)
        load_optimiser_state(self.optimiser, self.module, state)

    def _identity(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its resume."""
        s = self.settings
        return {
            "schedule": s.schedule.as_json(),
            "steps": s.steps,
            "batch_samples": s.batch_samples,
            "sequence": s.sequence,
            "phases": [phase.as_json() for phase in s.phases],
            **({"ramp": [list(stage) for stage in s.ramp]} if s.ramp else {}),
        }

    def _one_step(self, progress: Any) -> None:
        settings = self.settings
        began = time.perf_counter()
        loss_sum, weight, metrics = gradient.backward(
            self.objective,
            self.loader,
            self.samples,
            self._batches.size(self.step),
            settings.micro_batch,
            self.precision,
            self.world,
        )
        total_weight = float(weight)
        if not total_weight > 0:
            raise RunError(f"step {self.step}: the global batch has no targets at all")
        norm = gradient.scale_and_clip(
            self.module, self._parameters, total_weight, settings.grad_clip, self.sharding
        )
        batch_tokens = self._batches.size(self.step) * settings.sequence
        lr = settings.schedule.lr_at(self.tokens + batch_tokens)
        if self._passes(float(loss_sum) / total_weight, norm):
            set_lr(self.optimiser, lr)
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._window.add(loss_sum, total_weight, norm, metrics)
        phase = self._phase_name()
        self.step += 1
        spent = time.perf_counter() - began
        self.seconds += spent
        self._window.seconds += spent
        shown: dict[str, Any] = {}
        if self.step % settings.log_every_steps == 0 or self.step == settings.steps:
            shown = self._log(lr, phase)
        if progress is not None:
            progress.advance(batch_tokens, **shown)
        if self.evaluate and (self._due(settings.eval_every_tokens) or self.step == settings.steps):
            self._evaluate(phase)

    def _passes(self, loss: float, norm: float) -> bool:
        """Whether the present step may be taken; says so where it may not.

        Raises:
            RunError: it may not, and the run ends here.
        """
        found = self._guard.judge(self.step, loss, norm)
        if found is None:
            return True
        if found.stop:
            raise RunError(
                f"step {self.step}: {found.reason}; "
                f"the last checkpoint in {self.run.checkpoints} is good"
            )
        self._window.skipped += 1
        self.run.log(
            "step_skipped",
            level="warning",
            step=self.step,
            samples=[self.samples, self._batches.before(self.step + 1)],
            message=f"step {self.step} is not taken: {found.reason}",
        )
        return False

    def _phase_name(self) -> str:
        """Name of the blend that the present step reads."""
        names = [p.name for p in self.settings.phases if p.first_step <= self.step]
        return names[-1] if names else ""

    def _due(self, every_tokens: int) -> bool:
        """Whether the step just done passed a multiple of ``every_tokens``."""
        if not every_tokens:
            return False
        before = self._batches.before(self.step - 1) * self.settings.sequence
        return self.tokens // every_tokens > before // every_tokens

    def _log(self, lr: float, phase: str) -> dict[str, Any]:
        settings, window = self.settings, self._window
        averages = window.averages()
        loss = averages.get("loss", self._last_loss)
        if loss is not None and not math.isfinite(loss):
            raise RunError(f"step {self.step}: the loss is not finite ({loss})")
        self._last_loss = loss
        since = self._batches.before(self.step - window.steps)
        tokens = (self.samples - since) * settings.sequence
        record: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            **averages,
            "lr": lr,
            "phase": phase,
            **sources_read(self.loader, since, self.samples),
            **({"skipped": window.skipped} if window.skipped else {}),
            **speed(
                tokens / window.seconds if window.seconds else 0.0,
                settings.flops_per_token,
                settings.flops_per_token_causal,
                settings.peak_flops,
                self._devices(),
            ),
            "seconds": round(self.run.seconds(), 3),
        }
        self._record(record)
        self.run.status(step=self.step, total=settings.steps, tokens=self.tokens, loss=loss)
        self._window = Window()
        return {"lr": lr} if loss is None else {"loss": loss, "lr": lr}

    def _devices(self) -> int:
        """How many devices share the work."""
        parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
        return torch.distributed.get_world_size() if parallel else 1

    def _record(self, record: dict[str, Any]) -> None:
        self.run.metrics.append(record)
        for callback in self.callbacks:
            callback.on_record(record)

    def _evaluate(self, phase: str) -> None:
        assert self.evaluate is not None
        self.validation = self.evaluate()
        self.module.train()
        record = {
            "step": self.step,
            "tokens": self.tokens,
            "phase": phase,
            "validation": self.validation,
            "seconds": round(self.run.seconds(), 3),
        }
        self._record(record)

    def _finish(self) -> None:
        self.save()
        if self.kind is not None and not self._exported:
            self.kind.export(self.module, self.run.export)
            self._exported = True

    def _figures(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": self._last_loss,
            "validation": self.validation,
            "seconds_training": round(self.seconds, 3),
            "ledger": self.loader.ledger(self.samples),
            "skipped_steps": self._guard.skipped,
        }
