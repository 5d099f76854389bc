"""Score the parts of a model over calibration text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.compress.importance_config import ImportanceConfig, is_streamed
from regrow.compress.source import SourceModel, source_model
from regrow.core.errors import ConfigError, Interrupted
from regrow.core.plan import Plan
from regrow.core.registry import nearest
from regrow.core.run import Run
from regrow.data.shards import Shard, ShardSet
from regrow.io.runs import resolve_shards
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import ModelConfig
from regrow.model.shapes import forward_flops_per_token, weight_bytes
from regrow.train.stage import weights_sha256


@dataclass(frozen=True, slots=True)
class _Calibration:
    """Model and text, checked against each other; of a preset there may be no text yet."""

    source: SourceModel
    shards_folder: Path
    shards: dict[str, Shard]
    weights: dict[str, float]
    missing: tuple[str, ...] = ()

    @property
    def model(self) -> ModelConfig:
        """Shape of the model."""
        return self.source.config


def _prepare(config: ImportanceConfig) -> _Calibration:
    source = source_model(config.model)
    model, folder = source.config, source.place
    problems = []
    if config.sequence > model.max_positions:
        problems.append(
            f"sequence: {config.sequence} is more than the model's max_positions "
            f"{model.max_positions}"
        )
    if folder is None and not config.shards.exists() and not problems:
        missing = (*source.missing, f"shards {config.shards} does not exist")
        return _Calibration(source, config.shards, {}, config.weights, missing)
    shards_folder = resolve_shards(config.shards)
    shards = ShardSet.open(shards_folder, "train")
    found = folder is not None and (folder / "tokenizer.json").is_file()
    sha = Tokenizer.load(folder).sha256 if found and folder is not None else None
    for shard in shards.values():
        shard.require(model.vocab_size, sha)
    windows = {name: max(0, (s.num_tokens - 1) // config.sequence) for name, s in shards.items()}
    weights = config.weights or {name: float(n) for name, n in windows.items() if n}
    for name in weights:
        if name not in shards:
            known = ", ".join(shards)
            problems.append(
                f"weights.{name}: no shard of this name{nearest(name, list(shards))} "
                f"(shards: {known})"
            )
    if not problems:
        problems.extend(_too_few(config, windows, weights))
    if problems:
        raise ConfigError("the importance pass cannot start", problems)
    return _Calibration(source, shards_folder, dict(shards), weights, source.missing)


def _too_few(
    config: ImportanceConfig, windows: dict[str, int], weights: dict[str, float]
) -> Iterator[str]:
    """A window that is read twice adds nothing: the set would be shorter than it says."""
    total = sum(weights.values())
    if not total:
        yield f"sequence: no source has more tokens than one window of {config.sequence}"
    for name, weight in weights.items():
        wanted = config.samples * weight / total
        if wanted > windows[name] + 1:
            yield (
                f"samples: {config.samples} windows take {wanted:.0f} of source {name}, which has "
                f"{windows[name]}; use fewer, a shorter sequence, or other weights"
            )


def plan(config: ImportanceConfig) -> Plan:
    """Windows, tokens, FLOPs.

    Raises:
        ConfigError, InputError: whatever would stop the run.
    """
    ready = _prepare(config)
    tokens = config.samples * config.sequence
    total = sum(ready.weights.values())
    figures = {
        "samples": config.samples,
        "tokens": tokens,
        "flops": _flops(ready.model, config),
        "shares": {name: f"{weight / total:.1%}" for name, weight in ready.weights.items()},
        "weight_bytes": weight_bytes(ready.model, 4),
    }
    streamed = is_streamed(config, ready.model)
    notes = ["one block's weights are in memory at a time"] if streamed else []
    notes += [f"plan only: {line}" for line in ready.missing]
    title = f"importance over {config.samples} windows, {tokens:,} tokens"
    return Plan(title, figures, tuple(notes), ready.missing)


def _flops(model: ModelConfig, config: ImportanceConfig) -> int:
    """Of the forward pass without the output projection, which is not needed."""
    head = 2 * model.vocab_size * model.hidden_size
    each = forward_flops_per_token(model, config.sequence) - head
    return config.samples * config.sequence * each


def run(config: ImportanceConfig, run: Run) -> dict[str, Any]:
    """One pass; ``scores.safetensors`` and ``scores.json`` lie in the run folder.

    Returns:
        ``samples, tokens, flops, block_influence`` (by layer), hashes.

    Raises:
        InputError: activations that are not finite.
        Interrupted: after Ctrl-C; the pass is short and starts anew.
    """
    import torch

    from regrow.compress.importance import measure
    from regrow.compress.ranking import block_influence
    from regrow.compress.score_file import write_scores
    from regrow.compress.streamed_importance import calibrated
    from regrow.data.loader import Batch, Loader, Phase
    from regrow.train.device import resolve_threads

    ready = _prepare(config)
    folder = run.input(ready.source.folder, "model")
    run.input(ready.shards_folder, "shards")
    torch.set_num_threads(resolve_threads("auto"))
    phase = Phase("calibration", ready.weights, config.samples)
    loader = Loader(ready.shards, [phase], config.sequence, config.seed, config.document_mask)
    tokens = config.samples * config.sequence

    def batches(at_once: int) -> Iterator[Batch]:
        with run.progress("importance", tokens) as progress:
            for first in range(0, config.samples, at_once):
                if run.stop_requested:
                    raise Interrupted(f"interrupted; the same command starts {run.path} again")
                count = min(at_once, config.samples - first)
                yield loader.batch(first, count)
                progress.advance(count * config.sequence)

    with calibrated(config, folder) as (model, at_once):
        statistics = measure(
            model, batches(at_once), config.sequence_aggregations, config.neuron_site
        )
    model_sha256 = weights_sha256(folder)
    data = _data_record(config, ready)
    sha = write_scores(run.path, statistics, model_sha256, data)
    return {
        "samples": statistics.samples,
        "tokens": statistics.tokens,
        "flops": _flops(ready.model, config),
        "block_influence": block_influence(statistics).tolist(),
        "model_sha256": model_sha256,
        "data_sha256": data["sha256"],
        "scores_sha256": sha,
    }


def _data_record(config: ImportanceConfig, ready: _Calibration) -> dict[str, Any]:
    """What was read, so that equal records mean equal text."""
    record: dict[str, Any] = {
        "shards": {name: ready.shards[name].sha256 for name in sorted(ready.weights)},
        "tokenizer_sha256": next(iter(ready.shards.values())).tokenizer_sha256,
        "weights": {name: ready.weights[name] for name in sorted(ready.weights)},
        "sequence": config.sequence,
        "samples": config.samples,
        "document_mask": config.document_mask,
        "seed": config.seed,
    }
    return record | {"sha256": hashlib.sha256(repr(record).encode()).hexdigest()}
