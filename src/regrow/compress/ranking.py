"""From statistics to scores, and from scores to what stays.

Legend: D model, H query heads, C head channels, F ffn, K kv heads, L layers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from regrow.compress.importance import SITES, Statistics
from regrow.compress.slicing import Keep, layer_blocks
from regrow.core.errors import ConfigError
from regrow.core.seed import derive
from regrow.model.config import ModelConfig

Batch = Literal["l2", "mean", "var"]
DepthRule = Literal["contiguous", "independent"]


def aggregate(statistics: Statistics, site: str, batch: Batch) -> Tensor:
    """One score a channel, (C,) fp64: the L2 norm, mean or variance over windows of ``a_b``."""
    total, squares = statistics.sums[site], statistics.squares[site]
    if batch == "l2":
        return squares.sqrt()
    mean = total / statistics.samples
    if batch == "mean":
        return mean
    return (squares / statistics.samples - mean.square()).clamp(min=0.0)


def hidden_scores(statistics: Statistics, batch: Batch = "l2") -> Tensor:
    """(D,): summed over every norm that reads the residual stream, which all of them share."""
    norms = [site for site in statistics.sums if site.rpartition(".")[2] == "norm"]
    return torch.stack([aggregate(statistics, site, batch) for site in norms]).sum(0)


def neuron_scores(statistics: Statistics, block: int, batch: Batch = "l2") -> Tensor:
    """(F,) of one MLP block."""
    return aggregate(statistics, f"blocks.{block}.mixer.{SITES['-']}", batch)


def head_scores(
    statistics: Statistics, config: ModelConfig, block: int, batch: Batch = "l2"
) -> Tensor:
    """(H,) of one attention block: aggregated by channel, then the L2 norm over a head's."""
    channels = aggregate(statistics, f"blocks.{block}.mixer.{SITES['*']}", batch)
    scores: Tensor = torch.linalg.vector_norm(channels.view(config.heads, config.head_dim), dim=1)
    return scores


def block_influence(statistics: Statistics, length: int = 1) -> Tensor:
    """(L - length + 1,): ``1 - E[cos(x_i, x_(i+length))]`` for each run of ``length`` layers.

    Source: ShortGPT (arXiv 2403.03853); Minitron (arXiv 2407.14679), equation 4.
    """
    return 1.0 - statistics.cosines.diagonal(length) / statistics.tokens


def top(scores: Tensor, count: int) -> tuple[int, ...]:
    """Indices of the ``count`` largest, ascending; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


def kept_layers(influence: Tensor, runs: Tensor | None, count: int) -> tuple[int, ...]:
    """Which ``count`` of L layers stay; the first and the last always do.

    Args:
        influence: (L,) of each layer by itself.
        runs: (L - dropped + 1,) of each run of as many layers as go: the least goes as a whole.
            None: the layers of least influence go, wherever they are.
        count: layers that stay.

    Raises:
        ConfigError: fewer than two would stay, of more than two.
    """
    layers = len(influence)
    dropped = layers - count
    if not dropped:
        return tuple(range(layers))
    if count < 2:
        raise ConfigError(
            f"shape.layers: {count} of {layers} layers cannot stay, since the first and the last "
            "always do; use 2 or more"
        )
    if runs is None:
        inner = top(-influence[1:-1], dropped)
        gone = {index + 1 for index in inner}
    else:
        first = 1 + int(runs[1 : layers - dropped].argmin())
        gone = set(range(first, first + dropped))
    return tuple(index for index in range(layers) if index not in gone)


def choose(
    source: ModelConfig,
    target: ModelConfig,
    statistics: Statistics,
    batch: Batch = "l2",
    depth_rule: DepthRule = "contiguous",
) -> Keep:
    """What stays of a model that is cut to ``target``: the highest scores on each axis.

    Query heads are ranked inside their group, the same number staying in each, since head h reads
    key/value head ``h // (H / K)``.

    Args:
        source: shape of the model that was measured.
        target: shape to cut to, legal (see :mod:`regrow.compress.shapes`).
        statistics: of that model.
        batch: aggregation over windows.
        depth_rule: which layers go.

    Raises:
        ConfigError: too few layers would stay.
    """
    dropped = source.layers - target.layers
    runs = block_influence(statistics, dropped) if depth_rule == "contiguous" and dropped else None
    layers = kept_layers(block_influence(statistics), runs, target.layers)
    neurons, heads, kv_heads = {}, {}, {}
    for block in _kept_blocks(source, layers):
        if source.pattern[block] == "-":
            scores = neuron_scores(statistics, block, batch)
            neurons[block] = top(scores, target.intermediate_size)
        elif source.pattern[block] == "*":
            scores = head_scores(statistics, source, block, batch)
            kv_heads[block], heads[block] = _heads(scores, source, target)
    hidden = top(hidden_scores(statistics, batch), target.hidden_size)
    return Keep(layers, hidden, neurons, heads, kv_heads)


def choose_random(source: ModelConfig, target: ModelConfig, seed: int) -> Keep:
    """A random choice under the same rules, to compare with.

    Args:
        source: shape of the model.
        target: shape to cut to.
        seed: decides what stays.

    Raises:
        ConfigError: too few layers would stay.
    """

    def scores(count: int, *names: str | int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(seed, "random", *names))
        return torch.rand(count, generator=generator, dtype=torch.float64)

    layers = kept_layers(scores(source.layers, "layers"), None, target.layers)
    neurons, heads, kv_heads = {}, {}, {}
    for block in _kept_blocks(source, layers):
        if source.pattern[block] == "-":
            drawn = scores(source.intermediate_size, "neurons", block)
            neurons[block] = top(drawn, target.intermediate_size)
        elif source.pattern[block] == "*":
            drawn = scores(source.heads, "heads", block)
            kv_heads[block], heads[block] = _heads(drawn, source, target)
    hidden = top(scores(source.hidden_size, "hidden"), target.hidden_size)
    return Keep(layers, hidden, neurons, heads, kv_heads)


def _kept_blocks(config: ModelConfig, layers: tuple[int, ...]) -> list[int]:
    groups = layer_blocks(config)
    return [block for layer in layers for block in groups[layer]]


def _heads(
    scores: Tensor, source: ModelConfig, target: ModelConfig
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Key/value heads that stay, and query heads that stay in their groups."""
    groups = scores.view(source.kv_heads, -1)
    kept_groups = top(torch.linalg.vector_norm(groups, dim=1), target.kv_heads)
    each, wanted = groups.shape[1], target.heads // target.kv_heads
    heads = [group * each + index for group in kept_groups for index in top(groups[group], wanted)]
    return kept_groups, tuple(heads)
