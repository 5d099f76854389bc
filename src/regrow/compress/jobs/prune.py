"""Cut a model to a shape or to a parameter budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.compress.budgets import MB, Figure, figure_text, memory_bytes, sequence_of
from regrow.compress.depth import layer_blocks
from regrow.compress.prune_config import BUDGETS, BudgetTarget, PruneConfig
from regrow.compress.shape_search import SHAPE, Candidates, config_of, within, words
from regrow.compress.shapes import shape_of
from regrow.compress.source import SourceModel, source_model
from regrow.core.errors import InputError, Interrupted
from regrow.core.hardware import memory_bytes as memory_limit
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.shards import ShardSet
from regrow.io.runs import resolve_shards
from regrow.io.tokenizer import Tokenizer
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.shapes import (
    flops_per_token,
    kv_bytes_per_token,
    non_embedding_parameters,
    parameters,
    weight_bytes,
)
from regrow.train.stage import weights_sha256

if TYPE_CHECKING:
    from regrow.compress.slicing import Keep

#: Where the child's shards gather inside the run folder until all are there.
PARTIAL = "partial"
_NOTED = 3


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is cut to what.

    Args:
        model: what is cut.
        sha256: of its weights; None of a preset.
        target: shape to cut to.
        figures: what the choice of the shape measured.
        notes: what the plan says of it.
        missing: what there must be before anything can be cut.
    """

    model: SourceModel
    sha256: str | None
    target: ModelConfig
    figures: Mapping[str, Any]
    notes: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def source(self) -> ModelConfig:
        """Shape of what is cut."""
        return self.model.config


def _prepare(config: PruneConfig, run: Run | None = None) -> _Cut:
    from regrow.compress.ranking import depth_of, target_for
    from regrow.compress.score_file import check_model, read_scores
    from regrow.compress.sweep import is_swept, sweep_problems

    model = source_model(config.model)
    source = model.config
    sha = None if model.place is None else weights_sha256(model.place)
    missing = list(model.missing)
    statistics = None
    if config.scores is not None and sha is not None:
        check_model(config.scores, source, sha, config.sequence_aggregation)
        statistics = read_scores(config.scores).statistics
    elif config.scores is not None and not config.scores.exists():
        missing.append(f"scores {config.scores} does not exist: run importance over the model")
    figures: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()
    if config.budget is None:
        target = target_for(config, source, statistics)
    elif run is not None and config.budget.latency_ms is not None:
        # Timings differ from one attempt to the next, so the first one's choice stands.
        told = run.decide("shape", lambda: _as_decision(source, config.budget))
        decided = json.loads(told)
        target = config_of(source, decided["shape"])
        figures = decided["figures"]
    else:
        found = within(source, config.budget)
        target = found.config(source, 0)
        figures, notes = _measured(found), _runners_up(config.budget, found)
    if config.shards is not None and (model.place is not None or config.shards.exists()):
        held_out = ShardSet.open(resolve_shards(config.shards), config.split)
        tokenizer = None if model.place is None else _tokenizer(model.place)
        for shard in held_out.values():
            shard.require(source.vocab_size, tokenizer.sha256 if tokenizer else None)
    elif config.shards is not None:
        missing.append(f"shards {config.shards} does not exist")
    if is_swept(config, source, depth_of(target, source)):
        problems = sweep_problems(config, model.place, source) if model.place is not None else []
        if problems:
            raise InputError("layers cannot be tried out", problems)
        if not source.is_transformer:
            notes += ("which blocks go, and so the exact count, is known once they were tried out",)
    return _Cut(model, sha, target, figures, notes, tuple(missing))


def _as_decision(source: ModelConfig, budget: BudgetTarget | None) -> str:
    """The shape within a budget and what was measured of it, to be kept in the run folder."""
    assert budget is not None  # asked only with one
    found = within(source, budget)
    shape = {name: int(getattr(found, name)[0]) for name in SHAPE}
    return json.dumps({"shape": shape, "figures": _measured(found)})


def _measured(found: Candidates) -> dict[str, float]:
    latency = float(found.latency_ms[0])
    return {} if math.isnan(latency) else {"latency_ms": round(latency, 4)}


def _runners_up(budget: BudgetTarget, found: Candidates) -> tuple[str, ...]:
    """How many shapes hold the budget, and the next ones with their figures."""
    bounds = " and ".join(name for name in BUDGETS if getattr(budget, name) is not None)
    lines = [f"{len(found)} legal shapes hold the budget's {bounds}; this is the most even one"]
    shown: tuple[Figure, ...] = ("parameters", "memory_mb", "latency_ms")
    for row in range(1, min(len(found), 1 + _NOTED)):
        values = [(name, float(getattr(found, name)[row])) for name in shown]
        told = ", ".join(figure_text(name, value) for name, value in values if value == value)
        lines.append(f"runner-up: {words(found, row)}: {told}")
    return tuple(lines)


def _words(config: ModelConfig) -> str:
    return f"{config.layers} layers, hidden {config.hidden_size}, MLP {config.intermediate_size}"


def _tokenizer(folder: Path) -> Tokenizer | None:
    return Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else None


def plan(config: PruneConfig) -> Plan:
    """The shape, its exact parameter count and memory; whether the family can hold it.

    With ``budget.latency_ms`` also the measured latency of it and of the source.

    Raises:
        ConfigError: an impossible shape or budget, with the nearest legal values.
        InputError: no model, or scores of another one.
    """
    from regrow.compress.ranking import depth_of

    ready = _prepare(config)
    source, target = ready.source, ready.target
    inner = non_embedding_parameters(target)
    share = inner / non_embedding_parameters(source)
    of = config.budget or BudgetTarget(parameters=1.0)
    conditions = f"sequence {sequence_of(source, of)}, batch {of.batch}, {of.dtype}"
    figures = {
        "shape": shape_of(target),
        "parameters": parameters(target),
        "non_embedding_parameters": inner,
        "share_of_non_embedding": round(share, 4),
        "source_parameters": parameters(source),
        "source_non_embedding_parameters": non_embedding_parameters(source),
        "weight_bytes_fp32": weight_bytes(target, 4),
        "weight_bytes_bf16": weight_bytes(target, 2),
        "kv_bytes_per_token_bf16": kv_bytes_per_token(target, 2),
        "memory_mb": round(memory_bytes(target, of) / MB, 1),
        "source_memory_mb": round(memory_bytes(source, of) / MB, 1),
        **ready.figures,
        "flops_per_token": flops_per_token(target, config.sequence),
    }
    notes = [*ready.notes, f"memory at {conditions}"]
    if depth_of(target, source) < len(layer_blocks(source)):
        notes.append(_layers_told(config))
    if config.budget is not None and config.budget.latency_ms is not None:
        more, told = _latencies(source, target, config.budget)
        figures |= more
        notes += [f"{config.budget.latency} latency at {conditions}, on this machine", *told]
    broken = ADAPTERS.get(target.layout).check(target)  # none: the target would have been refused
    holds = "; ".join(broken) or f"the stock {target.layout} class holds this shape"
    title = f"prune to {_words(target)}: {parameters(target):,} parameters"
    notes += [f"plan only: {line}" for line in ready.missing]
    return Plan(title, figures, (*notes, holds), ready.missing)


def _layers_told(config: PruneConfig) -> str:
    """By what the layers that go are chosen."""
    if config.depth.drop:
        return f"layers that go: {', '.join(map(str, sorted(config.depth.drop)))}"
    if config.selection == "random":
        return "layers that go: drawn at random"
    metric = {"bi": "block influence", "ppl": "loss without them", "task": "accuracy without them"}
    rule = "neighbours" if config.depth.rule == "contiguous" else "each by itself"
    return f"layers that go: by {metric[config.depth_metric]}, {rule}"


def _latencies(
    source: ModelConfig, target: ModelConfig, budget: BudgetTarget
) -> tuple[dict[str, float], list[str]]:
    """The source's latency, and the assembled target's where it fits into memory."""
    from regrow.compress.latency import assembled_ms, table_of

    table = table_of(source, budget)
    summed = table.total_ms(target)
    figures = {"source_latency_ms": round(table.total_ms(source), 4)}
    if 2 * memory_bytes(target, budget) > memory_limit():
        return figures, ["the assembled model does not fit: its latency is a sum of its layers'"]
    whole = assembled_ms(target, table.conditions)
    figures["assembled_latency_ms"] = round(whole, 4)
    off = summed / whole - 1
    if abs(off) <= 0.1:
        return figures, []
    return figures, [
        f"the sum over layers is {off:+.0%} off the assembled model: the machine is busy, or the "
        "model so small that other things than its layers take the time"
    ]


def run(config: PruneConfig, run: Run) -> dict[str, Any]:
    """Cut, shard by shard; the model lies in ``export/``, with ``compress.json`` on what stayed.

    Returns:
        ``shape, dropped_layers`` (indices into the source, where any went), ``parameters,
        non_embedding_parameters, flops`` (0: nothing is trained), with
        ``shards`` also ``loss, losses, bits_per_byte`` before any retraining.

    Raises:
        Interrupted: after Ctrl-C; finished shards are kept, and the same command goes on.
    """
    import torch

    from regrow.compress.streamed_prune import cut_folder
    from regrow.train.device import resolve_threads

    ready = _prepare(config, run)
    folder = run.input(ready.model.folder, "model")
    torch.set_num_threads(resolve_threads("auto"))
    keep, scores_sha = _keep(config, ready, run)
    target = keep.config(ready.source)
    record = {
        "source_sha256": ready.sha256,
        "scores_sha256": scores_sha,
        "selection": config.selection,
        "shape": shape_of(target),
        "kept": keep.as_json(),
    }
    with run.progress("prune", parameters(target), "par") as progress:

        def advance(numbers: int) -> None:
            if run.stop_requested:
                raise Interrupted(f"interrupted; the same command goes on in {run.path}")
            progress.advance(numbers)

        made = cut_folder(folder, keep, record, run.path / PARTIAL, run.export, advance)
    run.log("cut", shards=made)
    gone = [n for n in range(len(layer_blocks(ready.source))) if n not in keep.layers]
    figures: dict[str, Any] = {
        "shape": shape_of(target),
        **({"dropped_layers": gone} if gone else {}),
        "parameters": parameters(target),
        "non_embedding_parameters": non_embedding_parameters(target),
        "source_parameters": parameters(ready.source),
        "source_non_embedding_parameters": non_embedding_parameters(ready.source),
        **ready.figures,
        "flops": 0,
        "flops_per_token": flops_per_token(target, config.sequence),
        "source_sha256": ready.sha256,
        "scores_sha256": scores_sha,
        "weights_sha256": weights_sha256(run.export),
    }
    if config.shards is not None:
        figures |= _score(config, run)
    return figures


def _keep(config: PruneConfig, ready: _Cut, run: Run) -> tuple[Keep, str | None]:
    """What stays, and the hash of the scores that say so."""
    from regrow.compress.ranking import depth_of, keep_for
    from regrow.compress.score_file import SIDECAR, TENSORS, read_scores, resolve_scores
    from regrow.compress.sweep import is_swept, sweep_for
    from regrow.model.folder import load
    from regrow.train.device import resolve_device

    damage = None
    model = ready.model.folder
    if is_swept(config, ready.source, depth_of(ready.target, ready.source)):
        damage = sweep_for(
            config, run, model, ready.source, lambda: load(model).to(resolve_device("auto"))
        )
    if config.scores is None:
        return keep_for(config, ready.source, ready.target, damage=damage), None
    folder = resolve_scores(config.scores)
    for name in (SIDECAR, TENSORS):
        run.input(folder / name, "scores")
    scores = read_scores(folder)
    keep = keep_for(config, ready.source, ready.target, scores.statistics, damage)
    return keep, scores.sha256


def _score(config: PruneConfig, run: Run) -> dict[str, Any]:
    """Held-out loss of the child as it was cut."""
    from regrow.eval.held_out import held_out
    from regrow.model.folder import load
    from regrow.train.device import resolve_device

    assert config.shards is not None
    folder = run.input(resolve_shards(config.shards), "shards")
    tokenizer = _tokenizer(run.export)
    figures = held_out(
        load(run.export).to(resolve_device("auto")),
        ShardSet.open(folder, config.split),
        tokenizer.token_bytes() if tokenizer is not None else None,
        config.sequence,
        8,
        config.max_tokens,
    )
    return {**figures, "tokens": 0, "validation_tokens": figures["tokens"]}
