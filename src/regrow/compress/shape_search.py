"""Every legal shape within a budget, by closed form, and a sensible one of them.

Nothing is built: counts and memory are arithmetic on arrays of shapes. Latency is measured, one
layer of each kind and size, and only where the budget bounds it (see :mod:`.latency`).

For others that choose among candidates: :func:`within` gives those that hold all bounds, the most
even first; their columns are ``parameters``, ``non_embedding_parameters``, ``memory_mb`` and
``latency_ms`` (NaN where the budget does not bound it). For the latency of any config call
``latency.table_of(source, budget).total_ms(config)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.compress.budgets import MB, WIDTHS, Limit, figure_text, limits_of, sequence_of
from regrow.compress.prune_config import BudgetTarget
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig

Sizes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Axis of a budget to the column of candidates that it varies.
COLUMNS = {
    "layers": "layers",
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "mamba_heads": "mamba_heads",
    "mamba_head_dim": "mamba_head_dim",
}
SHAPE = tuple(COLUMNS.values())

_CHUNK = 1_000_000
#: At 10^6 shapes a second a minute and a half; nobody means to compare more.
_MOST = 100_000_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Shapes side by side, (count,) each.

    Args:
        layers, hidden_size, intermediate_size, heads, kv_heads, mamba_heads, mamba_head_dim: the
            shape; 0 where the source has no such part.
        parameters: all.
        non_embedding_parameters: those outside embedding and head.
        memory_mb: weights, caches and states, in 10^6 bytes, at the budget's conditions.
        latency_ms: measured; NaN where it is not.
    """

    layers: Sizes
    hidden_size: Sizes
    intermediate_size: Sizes
    heads: Sizes
    kv_heads: Sizes
    mamba_heads: Sizes
    mamba_head_dim: Sizes
    parameters: Sizes
    non_embedding_parameters: Sizes
    memory_mb: Floats
    latency_ms: Floats

    def __len__(self) -> int:
        return len(self.layers)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def with_latency(self, milliseconds: Floats) -> Candidates:
        """The same with measured latencies, (count,)."""
        return replace(self, latency_ms=milliseconds)

    def config(self, source: ModelConfig, row: int) -> ModelConfig:
        """The config of one."""
        return config_of(source, {name: int(getattr(self, name)[row]) for name in SHAPE})


def config_of(source: ModelConfig, sizes: Mapping[str, int]) -> ModelConfig:
    """``source`` with other sizes.

    Args:
        source: the shape to cut.
        sizes: those of :data:`SHAPE`; 0 where the source has no such part.
    """
    changes: dict[str, Any] = {
        name: size
        for name, size in sizes.items()
        if not name.startswith("mamba_") and size != getattr(source, name)
    }
    if source.mamba is not None:
        inner = {"heads": sizes["mamba_heads"], "head_dim": sizes["mamba_head_dim"]}
        if inner != {name: getattr(source.mamba, name) for name in inner}:
            changes["mamba"] = source.mamba.replace(**inner)
    return source.replace(**changes) if changes else source


def joined(parts: list[Candidates]) -> Candidates:
    """Several sets of candidates as one."""
    names = [field.name for field in fields(Candidates)]
    return Candidates(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def count(
    config: ModelConfig,
    layers: Sizes,
    hidden: Sizes,
    intermediate: Sizes,
    heads: Sizes,
    kv_heads: Sizes,
    mamba_heads: Sizes | None = None,
    mamba_head_dim: Sizes | None = None,
) -> tuple[Sizes, Sizes]:
    """All and non-embedding parameters of many shapes at once.

    The same numbers as :mod:`regrow.model.shapes` gives one at a time.

    Args:
        config: everything but the sizes: vocabulary, head_dim, biases, norms, states.
        layers: for each shape; ignored where the stack is not attention+MLP pairs.
        hidden: D.
        intermediate: F.
        heads: query heads.
        kv_heads: key/value heads.
        mamba_heads: heads of a Mamba-2 block; the config's by default.
        mamba_head_dim: their channels; the config's by default.
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
    if config.mamba is not None:
        number = config.mamba.heads if mamba_heads is None else mamba_heads
        width = config.mamba.head_dim if mamba_head_dim is None else mamba_head_dim
        inner = inner + config.pattern.count("M") * (norm + _mamba(config, hidden, number, width))
    outer = config.vocab_size * hidden * (1 if config.tie_embeddings else 2)
    return inner + outer, inner


def _mamba(config: ModelConfig, hidden: Sizes, heads: Sizes | int, width: Sizes | int) -> Sizes:
    """Parameters of a Mamba-2 mixer of each size; groups and state channels stay."""
    sizes = config.mamba
    assert sizes is not None  # asked only of stacks with M
    inner = heads * width
    channels = inner + 2 * sizes.groups * sizes.state
    projection = inner + channels + heads
    made = hidden * (projection + inner) + sizes.proj_bias * (projection + hidden)
    return made + channels * (sizes.conv + sizes.conv_bias) + 3 * heads + inner


def _memory(source: ModelConfig, budget: BudgetTarget, shape: dict[str, Sizes]) -> Floats:
    """MB of many shapes, each without its weights; the form of :mod:`.budgets`."""
    width = WIDTHS[budget.dtype]
    attention = shape["layers"] if source.is_transformer else source.pattern.count("*")
    each = 2 * attention * shape["kv_heads"] * source.head_dim * width
    each = each * sequence_of(source, budget)
    if source.mamba is not None:
        sizes = source.mamba
        inner = shape["mamba_heads"] * shape["mamba_head_dim"]
        window = (sizes.conv - 1) * (inner + 2 * sizes.groups * sizes.state) * width
        each = each + source.pattern.count("M") * (4 * inner * sizes.state + window)
    made: Floats = budget.batch * each / MB
    return made


def _step(given: int, size: int, wide: tuple[tuple[int, int], ...]) -> int:
    """The step of an axis: the given one, or the first whose size is reached."""
    return given or next((step for least, step in wide if size >= least), 16)


def _multiples(size: int, step: int, cut: float) -> list[int]:
    """Multiples of ``step`` of which at most the share ``cut`` is gone, and ``size``."""
    least = size * (1 - cut) - 1e-9
    return [value for value in range(step, size, step) if value >= least] + [size]


def _choices(source: ModelConfig, budget: BudgetTarget) -> dict[str, list[int]]:
    """Sizes to try on each axis, whether or not they go together.

    Raises:
        ConfigError: an axis that the source does not have.
    """
    problems = []
    if "layers" in budget.axes and not source.is_transformer:
        problems.append(
            "budget.axes: layers: which blocks go decides how large a hybrid is; give "
            "shape.layers or depth.drop, or leave the axis out"
        )
    for axis, symbol in (("mlp", "-"), ("heads", "*"), ("kv_heads", "*")):
        if axis in budget.axes and symbol not in source.pattern:
            problems.append(f"budget.axes: {axis}: the source has no such blocks ({symbol})")
    problems += [
        f"budget.axes: {axis}: the source has no Mamba-2 blocks (M)"
        for axis in ("mamba_heads", "mamba_head_dim")
        if axis in budget.axes and source.mamba is None
    ]
    if problems:
        raise ConfigError("the budget's axes are not those of the source", problems)
    mamba, cut = source.mamba, budget.max_width_cut
    group = source.heads // max(1, source.kv_heads)
    made = {column: [getattr(source, column, 0)] for column in SHAPE if column != "heads"}
    made["each"] = [group]  # query heads of each key/value head
    if mamba is not None:
        made |= {"mamba_heads": [mamba.heads], "mamba_head_dim": [mamba.head_dim]}
    for axis in budget.axes:
        if axis == "layers":
            least = max(min(2, source.layers), source.layers * (1 - budget.max_depth_cut) - 1e-9)
            made["layers"] = [n for n in range(1, source.layers + 1) if n >= least]
        elif axis == "hidden":
            step = _step(budget.hidden_align, source.hidden_size, ((2048, 128), (1024, 64)))
            made["hidden_size"] = _multiples(source.hidden_size, step, cut)
        elif axis == "mlp":
            step = _step(budget.mlp_align, source.intermediate_size, ((4096, 256), (1024, 64)))
            made["intermediate_size"] = _multiples(source.intermediate_size, step, cut)
        elif axis == "kv_heads" or (axis == "heads" and group == 1):
            made["kv_heads"] = _multiples(source.kv_heads, 1, cut)
        elif axis == "heads":
            made["each"] = _multiples(group, 1, cut)
        elif mamba is not None and axis == "mamba_heads":
            made["mamba_heads"] = _multiples(mamba.heads, mamba.groups, cut)
        elif mamba is not None:
            made["mamba_head_dim"] = _multiples(mamba.head_dim, max(1, mamba.head_dim // 8), cut)
    return made


def _legal(source: ModelConfig, choices: dict[str, list[int]]) -> Sizes:
    """(count, 5): hidden_size, heads, kv_heads and both of Mamba-2 that the family can hold.

    A stack with attention has no rule between its Mamba-2 blocks and the rest, so there only the
    first three are checked, and the others are every combination.
    """
    adapter = ADAPTERS.get(source.layout)
    recurrent = [(h, p) for h in choices["mamba_heads"] for p in choices["mamba_head_dim"]]
    if not source.heads:
        pure = [
            (hidden, 0, 0, number, width)
            for hidden in choices["hidden_size"]
            for number, width in recurrent
            if not adapter.check(_pure(source, hidden, number, width))
        ]
        return np.array(pure, dtype=np.int64).reshape(-1, 5)
    outer = [
        (hidden, kv * each, kv)
        for hidden in choices["hidden_size"]
        for kv in choices["kv_heads"]
        for each in choices["each"]
        if not adapter.check(source.replace(hidden_size=hidden, heads=kv * each, kv_heads=kv))
    ]
    left = np.repeat(np.array(outer, dtype=np.int64).reshape(-1, 3), len(recurrent), axis=0)
    right = np.tile(np.array(recurrent, dtype=np.int64), (len(outer), 1))
    return np.hstack([left, right])


def _pure(source: ModelConfig, hidden: int, heads: int, width: int) -> ModelConfig:
    assert source.mamba is not None  # without attention there is nothing else to resize
    return source.replace(
        hidden_size=hidden, mamba=source.mamba.replace(heads=heads, head_dim=width)
    )


def _chunks(source: ModelConfig, budget: BudgetTarget) -> Iterator[Candidates]:
    """Every shape that the source can be cut to along the budget's axes, some at a time."""
    choices = _choices(source, budget)
    total = math.prod(len(sizes) for sizes in choices.values())
    if total > _MOST:
        raise ConfigError(
            f"budget.axes: {total:,} shapes are too many to compare (at most {_MOST:,}); use fewer "
            "axes, larger hidden_align and mlp_align, or smaller max_width_cut and max_depth_cut"
        )
    legal = _legal(source, choices)
    inner = np.array(choices["intermediate_size"], dtype=np.int64)
    at_once = max(1, _CHUNK // len(inner))
    names = ("hidden_size", "heads", "kv_heads", "mamba_heads", "mamba_head_dim")
    for layers in choices["layers"]:
        # Once at least, so that there is always a set of candidates, if an empty one.
        for first in range(0, max(1, len(legal)), at_once):
            some = legal[first : first + at_once]
            columns = np.repeat(some, len(inner), axis=0).T
            shape: dict[str, Sizes] = dict(zip(names, columns, strict=True))
            shape["intermediate_size"] = np.tile(inner, len(some))
            shape["layers"] = np.full(len(some) * len(inner), layers, dtype=np.int64)
            all_, inside = count(source, *(shape[column] for column in SHAPE))
            memory = all_ * (WIDTHS[budget.dtype] / MB) + _memory(source, budget, shape)
            yield Candidates(
                **shape,
                parameters=all_,
                non_embedding_parameters=inside,
                memory_mb=memory,
                latency_ms=np.full(len(all_), np.nan),
            )


def enumerate_shapes(source: ModelConfig, budget: BudgetTarget) -> Candidates:
    """Every shape that the source can be cut to along the budget's axes, legal for its family.

    Args:
        source: shape to cut.
        budget: its axes, steps and widest cuts; its bounds are not looked at.

    Raises:
        ConfigError: an axis that the source does not have, or more shapes than can be compared.
    """
    return joined(list(_chunks(source, budget)))


def within(source: ModelConfig, budget: BudgetTarget) -> Candidates:
    """The legal shapes that hold every bound of the budget, the most even ones first.

    Evenness: axes shrink in the same proportion, which is what the published shapes do
    (Llama-3.1-Minitron-4B: hidden 0.75, MLP 0.64, heads 1; arXiv 2408.11796). The order is by
    ``spread + miss``: the sum of squares of the axes' log ratios around their mean, and the square
    of the log of each figure over its bound. Where memory or latency is bounded beside a number of
    parameters they are only not exceeded; alone, the nearest of them is what is missed.

    With ``latency_ms`` layers are measured here (a minute or more for large models), and only the
    first of the shapes are given that hold, each with its measured latency.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    limits = limits_of(source, budget)
    closed = [limit for limit in limits if limit.figure != "latency_ms"]
    # A bound on latency may be the nearer one: then memory alone may stay far below its own.
    alone = len(closed) == len(limits)
    kept: list[Candidates] = []
    near = _Nearest(source, closed)
    for chunk in _chunks(source, budget):
        holds = _holds(chunk, closed, budget.tolerance, alone)
        kept.append(chunk.take(holds))
        if not any(len(part) for part in kept):
            near.see(chunk)
    found = joined(kept)
    if not len(found):
        raise near.error(budget)
    if alone:
        return found.take(_order(source, found, budget, limits))
    from regrow.compress.latency import fastest

    return fastest(source, found, budget, limits)


def _holds(
    found: Candidates, limits: list[Limit], tolerance: float, alone: bool
) -> npt.NDArray[np.bool_]:
    """Which candidates hold the bounds that have closed forms."""
    holds = np.ones(len(found), dtype=np.bool_)
    for limit in limits:
        figures = getattr(found, limit.figure)
        if limit.is_target:
            holds &= np.abs(figures - limit.value) <= tolerance * limit.value
        else:
            holds &= figures <= limit.value
            if alone and len(limits) == 1:
                holds &= figures >= (1 - tolerance) * limit.value
    return holds


def evenness(source: ModelConfig, found: Candidates, budget: BudgetTarget) -> Floats:
    """(count,): sum of squares of the axes' log ratios around their mean; 0 is even."""
    whole = {column: getattr(source, column, 0) for column in SHAPE}
    if source.mamba is not None:
        whole |= {"mamba_heads": source.mamba.heads, "mamba_head_dim": source.mamba.head_dim}
    columns = [COLUMNS[axis] for axis in budget.axes]
    ratios = np.stack([np.log(getattr(found, name) / whole[name]) for name in columns])
    spread: Floats = np.square(ratios - ratios.mean(0)).sum(0)
    return spread


def _order(
    source: ModelConfig, found: Candidates, budget: BudgetTarget, limits: list[Limit]
) -> npt.NDArray[np.intp]:
    """Rows from the most even and nearest on."""
    logs = {lim.figure: np.log(getattr(found, lim.figure) / lim.value) for lim in limits}
    targets = [logs[limit.figure] for limit in limits if limit.is_target]
    if targets:
        miss = np.square(np.stack(targets)).sum(0)
    else:
        miss = np.square(np.stack(list(logs.values())).max(0))
    score = evenness(source, found, budget) + miss
    return np.lexsort((-found.hidden_size, score))


def words(found: Candidates, row: int) -> str:
    """The sizes of a candidate that are not zero."""
    named = (f"{name} {int(getattr(found, name)[row])}" for name in SHAPE)
    return ", ".join(text for text in named if not text.endswith(" 0"))


class _Nearest:
    """The shapes that come nearest to bounds that none holds."""

    def __init__(self, source: ModelConfig, limits: list[Limit]) -> None:
        self.source = source
        self.limits = limits
        self._best: dict[str, tuple[float, str]] = {}

    def see(self, found: Candidates) -> None:
        """Compare some more shapes."""
        if not len(found) or not self.limits:
            return
        first = self.limits[0]
        logs = np.log(getattr(found, first.figure) / first.value)
        total = np.abs(logs)
        for limit in self.limits[1:]:
            more = np.log(getattr(found, limit.figure) / limit.value)
            total = total + (np.abs(more) if limit.is_target else np.maximum(more, 0))
        for side, mask in (("below", logs < 0), ("above", logs > 0)):
            rows = np.flatnonzero(mask)
            if not len(rows):
                continue
            row = int(rows[np.argmin(total[rows])])
            if side not in self._best or total[row] < self._best[side][0]:
                figures = [
                    figure_text(limit.figure, getattr(found, limit.figure)[row])
                    for limit in self.limits
                ]
                text = f"nearest {side}: {', '.join(figures)} with {words(found, row)}"
                self._best[side] = (float(total[row]), text)

    def error(self, budget: BudgetTarget) -> ConfigError:
        """What to raise."""
        wanted = " and ".join(
            f"{limit.text()} within {budget.tolerance:.0%}"
            if limit.is_target or len(self.limits) == 1
            else f"at most {limit.text()}"
            for limit in self.limits
        )
        name = f"budget.{self.limits[0].figure}" if len(self.limits) == 1 else "budget"
        lines = [text for _, text in self._best.values()]
        if not lines:
            lines = [f"no shape on these axes is legal for {self.source.layout}"]
        return ConfigError(
            f"{name}: no legal shape has {wanted}",
            [
                *lines,
                "allow more axes, smaller hidden_align and mlp_align, wider max_width_cut and "
                "max_depth_cut, or more tolerance"
                + ("; memory is also of sequence and batch" if budget.memory_mb else ""),
            ],
        )
