"""Every legal shape within a parameter budget, by closed form, and a sensible one of them.

Nothing is built: counts are arithmetic on arrays of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrow.compress.prune_config import BudgetTarget
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.shapes import non_embedding_parameters, parameters

Sizes = npt.NDArray[np.int64]

_COARSE, _FINE, _WIDE = 64, 16, 1024


@dataclass(frozen=True, slots=True)
class Candidates:
    """Shapes side by side, (count,) each.

    Args:
        layers, hidden_size, intermediate_size, heads, kv_heads: the shape.
        parameters: all.
        non_embedding_parameters: those outside embedding and head.
    """

    layers: Sizes
    hidden_size: Sizes
    intermediate_size: Sizes
    heads: Sizes
    kv_heads: Sizes
    parameters: Sizes
    non_embedding_parameters: Sizes

    def __len__(self) -> int:
        return len(self.layers)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(*(getattr(self, name)[rows] for name in type(self).__slots__))

    def config(self, source: ModelConfig, row: int) -> ModelConfig:
        """The config of one."""
        names = ("layers", "hidden_size", "intermediate_size", "heads", "kv_heads")
        changes = {name: int(getattr(self, name)[row]) for name in names}
        changes = {name: size for name, size in changes.items() if size != getattr(source, name)}
        return source.replace(**changes) if changes else source


def count(
    config: ModelConfig,
    layers: Sizes,
    hidden: Sizes,
    intermediate: Sizes,
    heads: Sizes,
    kv_heads: Sizes,
) -> tuple[Sizes, Sizes]:
    """All and non-embedding parameters of many shapes at once.

    The same numbers as :mod:`regrow.model.shapes` gives one at a time.

    Args:
        config: everything but the five sizes: vocabulary, head_dim, biases, norms.
        layers: for each shape; ignored where the stack is not attention+MLP pairs.
        hidden: D.
        intermediate: F.
        heads: query heads.
        kv_heads: key/value heads.
    """
    attention: Sizes | int
    mlp: Sizes | int
    attention, mlp = config.pattern.count("*"), config.pattern.count("-")
    if config.is_transformer:
        attention = mlp = layers
    norm = hidden * (2 if config.norm == "layernorm1p" else 1)
    query, key = heads * config.head_dim, kv_heads * config.head_dim
    per_attention = norm + 2 * hidden * (query + key)
    per_attention = per_attention + config.qkv_bias * (query + 2 * key)
    per_attention = per_attention + config.output_bias * hidden
    per_attention = per_attention + config.qk_norm * 2 * config.head_dim
    inward = 2 if config.gated else 1
    per_mlp = norm + (inward + 1) * hidden * intermediate
    per_mlp = per_mlp + config.mlp_bias * (inward * intermediate + hidden)
    inner = attention * per_attention + mlp * per_mlp + norm
    inner = inner + config.pattern.count("M") * (norm + _mamba(config, hidden))
    outer = config.vocab_size * hidden * (1 if config.tie_embeddings else 2)
    return inner + outer, inner


def _mamba(config: ModelConfig, hidden: Sizes) -> Sizes | int:
    """Parameters of a Mamba-2 mixer of each width; its own channels stay."""
    sizes = config.mamba
    if sizes is None:
        return 0
    convolved = sizes.conv_channels * (sizes.conv + sizes.conv_bias)
    projections = hidden * (sizes.projection + sizes.inner)
    projections = projections + sizes.proj_bias * (sizes.projection + hidden)
    return projections + convolved + 3 * sizes.heads + sizes.inner


def _align(given: int, size: int) -> int:
    return given or (_COARSE if size >= _WIDE else _FINE)


def _multiples(size: int, step: int) -> list[int]:
    """Multiples of ``step`` below ``size``, and ``size``."""
    return [*range(step, size, step), size]


def enumerate_shapes(source: ModelConfig, budget: BudgetTarget) -> Candidates:
    """Every shape that the source can be cut to along the budget's axes, legal for its family.

    Args:
        source: shape to cut.
        budget: its axes and multiples; its limits are not looked at.

    Raises:
        ConfigError: an axis that the source does not have.
    """
    if "layers" in budget.axes and not source.is_transformer:
        raise ConfigError("budget.axes: only stacks of attention+MLP pairs can lose layers")
    layers, hidden, inner = [source.layers], [source.hidden_size], [source.intermediate_size]
    heads = [source.heads]
    group = source.heads // max(1, source.kv_heads)
    if "layers" in budget.axes:
        layers = list(range(min(2, source.layers), source.layers + 1))
    if "hidden" in budget.axes:
        hidden = _multiples(hidden[0], _align(budget.hidden_align, hidden[0]))
    if "mlp" in budget.axes:
        inner = _multiples(inner[0], _align(budget.mlp_align, inner[0]))
    if "heads" in budget.axes and source.heads:
        # Whole groups where each has one query head, otherwise as many of every group.
        step = 1 if group == 1 else source.kv_heads
        heads = list(range(step, source.heads + 1, step))
    kv = (lambda count: count) if group == 1 else (lambda count: source.kv_heads)
    adapter = ADAPTERS.get(source.layout)
    pairs = [
        (width, number)
        for width in hidden
        for number in heads
        if not adapter.check(source.replace(hidden_size=width, heads=number, kv_heads=kv(number)))
    ]
    if not pairs:
        empty = np.empty(0, dtype=np.int64)
        return Candidates(*(empty for _ in Candidates.__slots__))
    legal = np.array(pairs, dtype=np.int64)
    grid = np.meshgrid(np.array(layers), np.arange(len(legal)), np.array(inner), indexing="ij")
    depth, pair, neurons = (axis.ravel().astype(np.int64) for axis in grid)
    width, number = legal[pair, 0], legal[pair, 1]
    keys = number if group == 1 else np.full_like(number, source.kv_heads)
    total, inside = count(source, depth, width, neurons, number, keys)
    return Candidates(depth, width, neurons, number, keys, total, inside)


def limit_of(source: ModelConfig, budget: BudgetTarget) -> tuple[str, int]:
    """Which figure the budget bounds, and its number of parameters.

    Raises:
        ConfigError: more than the source has.
    """
    name = "parameters" if budget.parameters else "non_embedding_parameters"
    given = budget.parameters or budget.non_embedding_parameters or 0.0
    whole = (parameters if name == "parameters" else non_embedding_parameters)(source)
    limit = round(given * whole if given <= 1 else given)
    if limit > whole:
        raise ConfigError(
            f"budget.{name}: {limit:,} are more than the {whole:,} of the source; cutting only "
            "makes smaller"
        )
    return name, limit


def within(source: ModelConfig, budget: BudgetTarget) -> Candidates:
    """The legal shapes within the tolerance of the budget, the most even ones first.

    Evenness: axes shrink in the same proportion, which is what the published shapes do
    (Llama-3.1-Minitron-4B: hidden 0.75, MLP 0.64, heads 1; arXiv 2408.11796). The order is by
    ``spread + miss``: the sum of squares of the axes' log ratios around their mean, and the square
    of the log of parameters over budget.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    name, limit = limit_of(source, budget)
    found = enumerate_shapes(source, budget)
    counts = getattr(found, name)
    near = np.abs(counts - limit) <= budget.tolerance * limit
    if not near.any():
        raise ConfigError(
            f"budget.{name}: no legal shape has {limit:,} within {budget.tolerance:.0%}",
            _nearest(source, found, counts, limit),
        )
    chosen = found.take(near)
    axes = {
        "layers": ("layers", source.layers),
        "hidden": ("hidden_size", source.hidden_size),
        "mlp": ("intermediate_size", source.intermediate_size),
        "heads": ("heads", source.heads),
    }
    ratios = np.stack(
        [np.log(getattr(chosen, axes[axis][0]) / axes[axis][1]) for axis in budget.axes]
    )
    spread = np.square(ratios - ratios.mean(0)).sum(0)
    miss = np.square(np.log(getattr(chosen, name) / limit))
    return chosen.take(np.lexsort((-chosen.hidden_size, spread + miss)))


def choose_shape(source: ModelConfig, budget: BudgetTarget) -> ModelConfig:
    """The first of :func:`within`."""
    return within(source, budget).config(source, 0)


def _nearest(source: ModelConfig, found: Candidates, counts: Sizes, limit: int) -> list[str]:
    lines = []
    for side, mask in (("below", counts < limit), ("above", counts > limit)):
        rows = np.flatnonzero(mask)
        if len(rows):
            row = int(rows[np.argmin(np.abs(counts[rows] - limit))])
            lines.append(
                f"nearest {side}: {int(counts[row]):,} with layers {found.layers[row]}, "
                f"hidden_size {found.hidden_size[row]}, "
                f"intermediate_size {found.intermediate_size[row]}, heads {found.heads[row]}"
            )
    return [*lines, "allow more axes, smaller hidden_align and mlp_align, or more tolerance"]
