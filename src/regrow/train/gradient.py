"""The gradient of one global batch, whatever micro-batches and processes it is made of.

Sums are added up over micro-batches, then over data processes, and divided once, by the weight of
the whole batch: no mean of means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regrow.train.device import Precision, autocast, device_of, to_device
from regrow.train.objective import Loader, Loss, Objective, OwnsBackward, Sum
from regrow.train.parallel import Sharding
from regrow.train.world import World


class BatchSums(NamedTuple):
    """Sums over a global batch, detached."""

    loss: Sum
    weight: Sum
    metrics: Mapping[str, Sum]


def backward(
    objective: Objective,
    loader: Loader,
    first: int,
    count: int,
    micro_batch: int,
    precision: Precision,
    world: World,
) -> BatchSums:
    """Leave the gradient of the loss sum over samples ``first`` to ``first + count``.

    Of several processes, each takes its own micro-batches; the results are of all.

    Args:
        objective: the loss; one that owns its backward passes gets the whole batch at once.
        loader: samples by number.
        first: of the batch.
        count: samples of the batch, a multiple of ``micro_batch`` times data processes.
        micro_batch: samples at once.
        precision: of the forward pass.
        world: the processes.
    """
    device = device_of(objective.trainable())
    if isinstance(objective, OwnsBackward):
        batch = to_device(loader.batch(first, count), device)
        with autocast(precision, device):
            own = _added(BatchSums(0.0, 0.0, {}), objective.step(batch))
    else:
        own = BatchSums(0.0, 0.0, {})
        begin = first + micro_batch * world.data_rank
        for start in range(begin, first + count, micro_batch * world.data):
            batch = to_device(loader.batch(start, micro_batch), device)
            with autocast(precision, device):
                loss = objective.loss(batch)
            loss.sum.backward()  # type: ignore[no-untyped-call]
            own = _added(own, loss)
    if world.data == 1:
        return own
    names = sorted(own.metrics)
    figures = [float(v) for v in (own.loss, own.weight, *(own.metrics[name] for name in names))]
    total, weight, *rest = world.sum(figures)
    return BatchSums(total, weight, dict(zip(names, rest, strict=True)))


def _added(sums: BatchSums, loss: Loss) -> BatchSums:
    metrics = dict(sums.metrics)
    for name, value in loss.metrics.items():
        metrics[name] = metrics.get(name, 0.0) + _double(value)
    return BatchSums(sums.loss + _double(loss.sum), sums.weight + loss.weight, metrics)


def scale_and_clip(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    weight: float,
    clip: float,
    sharding: Sharding | None,
) -> float:
    """Turn the gradient of the sum into that of the mean, clipped; its norm before clipping.

    One pass over the gradients does both. A gradient that is not finite stays as it is.

    Args:
        module: whose gradient.
        parameters: those that are trained.
        weight: of the global batch.
        clip: largest norm; 0 for no limit.
        sharding: how the module lies over several processes.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if sharding is None:
        norm = float(torch.nn.utils.get_total_norm(gradients)) / weight
    else:
        named = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        norm = math.sqrt(sharding.squared_norm(named)) / weight
    if not math.isfinite(norm):
        return norm
    scale = 1.0 / weight
    if clip and norm > clip:
        scale *= clip / norm
    torch._foreach_mul_(gradients, scale)
    return norm


def _double(value: Sum) -> Sum:
    """A detached sum in float64: sums of sums must not depend on where a resume cut them."""
    return value.detach().double() if isinstance(value, Tensor) else float(value)
