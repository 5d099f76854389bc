"""From statistics to scores, and from scores to what stays.

Legend: D model, H heads, C channels of a head, F ffn, K kv heads, G groups of Mamba-2 heads,
L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from regrow.compress.depth import Damage, Indices, depth_problems, kept_layers, layer_blocks
from regrow.compress.depth_config import DepthConfig
from regrow.compress.importance import SITES, Statistics
from regrow.compress.importance_config import BatchAggregation, SequenceAggregation
from regrow.compress.prune_config import PruneConfig
from regrow.compress.shapes import check_merge, target_config
from regrow.compress.slicing import Keep
from regrow.core.errors import ConfigError
from regrow.core.seed import derive
from regrow.model.config import ModelConfig


class Scores(Protocol):
    """What decides what stays: the larger, the more a part matters."""

    def hidden(self) -> Tensor:
        """(D,)."""

    def neurons(self, block: int) -> Tensor:
        """(F,) of one MLP block."""

    def heads(self, block: int) -> Tensor:
        """(H,) of one attention block."""

    def mamba(self, block: int) -> Tensor:
        """(H, C) of one Mamba-2 block."""


class Activations:
    """Scores from statistics.

    Args:
        statistics: of the model.
        config: of the model.
        batch: aggregation over windows.
        sequence: aggregation over a window's tokens.

    Raises:
        ConfigError: the statistics were not gathered with ``sequence``.
    """

    def __init__(
        self,
        statistics: Statistics,
        config: ModelConfig,
        batch: BatchAggregation = "l2",
        sequence: SequenceAggregation = "mean",
    ) -> None:
        if sequence not in statistics.sums:
            raise ConfigError(
                f"sequence_aggregation: the scores hold {', '.join(statistics.sums)}, not "
                f"{sequence}; run importance with sequence_aggregations=[{sequence}]"
            )
        self.statistics, self.config = statistics, config
        self.batch, self.sequence = batch, sequence

    def channels(self, site: str) -> Tensor:
        """One score a channel, (C,) fp64: the L2 norm, mean or variance over windows of ``a_b``."""
        samples = self.statistics.samples
        total = self.statistics.sums[self.sequence][site]
        squares = self.statistics.squares[self.sequence][site]
        if self.batch == "l2":
            return squares.sqrt()
        mean = total / samples
        if self.batch == "mean":
            return mean
        return (squares / samples - mean.square()).clamp(min=0.0)

    def hidden(self) -> Tensor:
        """(D,): summed over every norm that reads the residual stream, which all of them share."""
        norms = [site for site in self.statistics.sites if site.rpartition(".")[2] == "norm"]
        return torch.stack([self.channels(site) for site in norms]).sum(0)

    def neurons(self, block: int) -> Tensor:
        """(F,) of one MLP block."""
        name = f"blocks.{block}.mixer."
        return self.channels(next(site for site in self.statistics.sites if site.startswith(name)))

    def heads(self, block: int) -> Tensor:
        """(H,) of one attention block: by channel first, then the L2 norm over a head's."""
        channels = self.channels(f"blocks.{block}.mixer.{SITES['*']}")
        shape = (self.config.heads, self.config.head_dim)
        scores: Tensor = torch.linalg.vector_norm(channels.view(shape), dim=1)
        return scores

    def mamba(self, block: int) -> Tensor:
        """(H, C) of one Mamba-2 block."""
        sizes = self.config.mamba
        assert sizes is not None  # a config with M has them
        channels = self.channels(f"blocks.{block}.mixer.{SITES['M']}")
        return channels.view(sizes.heads, sizes.head_dim)


class Drawn:
    """Scores drawn at random, to compare with.

    Args:
        config: of the model.
        seed: decides what stays.
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def _draw(self, count: int, *names: str | int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, "random", *names))
        return torch.rand(count, generator=generator, dtype=torch.float64)

    def hidden(self) -> Tensor:
        """(D,)."""
        return self._draw(self.config.hidden_size, "hidden")

    def neurons(self, block: int) -> Tensor:
        """(F,) of one MLP block."""
        return self._draw(self.config.intermediate_size, "neurons", block)

    def heads(self, block: int) -> Tensor:
        """(H,) of one attention block."""
        return self._draw(self.config.heads, "heads", block)

    def mamba(self, block: int) -> Tensor:
        """(H, C) of one Mamba-2 block."""
        sizes = self.config.mamba
        assert sizes is not None  # a config with M has them
        return self._draw(sizes.inner, "mamba", block).view(sizes.heads, sizes.head_dim)

    def damage(self, runs: list[Indices]) -> list[float]:
        """Of removing each of some runs of layers."""
        return self._draw(len(runs), "layers").tolist()


def block_influence(statistics: Statistics, length: int = 1) -> Tensor:
    """(L - length + 1,): ``1 - E[cos(x_i, x_(i+length))]`` for each run of ``length`` layers.

    Source: ShortGPT (arXiv 2403.03853); Minitron (arXiv 2407.14679), equation 4.
    """
    return 1.0 - statistics.cosines.diagonal(length) / statistics.tokens


def influence_of(statistics: Statistics) -> Damage:
    """Block influence as what decides which layers go."""

    def damage(runs: list[Indices]) -> list[float]:
        return [float(block_influence(statistics, len(run))[run[0]]) for run in runs]

    return damage


def top(scores: Tensor, count: int) -> Indices:
    """Indices of the ``count`` largest, ascending; of equal ones the first."""
    return tuple(sorted(_ranked(scores)[:count]))


def _ranked(scores: Tensor) -> list[int]:
    """Indices from the largest to the smallest; of equal ones the first one first."""
    order: list[int] = torch.sort(scores, descending=True, stable=True).indices.tolist()
    return order


def _top(scores: Callable[[], Tensor], count: int, whole: int) -> Indices:
    """:func:`top`, or everything, for which nothing need be known."""
    return tuple(range(whole)) if count == whole else top(scores(), count)


def choose(
    source: ModelConfig,
    target: ModelConfig,
    statistics: Statistics,
    batch: BatchAggregation = "l2",
    sequence: SequenceAggregation = "mean",
    depth: DepthConfig | None = None,
    merge: bool = False,
) -> Keep:
    """What stays of a model that is cut to ``target``: the highest scores on each axis.

    Layers go by block influence. Query heads are ranked inside their group, the same number staying
    in each, since head h reads key/value head ``h // (H / K)``; so are Mamba-2 heads, whose
    channels are one choice for all heads of a block.

    Args:
        source: shape of the model that was measured.
        target: shape to cut to, legal (see :mod:`regrow.compress.shapes`). Of a stack that is not
            attention+MLP pairs only the length of its pattern counts, not which blocks it has.
        statistics: of that model.
        batch: aggregation over windows.
        sequence: aggregation over a window's tokens.
        depth: rules for the layers that go.
        merge: whether heads that stay take up what those that go knew.

    Raises:
        ConfigError: too few layers would stay, or the statistics lack ``sequence``.
    """
    count = depth_of(target, source)
    damage = influence_of(statistics)
    layers = kept_layers(source, count, damage, depth or DepthConfig())
    return select(
        source, target, layers, Activations(statistics, source, batch, sequence), merge=merge
    )


def choose_random(
    source: ModelConfig, target: ModelConfig, seed: int, depth: DepthConfig | None = None
) -> Keep:
    """A random choice under the same rules, to compare with.

    Args:
        source: shape of the model.
        target: shape to cut to.
        seed: decides what stays.
        depth: rules for the layers that go; each goes by itself.

    Raises:
        ConfigError: too few layers would stay.
    """
    drawn = Drawn(source, seed)
    alone = (depth or DepthConfig()).replace(rule="independent")
    layers = kept_layers(source, depth_of(target, source), drawn.damage, alone)
    return select(source, target, layers, drawn)


def depth_of(target: ModelConfig, source: ModelConfig) -> int:
    """Layers of ``target``, counted as in ``source``: blocks, unless both are pairs."""
    return target.layers if source.is_transformer else len(target.pattern)


def keep_for(
    config: PruneConfig,
    source: ModelConfig,
    target: ModelConfig,
    statistics: Statistics | None = None,
    damage: Damage | None = None,
) -> Keep:
    """What stays, by the settings of ``prune``. The shape that results is ``.config(source)``.

    Args:
        config: the settings.
        source: shape of the model.
        target: shape to cut to (:func:`target_for`, or one that fits a budget); of hybrids that
            lose layers, which blocks its pattern has does not count.
        statistics: of the model; needed where ``config.needs_scores``.
        damage: with metric ppl or task: what removing layers costs
            (:class:`regrow.compress.sweep.Sweep`).

    Raises:
        ConfigError: too few layers would stay, heads that cannot be merged, or statistics without
            the sequence aggregation.
    """
    problems = check_merge(source, target) if config.head_merge == "residual" else []
    if problems:
        raise ConfigError("the heads cannot be merged", problems)
    layers = layers_for(config, source, depth_of(target, source), statistics, damage)
    if config.selection == "random":
        return select(source, target, layers, Drawn(source, config.seed))
    scores = None
    if statistics is not None:
        scores = Activations(
            statistics, source, config.batch_aggregation, config.sequence_aggregation
        )
    return select(source, target, layers, scores, merge=config.head_merge == "residual")


def depth_rules(config: PruneConfig) -> DepthConfig:
    """Rules for the layers that go; a random choice is one layer at a time."""
    random = config.selection == "random"
    return config.depth.replace(rule="independent") if random else config.depth


def layers_for(
    config: PruneConfig,
    source: ModelConfig,
    count: int,
    statistics: Statistics | None = None,
    damage: Damage | None = None,
) -> Indices:
    """Which ``count`` layers stay, by the settings of ``prune``; arguments as in :func:`keep_for`.

    Raises:
        ConfigError: too few would stay.
    """
    layers = len(layer_blocks(source))
    if config.depth.drop:
        return tuple(layer for layer in range(layers) if layer not in config.depth.drop)
    if count == layers:
        return tuple(range(layers))
    if config.selection == "random":
        damage = Drawn(source, config.seed).damage
    elif config.depth_metric == "bi":
        if statistics is None:
            raise ConfigError("scores is missing: block influence is measured by importance")
        damage = influence_of(statistics)
    elif damage is None:
        raise ValueError(f"metric {config.depth_metric} needs a sweep over the removals")
    return kept_layers(source, count, damage, depth_rules(config))


def target_for(
    config: PruneConfig, source: ModelConfig, statistics: Statistics | None = None
) -> ModelConfig:
    """The shape that ``shape`` and ``depth.drop`` ask for, checked against every rule.

    Where a hybrid loses layers by metric ppl or task, which blocks go is known after the sweep
    only: its pattern (and so its count) is then that of one possible removal, and
    ``keep_for(...).config(source)`` has the final one.

    Args:
        config: the settings, without a budget.
        source: shape of the model.
        statistics: of the model, where there are scores.

    Raises:
        ConfigError: every rule that is broken, with the nearest legal values.
    """
    layers: Indices | None = None
    rules = depth_rules(config)
    wanted = config.shape.layers if config.shape is not None else None
    whole = len(layer_blocks(source))
    known = config.selection == "random" or (config.depth_metric == "bi" and statistics is not None)
    if config.depth.drop:
        wrong = [layer for layer in config.depth.drop if layer >= whole]
        if wrong or len(config.depth.drop) >= whole:
            raise ConfigError(
                f"depth.drop: {wrong or list(config.depth.drop)} of {whole} layers; use 0 .. "
                f"{whole - 1}, and not all of them"
            )
        layers = layers_for(config, source, whole)
    elif known and wanted is not None and not depth_problems(source, wanted, rules):
        layers = layers_for(config, source, min(wanted, whole), statistics)
    target = target_config(source, config.shape, layers, rules)
    problems = check_merge(source, target) if config.head_merge == "residual" else []
    if problems:
        raise ConfigError("the heads cannot be merged", problems)
    return target


def select(
    source: ModelConfig,
    target: ModelConfig,
    layers: Indices,
    scores: Scores | None,
    *,
    merge: bool = False,
) -> Keep:
    """What stays inside the layers that stay.

    Args:
        source: shape of the model.
        target: shape to cut to.
        layers: layers that stay.
        scores: the larger, the rather a part stays; None where only layers go.
        merge: whether heads that stay take up what those that go knew.
    """
    lists: dict[str, dict[int, Indices]] = {
        name: {} for name in ("neurons", "heads", "kv_heads", "mamba_heads", "mamba_channels")
    }
    merged: dict[int, tuple[tuple[int, int], ...]] = {}
    known: Scores = scores if scores is not None else _Nothing()
    groups = layer_blocks(source)
    for block in (block for layer in layers for block in groups[layer]):
        symbol = source.pattern[block]
        if symbol == "-":
            lists["neurons"][block] = _top(
                lambda block=block: known.neurons(block),  # type: ignore[misc]
                target.intermediate_size,
                source.intermediate_size,
            )
        elif symbol == "*":
            kept = _heads(lambda block=block: known.heads(block), source, target, merge)  # type: ignore[misc]
            lists["kv_heads"][block], lists["heads"][block], pairs = kept
            if pairs:
                merged[block] = pairs
        else:
            both = _mamba(lambda block=block: known.mamba(block), source, target)  # type: ignore[misc]
            lists["mamba_heads"][block], lists["mamba_channels"][block] = both
    hidden = _top(known.hidden, target.hidden_size, source.hidden_size)
    return Keep(layers, hidden, **lists, merged=merged)


class _Nothing:
    """Scores of a choice that needs none."""

    def hidden(self) -> Tensor:
        raise ConfigError("scores is missing: hidden_size shrinks; run importance first")

    def neurons(self, block: int) -> Tensor:
        raise ConfigError("scores is missing: intermediate_size shrinks; run importance first")

    def heads(self, block: int) -> Tensor:
        raise ConfigError("scores is missing: heads shrinks; run importance first")

    def mamba(self, block: int) -> Tensor:
        raise ConfigError("scores is missing: Mamba-2 heads shrink; run importance first")


def _heads(
    scores: Callable[[], Tensor], source: ModelConfig, target: ModelConfig, merge: bool
) -> tuple[Indices, Indices, tuple[tuple[int, int], ...]]:
    """Key/value heads that stay, query heads that stay in their groups, and pairs to merge."""
    if (target.heads, target.kv_heads) == (source.heads, source.kv_heads):
        return tuple(range(source.kv_heads)), tuple(range(source.heads)), ()
    groups = scores().view(source.kv_heads, -1)
    kept_groups = top(torch.linalg.vector_norm(groups, dim=1), target.kv_heads)
    each, wanted = groups.shape[1], target.heads // target.kv_heads
    heads: list[int] = []
    pairs: list[tuple[int, int]] = []
    for group in kept_groups:
        ranked = [group * each + index for index in _ranked(groups[group])]
        heads += sorted(ranked[:wanted])
        pairs += _pairs(ranked, wanted)
    if merge and each == 1:
        pairs = _pairs(_ranked(groups[:, 0]), target.heads)
    return kept_groups, tuple(heads), tuple(sorted(pairs)) if merge else ()


def _pairs(ranked: list[int], kept: int) -> list[tuple[int, int]]:
    """Of heads ranked 1 .. L of which K stay: head i of [2K - L + 1, K] and head 2K - i + 1.

    Source: Minitron (arXiv 2407.14679), section 2.3; its lower bound 2K - L has no partner.
    """
    first = 2 * kept - len(ranked) + 1
    return [(ranked[i - 1], ranked[2 * kept - i]) for i in range(max(1, first), kept + 1)]


def _mamba(
    scores: Callable[[], Tensor], source: ModelConfig, target: ModelConfig
) -> tuple[Indices, Indices]:
    """Heads of a Mamba-2 block that stay, and the channels that stay in each of them.

    Channels are ranked by their norm over all heads; then heads, inside their group, by their norm
    over the channels that stay.

    Source: Minitron-SSM (arXiv 2504.11409).
    """
    sizes = source.mamba
    assert sizes is not None  # a config with M has them
    # A target whose provisional pattern lost every Mamba-2 block says nothing of those that stay.
    wanted = target.mamba or sizes
    if (wanted.heads, wanted.head_dim) == (sizes.heads, sizes.head_dim):
        return tuple(range(sizes.heads)), tuple(range(sizes.head_dim))
    values = scores()
    channels = top(torch.linalg.vector_norm(values, dim=0), wanted.head_dim)
    by_head = torch.linalg.vector_norm(values[:, list(channels)], dim=1).view(sizes.groups, -1)
    each, count = by_head.shape[1], wanted.heads // sizes.groups
    heads = [g * each + i for g in range(sizes.groups) for i in top(by_head[g], count)]
    return tuple(heads), channels
