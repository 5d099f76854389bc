"""Held-out loss: exact nats, tokens and bytes of each source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from regrow.train.device import device_of, to_device
from regrow.train.objectives.distillation import IGNORED
from regrow.train.objectives.next_token import cross_entropy
from regrow.train.world import World

Batches = Callable[[Any, int, int, int], Iterable[Any]]


def held_out(
    model: nn.Module,
    shards: Mapping[str, Any],
    token_bytes: npt.NDArray[np.int32] | None,
    sequence: int,
    batch: int,
    max_tokens_per_source: int,
    batches: Batches | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Score held-out text, in the precision of the weights (no autocast).

    Args:
        model: a decoder, or whatever has its ``hidden`` and ``head``; its mode is restored.
        shards: source name to held-out shard.
        token_bytes: UTF-8 bytes that each id stands for, (vocabulary,); without it no bits per
            byte are given.
        sequence: tokens of a window; windows follow each other without overlap.
        batch: windows at once.
        max_tokens_per_source: stop a source after so many tokens.
        batches: how to read a shard; by default :func:`regrow.data.loader.evaluation_batches`.
        world: the processes that hold the model and make this call together: each scores its part
            of the windows, and all get the figures of all.

    Returns:
        ``loss`` (nats per token over all), ``losses`` (by source), ``tokens``, and with
        ``token_bytes``: ``bits_per_byte`` by source and ``all``, namely
        ``nats / ln 2 / bytes of the predicted tokens``.

    Raises:
        ValueError: no source has a single target.
    """
    if batches is None:
        from regrow.data.loader import evaluation_batches

        batches = evaluation_batches
    world = world or World()
    sums = {}
    with evaluating(model):
        for name, shard in shards.items():
            windows = batches(shard, sequence, batch, max_tokens_per_source)
            nats, tokens, size = world.sum(_score(model, _share(windows, world), token_bytes))
            if tokens:
                sums[name] = nats, int(tokens), int(size)
    if not sums:
        raise ValueError("nothing to evaluate: no held-out source has a target")
    nats = math.fsum(entry[0] for entry in sums.values())
    tokens = sum(entry[1] for entry in sums.values())
    size = sum(entry[2] for entry in sums.values())
    scores: dict[str, Any] = {
        "loss": nats / tokens,
        "losses": {name: n / t for name, (n, t, _) in sums.items()},
        "tokens": tokens,
    }
    if token_bytes is not None:
        bits = {name: n / math.log(2) / b for name, (n, _, b) in sums.items() if b}
        scores["bits_per_byte"] = bits | ({"all": nats / math.log(2) / size} if size else {})
    return scores


def _share(windows: Iterable[Any], world: World) -> Iterator[tuple[Any, bool]]:
    """This process's batches of windows, and whether each counts.

    Every process takes as many turns, since a sharded model computes only where all take part; one
    for which no batch is left goes through another's, which does not count.
    """
    group: list[Any] = []
    for window in windows:
        group.append(window)
        if len(group) == world.data:
            yield group[world.data_rank], True
            group = []
    if group:
        mine = world.data_rank < len(group)
        yield group[world.data_rank if mine else 0], mine


def _score(
    model: nn.Module,
    windows: Iterable[tuple[Any, bool]],
    token_bytes: npt.NDArray[np.int32] | None,
) -> tuple[float, int, int]:
    """Nats, targets and bytes of what counts of one source."""
    device = device_of(model)
    nats, tokens, size = 0.0, 0, 0
    for window, counts in windows:
        total, count = cross_entropy(model, to_device(window, device))
        if not counts:
            continue
        nats += float(total)
        tokens += int(count)
        if token_bytes is not None:
            targets = window.targets.numpy()
            size += int(token_bytes[targets[targets != IGNORED]].sum(dtype=np.int64))
    return nats, tokens, size


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without gradients, and with the model in evaluation mode; its own mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
