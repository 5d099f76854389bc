"""Cut a model to a shape or to a parameter budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.compress.prune_config import PruneConfig
from regrow.compress.shape_search import limit_of, within
from regrow.compress.shapes import shape_of
from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.shards import ShardSet
from regrow.io.runs import resolve_model, resolve_shards
from regrow.io.tokenizer import Tokenizer
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
    from regrow.model.decoder import Decoder

RECORD = "compress.json"
_NOTED = 3


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is cut to what."""

    folder: Path
    source: ModelConfig
    source_sha256: str
    target: ModelConfig
    notes: tuple[str, ...]


def _prepare(config: PruneConfig) -> _Cut:
    from regrow.compress.ranking import depth_of, target_for
    from regrow.compress.score_file import check_model, read_scores
    from regrow.compress.sweep import is_swept, sweep_problems
    from regrow.model.folder import load_config

    folder = resolve_model(config.model)
    source = load_config(folder)
    sha = weights_sha256(folder)
    statistics = None
    if config.scores is not None:
        check_model(config.scores, source, sha, config.sequence_aggregation)
        statistics = read_scores(config.scores).statistics
    notes: tuple[str, ...] = ()
    if config.budget is None:
        target = target_for(config, source, statistics)
    else:
        name, limit = limit_of(source, config.budget)
        found = within(source, config.budget)
        target = found.config(source, 0)
        others = [
            _words(found.config(source, row)) for row in range(1, min(len(found), 1 + _NOTED))
        ]
        counted = f"{len(found)} legal shapes have {limit:,} {name} within "
        also = f"; the next ones: {'; '.join(others)}" if others else ""
        notes = (f"{counted}{config.budget.tolerance:.0%}{also}",)
    if config.shards is not None:
        held_out = ShardSet.open(resolve_shards(config.shards), config.split)
        tokenizer = _tokenizer(folder)
        for shard in held_out.values():
            shard.require(source.vocab_size, tokenizer.sha256 if tokenizer else None)
    if is_swept(config, source, depth_of(target, source)):
        problems = sweep_problems(config, folder, source)
        if problems:
            raise InputError("layers cannot be tried out", problems)
        if not source.is_transformer:
            notes += ("which blocks go, and so the exact count, is known once they were tried out",)
    return _Cut(folder, source, sha, target, notes)


def _words(config: ModelConfig) -> str:
    return f"{config.layers} layers, hidden {config.hidden_size}, MLP {config.intermediate_size}"


def _tokenizer(folder: Path) -> Tokenizer | None:
    return Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else None


def plan(config: PruneConfig) -> Plan:
    """The shape, its exact parameter count and memory; whether the family can hold it.

    Raises:
        ConfigError: an impossible shape or budget, with the nearest legal values.
        InputError: no model, or scores of another one.
    """
    ready = _prepare(config)
    source, target = ready.source, ready.target
    inner = non_embedding_parameters(target)
    share = inner / non_embedding_parameters(source)
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
        "flops_per_token": flops_per_token(target, config.sequence),
    }
    title = f"prune to {_words(target)}: {parameters(target):,} parameters"
    return Plan(title, figures, (*ready.notes, f"the stock {target.layout} class holds this shape"))


def run(config: PruneConfig, run: Run) -> dict[str, Any]:
    """Cut; the model lies in ``export/``, with ``compress.json`` on what stayed.

    Returns:
        ``shape, parameters, non_embedding_parameters, flops`` (0: nothing is trained), with
        ``shards`` also ``loss, losses, bits_per_byte`` before any retraining.
    """
    import torch

    from regrow.compress.slicing import cut
    from regrow.model.folder import load, save
    from regrow.train.device import resolve_threads

    ready = _prepare(config)
    run.input(ready.folder, "model")
    torch.set_num_threads(resolve_threads("auto"))
    keep, scores_sha = _keep(config, ready, run)
    target = keep.config(ready.source)
    child = cut(load(ready.folder), keep)
    tokenizer = _tokenizer(ready.folder)
    save(child, run.export, tokenizer)
    record = {
        "source_sha256": ready.source_sha256,
        "scores_sha256": scores_sha,
        "selection": config.selection,
        "shape": shape_of(target),
        "kept": keep.as_json(),
    }
    atomic.write_json(run.export / RECORD, record)
    figures: dict[str, Any] = {
        "shape": shape_of(target),
        "parameters": parameters(target),
        "non_embedding_parameters": non_embedding_parameters(target),
        "source_parameters": parameters(ready.source),
        "source_non_embedding_parameters": non_embedding_parameters(ready.source),
        "flops": 0,
        "flops_per_token": flops_per_token(target, config.sequence),
        "source_sha256": ready.source_sha256,
        "scores_sha256": scores_sha,
        "weights_sha256": weights_sha256(run.export),
    }
    if config.shards is not None:
        figures |= _score(config, child, tokenizer, run)
    return figures


def _keep(config: PruneConfig, ready: _Cut, run: Run) -> tuple[Keep, str | None]:
    """What stays, and the hash of the scores that say so."""
    from regrow.compress.ranking import depth_of, keep_for
    from regrow.compress.score_file import SIDECAR, TENSORS, read_scores, resolve_scores
    from regrow.compress.sweep import is_swept, sweep_for
    from regrow.model.folder import load

    damage = None
    if is_swept(config, ready.source, depth_of(ready.target, ready.source)):
        damage = sweep_for(config, run, ready.folder, ready.source, lambda: load(ready.folder))
    if config.scores is None:
        return keep_for(config, ready.source, ready.target, damage=damage), None
    folder = resolve_scores(config.scores)
    for name in (SIDECAR, TENSORS):
        run.input(folder / name, "scores")
    scores = read_scores(folder)
    keep = keep_for(config, ready.source, ready.target, scores.statistics, damage)
    return keep, scores.sha256


def _score(
    config: PruneConfig, child: Decoder, tokenizer: Tokenizer | None, run: Run
) -> dict[str, Any]:
    """Held-out loss of the child as it was cut."""
    from regrow.eval.held_out import held_out
    from regrow.train.device import resolve_device

    assert config.shards is not None
    folder = run.input(resolve_shards(config.shards), "shards")
    figures = held_out(
        child.to(resolve_device("auto")),
        ShardSet.open(folder, config.split),
        tokenizer.token_bytes() if tokenizer is not None else None,
        config.sequence,
        8,
        config.max_tokens,
    )
    return {**figures, "tokens": 0, "validation_tokens": figures["tokens"]}
