"""Which shapes a model can be cut to, and what to say about those that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from regrow.compress.depth import Indices, depth_problems, kept_layers, layer_blocks, without
from regrow.compress.depth_config import DepthConfig
from regrow.compress.prune_config import ShapeTarget
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig

#: Sizes that cutting can change. Those of ``MAMBA`` lie in the config's ``mamba``.
AXES = ("layers", "hidden_size", "intermediate_size", "heads", "kv_heads")
MAMBA = {"mamba_heads": "heads", "mamba_head_dim": "head_dim"}

#: What has to be there for an axis to exist.
_NEEDS = {
    "intermediate_size": ("-", "MLP"),
    "heads": ("*", "attention"),
    "kv_heads": ("*", "attention"),
    "mamba_heads": ("M", "Mamba-2"),
    "mamba_head_dim": ("M", "Mamba-2"),
}
_TITLE = "the model cannot be cut to this shape"
#: How far to look for a legal size; every rule is met within a multiple of a few hundred.
_SEARCHED = 1024


def size_of(config: ModelConfig, axis: str) -> int:
    """One of a config's sizes, by its name in ``shape``; 0 where there is no such block."""
    if axis in MAMBA:
        return int(getattr(config.mamba, MAMBA[axis])) if config.mamba is not None else 0
    if axis == "layers":
        return len(layer_blocks(config))
    return int(getattr(config, axis))


def resized(source: ModelConfig, wanted: dict[str, int], layers: Indices) -> ModelConfig:
    """``source`` with other sizes and fewer layers.

    Args:
        source: the shape.
        wanted: axis to size; layers are not looked at.
        layers: those that stay.

    Raises:
        pydantic.ValidationError: the result is impossible.
    """
    gone = set(range(len(layer_blocks(source)))) - set(layers)
    config = without(source, gone) if gone else source
    changes: dict[str, Any] = {
        name: size
        for name, size in wanted.items()
        if name in AXES and name != "layers" and size != size_of(source, name)
    }
    inner = {
        MAMBA[name]: size
        for name, size in wanted.items()
        if name in MAMBA and size != size_of(source, name)
    }
    if inner and config.mamba is not None:
        changes["mamba"] = config.mamba.replace(**inner)
    return config.replace(**changes) if changes else config


def target_config(
    source: ModelConfig,
    target: ShapeTarget | None,
    layers: Indices | None = None,
    depth: DepthConfig | None = None,
) -> ModelConfig:
    """The config of ``source`` cut to ``target``; what is not given stays.

    Giving ``kv_heads`` alone takes whole groups of query heads away. Where every query head has a
    key/value head of its own, giving ``heads`` alone takes both.

    Args:
        source: the shape to cut.
        target: the sizes; None where only layers go.
        layers: which layers stay, where that is known. Otherwise a stack that is not attention+MLP
            pairs loses those of one possible removal: which ones it really loses decides its
            pattern and its count.
        depth: rules for layers that go.

    Raises:
        ConfigError: every rule that is broken, with the nearest legal values.
    """
    depth = depth or DepthConfig()
    given = target.model_dump(exclude_none=True) if target is not None else {}
    problems = list(_basic_problems(source, given))
    if problems:
        raise ConfigError(_TITLE, problems)
    wanted = _complete(source, given)
    problems = list(_group_problems(source, wanted))
    if layers is None:
        problems += depth_problems(source, wanted["layers"], depth)
    if problems:
        raise ConfigError(_TITLE, problems)
    if layers is None:
        layers = _provisional(source, wanted["layers"], depth)
    try:
        config = resized(source, wanted, layers)
    except ValidationError as error:
        messages = [e["msg"].removeprefix("Value error, ") for e in error.errors()]
        raise ConfigError(_TITLE, messages) from None
    broken = ADAPTERS.get(config.layout).check(config)
    if broken:
        near = _nearest(source, given, wanted, layers)
        raise ConfigError(f"no stock {config.layout} class can hold this shape", [*broken, *near])
    return config


def _complete(source: ModelConfig, given: dict[str, int]) -> dict[str, int]:
    """Every size, from those that were given."""
    wanted = {name: given.get(name) or size_of(source, name) for name in (*AXES, *MAMBA)}
    group = source.heads // max(1, source.kv_heads)
    if "heads" not in given and "kv_heads" in given:
        wanted["heads"] = wanted["kv_heads"] * group
    if "kv_heads" not in given and group == 1:
        wanted["kv_heads"] = wanted["heads"]
    return wanted


def _basic_problems(source: ModelConfig, given: dict[str, int]) -> Iterator[str]:
    for name, size in given.items():
        symbol, word = _NEEDS.get(name, ("", ""))
        whole = size_of(source, name)
        if symbol and symbol not in source.pattern:
            yield f"shape.{name}: the source has no {word} block; leave it out"
        elif size > whole:
            yield (
                f"shape.{name}: {size} is more than the {whole} of the source; cutting only makes "
                f"smaller; nearest legal {name}: {whole}"
            )


def _group_problems(source: ModelConfig, wanted: dict[str, int]) -> Iterator[str]:
    """Rules of heads in groups: as many in each, none larger than before."""
    if source.heads:
        heads, kv_heads = wanted["heads"], wanted["kv_heads"]
        group = source.heads // source.kv_heads
        if heads % kv_heads or heads // kv_heads > group:
            near = _multiples_near(kv_heads, group, heads)
            yield (
                f"shape.heads: {heads} heads cannot be spread over {kv_heads} groups of at most "
                f"{group} each, the same number in each; nearest legal heads: {near}"
            )
    if source.mamba is not None:
        heads, groups = wanted["mamba_heads"], source.mamba.groups
        if heads % groups:
            near = _multiples_near(groups, source.mamba.heads // groups, heads)
            yield (
                f"shape.mamba_heads: {heads} heads cannot be spread over {groups} groups, the same "
                f"number in each; nearest legal mamba_heads: {near}"
            )


def _multiples_near(step: int, most: int, value: int) -> str:
    legal = [step * each for each in range(1, most + 1)]
    near = sorted(sorted(legal, key=lambda size: abs(size - value))[:2])
    return " or ".join(map(str, near))


def _provisional(source: ModelConfig, count: int, depth: DepthConfig) -> Indices:
    """Layers that stay of one possible removal: of those nearest to the middle."""
    last = len(layer_blocks(source)) - 1
    return kept_layers(
        source, count, lambda runs: [float(abs(run[0] + run[-1] - last)) for run in runs], depth
    )


def _nearest(
    source: ModelConfig, given: dict[str, int], wanted: dict[str, int], layers: Indices
) -> list[str]:
    """For each axis, its nearest sizes that the family holds, all others being as wanted."""
    adapter = ADAPTERS.get(source.layout)

    def legal(axis: str, size: int) -> bool:
        tried = _complete(source, {**given, axis: size})
        if any(_group_problems(source, tried)):
            return False
        try:
            return not adapter.check(resized(source, tried, layers))
        except ValidationError:
            return False

    found = []
    for axis in (*AXES[1:], *MAMBA):
        whole = size_of(source, axis)
        if not whole or (axis == "kv_heads" and source.heads == source.kv_heads):
            continue
        at = wanted[axis]
        below = (n for n in range(at - 1, max(0, at - _SEARCHED), -1) if legal(axis, n))
        above = (n for n in range(at + 1, min(whole, at + _SEARCHED) + 1) if legal(axis, n))
        sizes = [n for n in (next(below, None), next(above, None)) if n is not None]
        if sizes:
            found.append(f"shape.{axis} {' or '.join(map(str, sizes))}")
    if not found:
        return ["no other size of one axis alone makes it legal; change two of them"]
    return [f"nearest legal sizes, each by itself: {'; '.join(found)}"]


def check_merge(source: ModelConfig, target: ModelConfig) -> list[str]:
    """Why heads cannot take up what others knew: fewer than half of a group would stay."""
    if not source.heads or not target.heads:
        return []
    group, kept = source.heads // source.kv_heads, target.heads // target.kv_heads
    if group == 1:  # the heads are one group then
        group, kept = source.heads, target.heads
    if 2 * kept >= group:
        return []
    least = -(-group // 2) * (target.kv_heads if group != source.heads else 1)
    return [
        f"head_merge: {kept} of {group} heads of a group stay, fewer than half, so some that go "
        f"have no partner; nearest legal shape.heads: {least}, or use head_merge none"
    ]


def shape_of(config: ModelConfig) -> dict[str, int]:
    """The sizes that cutting can change, and the ones that go with them."""
    sizes = {name: getattr(config, name) for name in (*AXES, "head_dim", "vocab_size")}
    return sizes | {name: size_of(config, name) for name in MAMBA if config.mamba is not None}
