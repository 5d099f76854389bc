"""What the removal of layers costs, by running the model without them.

One pass over a few windows of text (metric ppl) or over a task (metric task) for each removal. What
each gave is written at once, so a run that was killed goes on with the next one, and within a task
with the next items.

Source: Minitron (arXiv 2407.14679), section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrow.compress.depth import Indices, layer_blocks, without
from regrow.compress.prune_config import PruneConfig
from regrow.core import atomic
from regrow.core.errors import InputError, Interrupted
from regrow.core.run import Run
from regrow.data.loader import Loader, Phase
from regrow.data.shards import Shard, ShardSet
from regrow.eval.config import EvaluateConfig
from regrow.eval.harness import finished, run_task
from regrow.eval.task_stage import model_problems, problems_of, settings_for, tasks_of
from regrow.io.runs import resolve_shards
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.device import device_of, to_device
from regrow.train.held_out import evaluating
from regrow.train.objectives.next_token import cross_entropy

#: What each removal gave, in the run folder; beside it the items of a task.
RECORD, FOLDER = "depth.json", "depth"
_BATCH = 8
_LENGTHS = (256, 512)

#: A model with some layers gone, and a name for what is gone, to a cost.
Measure = Callable[[Decoder, str], float]


def trimmed(model: Decoder, gone: Indices) -> Decoder:
    """The model without some layers; it shares every tensor, so it costs no memory.

    Args:
        model: the source.
        gone: layers, as :func:`regrow.compress.depth.layer_blocks` counts them.
    """
    if not gone:
        return model
    kept = [
        block
        for layer, blocks in enumerate(layer_blocks(model.config))
        if layer not in gone
        for block in blocks
    ]
    with torch.device("meta"):
        view = Decoder(without(model.config, gone))
    view.embed, view.norm, view.head = model.embed, model.norm, model.head
    view.blocks = nn.ModuleList(model.blocks[block] for block in kept)
    return view.train(model.training)


class Sweep:
    """Costs of removals, each measured once; what is known is kept in a file.

    Args:
        load: gives the model; called only if something is left to measure.
        measure: the cost of a model; the less the better.
        file: where results are kept.
        between: called before each removal with how many are done, of how many; may raise.
    """

    def __init__(
        self,
        load: Callable[[], Decoder],
        measure: Measure,
        file: Path,
        between: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._load, self._measure, self._file, self._between = load, measure, file, between
        self.costs: dict[str, float] = atomic.read_json(file) if file.is_file() else {}

    def __call__(self, runs: list[Indices]) -> list[float]:
        """Costs of removing each of ``runs``, and, under the name ``none``, of removing nothing."""
        model: Decoder | None = None
        wanted: list[Indices] = [(), *runs]
        for done, run in enumerate(wanted):
            name = _name(run)
            if name in self.costs:
                continue
            self._between(done, len(wanted))
            if model is None:
                model = self._load()
            with evaluating(model):
                self.costs[name] = self._measure(trimmed(model, run), name)
            atomic.write_json(self._file, self.costs)
        return [self.costs[_name(run)] for run in runs]


def _name(run: Indices) -> str:
    if not run:
        return "none"
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"


def loss_over(loader: Loader, samples: int) -> Measure:
    """Mean loss over the first windows of a loader, in nats per token."""

    def measure(model: Decoder, name: str) -> float:
        device, sums, counted = device_of(model), [], 0
        for first in range(0, samples, _BATCH):
            batch = to_device(loader.batch(first, min(_BATCH, samples - first)), device)
            total, count = cross_entropy(model, batch)
            sums.append(float(total))
            counted += int(count)
        loss = math.fsum(sums) / counted
        # A model that overflows without a layer is as bad as can be, and JSON has no infinity.
        return loss if math.isfinite(loss) else 1e30

    return measure


def is_swept(config: PruneConfig, source: ModelConfig, layers: int) -> bool:
    """Whether layers go that have to be tried out.

    Args:
        config: settings of ``prune``.
        source: shape of the model.
        layers: how many stay.
    """
    chosen = config.selection == "importance" and not config.depth.drop
    return chosen and layers < len(layer_blocks(source)) and config.depth_metric != "bi"


def sweep_problems(config: PruneConfig, folder: Path, source: ModelConfig) -> list[str]:
    """What keeps layers from being tried out, all of it."""
    if config.depth_metric == "task":
        evaluation = _evaluation(config, folder, source)
        return problems_of(evaluation) + model_problems(evaluation, folder, source.max_positions)
    problems = []
    if config.sequence > source.max_positions:
        problems.append(
            f"sequence: {config.sequence} is more than the model's max_positions "
            f"{source.max_positions}"
        )
    windows = sum(_windows(config, shard) for shard in _train(config).values())
    if windows < config.depth.samples:
        problems.append(
            f"depth.samples: the train split of {config.shards} has {windows} windows of "
            f"{config.sequence} tokens, not {config.depth.samples}; use fewer or a shorter sequence"
        )
    return problems


def sweep_for(
    config: PruneConfig, run: Run, folder: Path, source: ModelConfig, load: Callable[[], Decoder]
) -> Sweep:
    """The sweep that the settings ask for; its results lie in the run folder.

    Args:
        config: settings of ``prune``.
        run: its folder takes the results.
        folder: of the model.
        source: its shape.
        load: gives the model.

    Raises:
        InputError: there is no text or no task to try layers on.
    """
    problems = sweep_problems(config, folder, source)
    if problems:
        raise InputError("layers cannot be tried out", problems)
    if config.depth_metric == "task":
        measure = _accuracy(config, run, folder, source)
    else:
        assert config.shards is not None  # metric ppl has them
        run.input(resolve_shards(config.shards), "shards")
        shards = _train(config)
        weights = {n: float(w) for n, s in shards.items() if (w := _windows(config, s))}
        phase = Phase("depth", weights, config.depth.samples)
        loader = Loader(shards, [phase], config.sequence, config.seed)
        measure = loss_over(loader, config.depth.samples)

    def between(done: int, total: int) -> None:
        if run.stop_requested:
            raise Interrupted(
                f"stopped after {done} of {total} removals; the same command goes on in {run.path}"
            )
        run.status(removals=f"{done}/{total}")

    return Sweep(load, measure, run.path / RECORD, between)


def _train(config: PruneConfig) -> dict[str, Shard]:
    assert config.shards is not None  # metric ppl has them
    return dict(ShardSet.open(resolve_shards(config.shards), "train"))


def _windows(config: PruneConfig, shard: Shard) -> int:
    return max(0, (shard.num_tokens - 1) // config.sequence)


def _evaluation(config: PruneConfig, folder: Path, source: ModelConfig) -> EvaluateConfig:
    """The task as ``evaluate`` would be asked for it."""
    assert config.depth.task is not None  # metric task has one
    lengths = tuple(n for n in _LENGTHS if n <= source.max_positions)
    settings: dict[str, Any] = {
        "models": {"model": folder},
        "tasks": (config.depth.task,),
        "data": config.depth.data,
        "limit": config.depth.limit,
        "lengths": lengths or (source.max_positions,),
        "seed": config.seed,
    }
    return EvaluateConfig(**settings)


def _accuracy(config: PruneConfig, run: Run, folder: Path, source: ModelConfig) -> Measure:
    """The headline of the task, turned so that less is better."""
    from regrow.eval.lm import LanguageModel
    from regrow.eval.task_stage import record_inputs

    evaluation = _evaluation(config, folder, source)
    record_inputs(evaluation, run)
    ((task_name, task),) = tasks_of(evaluation).items()
    tokenizer = Tokenizer.load(folder)

    def between(asked: int, total: int) -> None:
        if run.stop_requested:
            raise Interrupted(
                f"stopped after {asked} of {total} items of {task_name}; the same command goes on "
                f"in {run.path}"
            )

    def measure(model: Decoder, name: str) -> float:
        into = run.path / FOLDER / name
        figures = finished(into, task_name)
        if figures is None:
            asked = LanguageModel(model, tokenizer)
            settings = settings_for(evaluation, task, asked.count_tokens)
            figures = run_task(asked, task, settings, into, between)
        value = float(figures[task.metric])
        return -value if task.higher_is_better else value

    return measure
