"""N-gram baselines over the very tokens that a model was trained on, scored on its targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.core.yaml12 import read_yaml
from regrow.data.loader import IGNORED, Batch, Loader, Phase
from regrow.data.shards import Shard
from regrow.eval.ngram import Ids, NGram, Reals
from regrow.train.config import DataConfig
from regrow.train.stage import SCHEDULE_FILE, read_schedule

_CHUNK_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """Which windows a model was trained on, in order.

    Args:
        phases: as the loader takes them.
        sequence: tokens of a window.
        seed: of the order.
        document_mask: whether documents were kept apart.
    """

    phases: tuple[Phase, ...]
    sequence: int
    seed: int
    document_mask: bool

    @classmethod
    def of_run(cls, run: Path) -> TrainingOrder:
        """What a ``pretrain`` run read (or the sweep that chose one).

        Raises:
            InputError: no training run, or a damaged one.
        """
        schedule = read_schedule(run) if (run / SCHEDULE_FILE).is_file() else None
        if schedule is None or not (run / "config.yaml").is_file():
            raise InputError(
                f"baseline_run {run} is no training run (it lacks training_schedule.json "
                "or config.yaml); give the run folder of pretrain"
            )
        settings, _ = read_yaml(run / "config.yaml")
        if "data" not in settings:  # a sweep's settings hold those of its trials
            settings = settings.get("config", {})
        try:
            data = load_config(DataConfig, base=settings["data"])
            phases = tuple(
                Phase(
                    phase["name"],
                    phase["weights"],
                    phase.get("tokens", phase["steps"] * schedule["batch_tokens"]) // data.sequence,
                )
                for phase in schedule["phases"]
            )
        except (ConfigError, KeyError, TypeError) as error:
            raise InputError(f"baseline_run {run}: its settings are damaged ({error})") from error
        return cls(phases, data.sequence, data.seed, data.document_mask)

    @classmethod
    def of_split(
        cls, shards: Mapping[str, Shard], sequence: int, seed: int, document_mask: bool
    ) -> TrainingOrder:
        """Every whole window of the shards about once, sources in their natural shares.

        Raises:
            ConfigError: no shard has a whole window.
        """
        windows = {name: (shard.num_tokens - 1) // sequence for name, shard in shards.items()}
        weights = {name: float(count) for name, count in windows.items() if count > 0}
        if not weights:
            raise ConfigError(f"no source has more tokens than one window of {sequence}")
        phase = Phase("all", weights, int(sum(weights.values())))
        return cls((phase,), sequence, seed, document_mask)


def training_pairs(
    shards: Mapping[str, Shard], order: TrainingOrder, max_tokens: int = 0
) -> tuple[Ids, Ids]:
    """Context and target of every token that a model learnt to predict.

    Args:
        shards: train split, by source.
        order: which windows.
        max_tokens: only the first windows with so many tokens; 0 for all.

    Returns:
        Two (N,) arrays.
    """
    loader = Loader(shards, order.phases, order.sequence, order.seed, order.document_mask)
    samples = loader.samples
    if max_tokens:
        samples = min(samples, max(1, max_tokens // order.sequence))
    pairs = [
        _pairs(loader.batch(first, min(_CHUNK_SAMPLES, samples - first)))
        for first in range(0, samples, _CHUNK_SAMPLES)
    ]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def _pairs(batch: Batch) -> tuple[Ids, Ids]:
    contexts, targets = batch.tokens.numpy().ravel(), batch.targets.numpy().ravel()
    counted = targets != IGNORED
    return contexts[counted], targets[counted]


def score_baselines(
    model: NGram,
    held_out: Mapping[str, Callable[[], Iterable[Batch]]],
    token_bytes: npt.NDArray[np.int32] | None,
) -> dict[str, dict[str, Any]]:
    """Losses of the unigram and the bigram on held-out windows.

    Args:
        model: fitted.
        held_out: source to a function that gives its windows; those that a neural model is scored
            on.
        token_bytes: UTF-8 bytes of each id, (V,); without it no bits per byte are given.

    Returns:
        ``unigram`` and ``bigram``, each with ``loss`` (nats per token), ``losses`` by source,
        ``tokens``, and ``bits_per_byte`` by source and ``all``.
    """
    logs: dict[str, Callable[[Ids, Ids], Reals]] = {
        "unigram": lambda contexts, targets: model.log_unigram(targets),
        "bigram": model.log_bigram,
    }
    sums: dict[str, dict[str, tuple[float, int, int]]] = {name: {} for name in logs}
    for source, windows in held_out.items():
        for contexts, targets in _nonempty(windows()):
            size = int(token_bytes[targets].sum(dtype=np.int64)) if token_bytes is not None else 0
            for name, log in logs.items():
                nats, tokens, read = sums[name].get(source, (0.0, 0, 0))
                lost = float(-log(contexts, targets).sum())
                sums[name][source] = (nats + lost, tokens + len(targets), read + size)
    return {name: _figures(by_source) for name, by_source in sums.items()}


def _nonempty(windows: Iterable[Batch]) -> Iterator[tuple[Ids, Ids]]:
    return (pair for pair in map(_pairs, windows) if len(pair[1]))


def _figures(sums: Mapping[str, tuple[float, int, int]]) -> dict[str, Any]:
    nats = math.fsum(entry[0] for entry in sums.values())
    tokens, size = (sum(entry[i] for entry in sums.values()) for i in (1, 2))
    bits = {name: n / math.log(2) / b for name, (n, _, b) in sums.items() if b}
    return {
        "loss": nats / tokens,
        "losses": {name: n / t for name, (n, t, _) in sums.items()},
        "tokens": tokens,
        "bits_per_byte": bits | ({"all": nats / math.log(2) / size} if size else {}),
    }
