"""What every training verb does around the loop: checks, plan, loop, figures.

``pretrain``, ``continue`` and ``distill`` differ in where the model comes from and in the
objective; the rest is here. Planning needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError, RegrowError
from regrow.core.inputs import WHOLE_HASH_BYTES, hash_file
from regrow.core.plan import Plan
from regrow.core.registry import nearest
from regrow.core.run import Run
from regrow.io.tokenizer import Tokenizer
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.shapes import flops_per_token, non_embedding_parameters, parameters
from regrow.train import callbacks
from regrow.train.batches import Batches
from regrow.train.config import PhaseConfig, StageConfig
from regrow.train.phases import ResolvedPhase, resolve_phases
from regrow.train.processes import process_count, tensor_problems
from regrow.train.schedule import Schedule
from regrow.train.sources import Sources

if TYPE_CHECKING:
    from regrow.data.loader import Loader
    from regrow.train.objective import Objective

SCHEDULE_FILE = "training_schedule.json"
#: Reading a source more often than this rarely pays (Muennighoff et al., arXiv 2305.16264).
EPOCHS_WORTH_A_NOTE = 4.0
_MASTER_BYTES = 4 * 3  # fp32 weight and two moments of AdamW


@dataclass(frozen=True)
class Stage:
    """A training stage with everything resolved that can be before step 0.

    Args:
        config: the verb's settings.
        model: shape of the trained model.
        sources: its shards.
        schedule: learning rate over its tokens.
        phases: the blends, on step boundaries.
        tokenizer: path of the ``tokenizer.json``; None where it is not known.
    """

    config: StageConfig
    model: ModelConfig
    sources: Sources
    schedule: Schedule
    phases: tuple[ResolvedPhase, ...]
    tokenizer: Path | None

    @cached_property
    def batches(self) -> Batches:
        """Tokens of each optimiser step."""
        return self.config.train.batches()

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimiser step; with a batch ramp, of those behind it."""
        return self.batches.last

    @property
    def batch_samples(self) -> int:
        """Sequences of such a step."""
        return self.batch_tokens // self.config.data.sequence

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.batches.steps

    @property
    def tokens(self) -> int:
        """Tokens trained on: the budget, rounded down to whole steps."""
        return self.batches.total

    @property
    def flops(self) -> int:
        """Model FLOPs of the whole stage, forward and backward."""
        return self.tokens * flops_per_token(self.model, self.config.data.sequence)

    @cached_property
    def epochs(self) -> dict[str, float]:
        """How often each source will be read; without shards that is not known."""
        shards = self.sources.train
        return {
            name: tokens / shards[name].num_tokens
            for name, tokens in self.drawn.items()
            if name in shards
        }

    @cached_property
    def drawn(self) -> dict[str, float]:
        """Tokens of each source over the whole stage."""
        drawn: dict[str, float] = {}
        for phase in self.phases:
            for name, share in phase.weights.items():
                drawn[name] = drawn.get(name, 0.0) + share * phase.tokens
        return drawn

    def plan(self, verb: str, notes: tuple[str, ...] = ()) -> Plan:
        """What the verb prints before it starts."""
        sequence = self.config.data.sequence
        count = parameters(self.model)
        figures: dict[str, Any] = {
            "tokens": self.tokens,
            "steps": self.steps,
            "batch_tokens": self.batch_tokens,
            "parameters": count,
            "non_embedding_parameters": non_embedding_parameters(self.model),
            "flops_per_token": flops_per_token(self.model, sequence),
            "flops": self.flops,
            **self._least_time(),
            "lr": self.schedule.lr,
            "min_lr": self.schedule.min_lr,
            "warmup_tokens": self.schedule.warmup_tokens,
            **self._ramp_figures(),
            "phases": [self._phase_figures(phase) for phase in self.phases],
            "epochs": {name: round(value, 3) for name, value in self.epochs.items()},
            "checkpoint_bytes": count * _MASTER_BYTES,
        }
        if len(self.phases) > 1:
            figures["switch_step"] = self.phases[1].first_step
            figures["switch_token"] = self.phases[1].first_token
            figures["switch_fraction"] = round(self.phases[1].first_token / self.tokens, 4)
        title = f"{verb} {count:,} parameters on {self.tokens:,} tokens in {self.steps:,} steps"
        often = [
            f"source {name} will be read {value:.1f} times"
            for name, value in self.epochs.items()
            if value > EPOCHS_WORTH_A_NOTE
        ]
        often += [
            f"source {name} is left out: its {shard.num_tokens} tokens are less than one sequence"
            for name, shard in self.sources.train.items()
            if not self.config.data.phases and name not in self.epochs
        ]
        missing: tuple[str, ...] = ()
        if not self.sources.train:
            folder = self.sources.folder
            often.append(f"plan only: {folder} does not exist, so epochs are not known")
            missing = (f"data.shards: {folder} does not exist; name a run folder of tokenize",)
        elif self.tokenizer is None:
            often.append("no tokenizer is known: no bits per byte, and none beside the model")
        often += [f"trained but not exported: {reason}" for reason in self.not_exported]
        return Plan(title, figures, (*notes, *often), missing)

    @property
    def not_exported(self) -> list[str]:
        """Why no stock class can hold the shape; nothing where one can."""
        return ADAPTERS.get(self.model.layout).check(self.model)

    def _least_time(self) -> dict[str, float]:
        """Hours of one device that never rests, where its speed is known."""
        peak = self.config.train.peak_flops
        return {"least_device_hours": self.flops / peak / 3600} if peak else {}

    def _ramp_figures(self) -> dict[str, Any]:
        """Each stage of a batch ramp; nothing where all batches are equal."""
        if not self.batches.ramped:
            return {}
        stages, first = [], 0
        for size, steps in self.batches.stages:
            consumed = self.batches.before(first)
            stages.append(
                {
                    "batch_tokens": size,
                    "batch_sequences": size // self.config.data.sequence,
                    "first_step": first,
                    "first_token": consumed,
                    "steps": steps,
                    "tokens": size * steps,
                    "lr_first": self.schedule.lr_at(consumed + size),
                }
            )
            first += steps
        return {"batch_ramp": stages}

    def _phase_figures(self, phase: ResolvedPhase) -> dict[str, Any]:
        first = self.schedule.lr_at(self.batches.before(phase.first_step + 1))
        last = self.schedule.lr_at(phase.first_token + phase.tokens)
        return {
            "name": phase.name,
            "first_step": phase.first_step,
            "first_token": phase.first_token,
            "steps": phase.steps,
            "tokens": phase.tokens,
            "lr_first": first,
            "lr_last": last,
            "weights": {name: round(share, 6) for name, share in phase.weights.items()},
        }


def prepare(
    config: StageConfig,
    model: ModelConfig,
    sources: Sources,
    schedule: Schedule,
    tokenizer: Path | None,
) -> Stage:
    """Resolve a stage, or say all that is wrong with it.

    Args:
        config: the verb's settings.
        model: shape of the trained model.
        sources: the opened shards.
        schedule: over the tokens of whole steps; see :func:`whole_tokens`.
        tokenizer: path of the model's ``tokenizer.json``, or None.

    Raises:
        ConfigError: phases that cannot be run, weights on unknown sources, a sequence that the
            model does not reach, a log that cannot be written.
        InputError: shards that do not fit the model or the tokenizer.
    """
    problems: list[str] = callbacks.check(config.log.callbacks())
    sequence = config.data.sequence
    if sequence > model.max_positions:
        problems.append(
            f"data.sequence {sequence} is more than the model's max_positions {model.max_positions}"
        )
    known = list(sources.train)
    for index, phase in enumerate(config.data.phases):
        problems += [
            f"data.phases.{index}.weights.{name}: no shard of this name"
            f"{nearest(name, known)} (shards: {', '.join(known)})"
            for name in phase.weights
            if name not in known
        ]
    usable = {n: s.num_tokens for n, s in sources.train.items() if s.num_tokens > sequence}
    phases = config.data.phases or (_natural(usable),) if usable else config.data.phases
    problems += [
        f"data.max_epochs.{name}: no shard of this name{nearest(name, known)} "
        f"(shards: {', '.join(known)})"
        for name in config.data.max_epochs
        if name not in known
    ]
    problems += [
        f"source {name} has {sources.train[name].num_tokens} tokens, too few for one sequence of "
        f"{sequence}"
        for name in sorted({n for phase in phases for n in phase.weights if n in known})
        if name not in usable
    ]
    if not usable:
        problems.append(f"no source has more tokens than one sequence of {sequence}")
    resolved: tuple[ResolvedPhase, ...] = ()
    if not problems:
        resolved = resolve_phases(phases, schedule, config.train.batches())
    problems += _world_problems(config, model)
    if problems:
        raise ConfigError("the training cannot start", problems)
    sha = Tokenizer.load(tokenizer).sha256 if tokenizer is not None else None
    for shards in (sources.train, sources.held_out):
        for shard in shards.values():
            shard.require(model.vocab_size, sha)
    stage = Stage(config, model, sources, schedule, resolved, tokenizer)
    often = _too_often(stage)
    if often:
        raise ConfigError("the training cannot start", often)
    return stage


def _too_often(stage: Stage) -> list[str]:
    """Sources that the phases would read more often than ``data.max_epochs`` allows."""
    shards = stage.sources.train
    return [
        f"data.max_epochs.{name}: the phases read the source {stage.epochs[name]:.2f} times "
        f"({stage.drawn[name]:,.0f} of its {shards[name].num_tokens:,} tokens), more than "
        f"{limit:g}; lower its weight or train.tokens, add text, or allow more"
        for name, limit in stage.config.data.max_epochs.items()
        if stage.epochs.get(name, 0.0) > limit
    ]


def _world_problems(config: StageConfig, model: ModelConfig) -> list[str]:
    """What the processes that torchrun started cannot divide among them."""
    processes, tensor = process_count(), config.parallel.tp
    if processes % tensor:
        return [
            f"parallel.tp: {tensor} does not divide the {processes} process(es) of this run; "
            f"start it with torchrun --nproc-per-node {tensor} or a multiple"
        ]
    found = tensor_problems(model, tensor)
    rows = config.train.micro_batch * config.data.sequence * (processes // tensor)
    for batch in sorted(
        {config.train.batch_tokens, *(s.batch_tokens for s in config.train.batch_ramp)}
    ):
        if batch % rows:
            found.append(
                f"train.micro_batch: a step of {batch} tokens cannot be divided among "
                f"{processes // tensor} data processes of {config.train.micro_batch} x "
                f"{config.data.sequence} tokens each; use another micro_batch or batch_tokens"
            )
    return found


def whole_tokens(config: StageConfig) -> int:
    """The budget rounded down to whole steps: what a schedule runs over."""
    return config.train.batches().total


def _natural(tokens: dict[str, int]) -> PhaseConfig:
    """One phase with every source in its natural share."""
    return PhaseConfig(name="all", weights={name: float(count) for name, count in tokens.items()})


def record_inputs(stage: Stage, run: Run) -> None:
    """Note the shards and the tokenizer as inputs of the run."""
    run.input(stage.sources.folder, "shards")
    if stage.tokenizer is not None:
        run.input(stage.tokenizer, "tokenizer")


def run_stage(
    stage: Stage,
    objective: Objective,
    run: Run,
    label: str,
    prepare_optimiser: Callable[[Any], None] | None = None,
    sharding: Any = None,
) -> dict[str, Any]:
    """Train, evaluate, export; the figures that every training verb reports.

    Args:
        stage: from :func:`prepare`.
        objective: over the model, on its device.
        run: the claimed run folder.
        label: what progress shows.
        prepare_optimiser: called with the trainer before a run's first step, when no checkpoint
            is there; loads an earlier optimiser state.
        sharding: of the model, from :func:`regrow.train.parallel.distribute`; None for one process.

    Returns:
        ``tokens, steps, flops, loss, losses, bits_per_byte, seconds_training, parameters,
        non_embedding_parameters, weights_sha256, ledger, ...``.
    """
    from functools import partial

    from regrow.data.loader import evaluation_batches
    from regrow.model.folder import check_export, save
    from regrow.train import checkpoint, compiled
    from regrow.train.device import resolve_threads
    from regrow.train.held_out import held_out
    from regrow.train.parallel import whole_model
    from regrow.train.trainer import ModelKind, Settings, Trainer
    from regrow.train.world import World

    config, data = stage.config, stage.config.data
    if stage.model.is_transformer:  # always near to a shape that can be exported: not after hours
        check_export(stage.model)
    tokenizer = Tokenizer.load(stage.tokenizer) if stage.tokenizer is not None else None
    loader = make_loader(stage)
    model: Any = objective.trainable()
    world = sharding.world if sharding is not None else World()
    for block in model.blocks:
        block.recompute = config.train.activation_checkpointing
    compiled.choose(
        config.train.compile,
        model,
        run,
        world,
        stage.flops,
        config.train.micro_batch * data.sequence,
        resolve_threads(config.train.threads),
    )

    def evaluate() -> dict[str, Any]:
        return held_out(
            model,
            stage.sources.held_out,
            tokenizer.token_bytes() if tokenizer is not None else None,
            data.sequence,
            config.train.micro_batch,
            config.eval.tokens,
            partial(evaluation_batches, document_mask=data.document_mask),
            world,
        )

    def export(module: Any, folder: Path) -> None:
        if sharding is None:
            save(module.cpu(), folder, tokenizer)
            return
        whole: Any = whole_model(module, sharding, stage.model)
        sharding.world.first(lambda: save(whole, folder, tokenizer) and None)

    kind = ModelKind(export) if not stage.not_exported else None
    trainer = Trainer(
        objective,
        loader,
        loop_settings(stage, Settings, label),
        run,
        evaluate,
        kind,
        callbacks=callbacks.build(config.log.callbacks(), run.path) if run.writes else (),
        sharding=sharding,
    )
    if not checkpoint.steps_in(run.checkpoints):
        stage.sources.check_ids({name for phase in stage.phases for name in phase.weights})
        if prepare_optimiser is not None:
            prepare_optimiser(trainer)
    # Written before the first step: what the run is meant to do does not depend on its end.
    if run.writes:
        atomic.write_json(run.path / SCHEDULE_FILE, schedule_record(stage))
    figures = trainer.train()
    last = checkpoint.step_folder(run.checkpoints, stage.steps)
    return stage_result(stage, figures, run.export if kind is not None else last)


def make_loader(stage: Stage) -> Loader:
    """The samples of a stage, in their order."""
    from regrow.data.loader import Loader, Phase

    data = stage.config.data
    return Loader(
        stage.sources.train,
        [Phase(p.name, p.weights, p.tokens // data.sequence) for p in stage.phases],
        data.sequence,
        data.seed,
        data.document_mask,
    )


def loop_settings(stage: Stage, make: Callable[..., Any], label: str) -> Any:
    """The loop's :class:`regrow.train.trainer.Settings` of a stage."""
    config, sequence = stage.config, stage.config.data.sequence
    return make(
        schedule=stage.schedule,
        steps=stage.steps,
        batch_samples=stage.batch_samples,
        micro_batch=config.train.micro_batch,
        sequence=sequence,
        ramp=tuple((size // sequence, steps) for size, steps in stage.batches.stages[:-1]),
        phases=stage.phases,
        precision=config.train.precision,
        threads=config.train.threads,
        grad_clip=config.train.grad_clip,
        betas=config.optim.betas,
        eps=config.optim.eps,
        weight_decay=config.optim.weight_decay,
        seed=config.seed,
        guard=config.guard.rules(),
        flops_per_token=flops_per_token(stage.model, sequence),
        flops_per_token_causal=flops_per_token(stage.model, sequence, causal=True),
        peak_flops=config.train.peak_flops,
        eval_every_tokens=config.eval.every_tokens,
        save_every_tokens=config.save.every_tokens,
        keep=config.save.keep,
        log_every_steps=config.log.every_steps,
        label=label,
    )


def schedule_record(stage: Stage) -> dict[str, Any]:
    """What a continuation has to know of this training: ``training_schedule.json``."""
    return {
        **stage.schedule.as_json(),
        "min_lr": stage.schedule.min_lr,
        "steps": stage.steps,
        "batch_tokens": stage.batch_tokens,
        **({"batch_ramp": stage.batches.stages[:-1]} if stage.batches.ramped else {}),
        "phases": [phase.as_json() for phase in stage.phases],
    }


def read_schedule(model: Path) -> dict[str, Any] | None:
    """The ``training_schedule.json`` of the run that made a model; None where there is none.

    Args:
        model: the run folder, or its ``export``.
    """
    for folder in (model, model.parent):
        try:
            record: dict[str, Any] = atomic.read_json(folder / SCHEDULE_FILE)
            return record if isinstance(record.get("min_lr"), float) else None
        except OSError:
            continue
        except (ValueError, AttributeError) as error:
            raise InputError(f"{folder / SCHEDULE_FILE} is damaged ({error})") from error
    return None


def stage_result(stage: Stage, figures: dict[str, Any], weights: Path) -> dict[str, Any]:
    """The part of ``result.json`` that all training verbs share.

    Args:
        stage: from :func:`prepare`.
        figures: from the trainer.
        weights: the export, or the last checkpoint of a shape that no stock class can hold.
    """
    validation = figures["validation"] or {}
    return {
        "tokens": stage.tokens,
        "steps": stage.steps,
        "flops": stage.flops,
        "loss": validation.get("loss"),
        "losses": validation.get("losses", {}),
        "bits_per_byte": validation.get("bits_per_byte", {}),
        "validation_tokens": validation.get("tokens", 0),
        "training_loss": figures["loss"],
        "skipped_steps": figures["skipped_steps"],
        "seconds_training": figures["seconds_training"],
        "tokens_per_second": round(stage.tokens / max(figures["seconds_training"], 1e-9), 1),
        "parameters": parameters(stage.model),
        "non_embedding_parameters": non_embedding_parameters(stage.model),
        "weights_sha256": weights_sha256(weights),
        "schedule": schedule_record(stage),
        "ledger": figures["ledger"],
        **({"not_exported": stage.not_exported} if stage.not_exported else {}),
    }


def weights_sha256(folder: Path) -> str:
    """SHA-256 of ``model.safetensors``; of several shards, of their bytes one after the other.

    Of a file above 1 GiB samples count in place of its bytes, as in :mod:`regrow.core.inputs`.

    Raises:
        RegrowError: no weights there.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise RegrowError(f"{folder} holds no model*.safetensors")
    digest = hashlib.sha256()
    for path in files:
        if path.stat().st_size > WHOLE_HASH_BYTES:
            digest.update(hash_file(path)["sha256"].encode())
            continue
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
