"""Which layers go.

A removal is a run of neighbouring layers, or one layer; what it costs is measured elsewhere (block
influence in :mod:`regrow.compress.ranking`, loss and accuracy in :mod:`regrow.compress.sweep`).
Here is what may go, and what goes. No torch here.

Source: Minitron (arXiv 2407.14679), section 2.3; runs of neighbours: arXiv 2408.11796, figure 8.
"""

from __future__ import annotations

from collections.abc import Callable

from regrow.compress.depth_config import DepthConfig
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig

Indices = tuple[int, ...]

#: From removals to what each costs: the less, the rather it is made.
Damage = Callable[[list[Indices]], list[float]]


def layer_blocks(config: ModelConfig) -> list[Indices]:
    """The blocks of each layer: attention and MLP of a transformer, else one block a layer."""
    if config.is_transformer:
        return [(2 * layer, 2 * layer + 1) for layer in range(config.layers)]
    return [(block,) for block in range(len(config.pattern))]


def without(source: ModelConfig, gone: set[int] | Indices) -> ModelConfig:
    """The shape without some layers, all else as it was."""
    groups = layer_blocks(source)
    pattern = "".join(
        source.pattern[block]
        for layer, blocks in enumerate(groups)
        if layer not in gone
        for block in blocks
    )
    if not pattern:
        raise ValueError("no layer would stay")
    pairs = pattern == "*-" * (len(pattern) // 2)
    return source.replace(pattern=pattern, layers=len(pattern) // (2 if pairs else 1))


def _legal(source: ModelConfig, gone: set[int]) -> bool:
    """Whether the family can do without some layers; only rules on the pattern can forbid it."""
    if len(gone) >= len(layer_blocks(source)):
        return False
    adapter = ADAPTERS.get(source.layout)
    known = set(adapter.check(source))
    return not set(adapter.check(without(source, gone))) - known


def removals(source: ModelConfig, count: int, depth: DepthConfig) -> list[Indices]:
    """What may go so that ``count`` layers stay: runs of neighbours, or single layers.

    The first and the last layer stay unless ``depth.allow_ends``, and so does what the family
    cannot do without: NemotronH needs an attention block.
    """
    layers = len(layer_blocks(source))
    dropped = layers - count
    if dropped < 1 or count < 1:
        return []
    first, last = (0, layers) if depth.allow_ends else (1, layers - 1)
    length = dropped if depth.rule == "contiguous" else 1
    runs = [tuple(range(at, at + length)) for at in range(first, last - length + 1)]
    if depth.rule == "independent" and len(runs) < dropped:
        return []
    return [run for run in runs if _legal(source, set(run))]


def depth_problems(source: ModelConfig, count: int, depth: DepthConfig) -> list[str]:
    """What keeps ``count`` layers from being left; each with the nearest that can be."""
    layers = len(layer_blocks(source))
    if count >= layers or _possible(source, count, depth):
        return []
    legal = [n for n in range(1, layers + 1) if n == layers or _possible(source, n, depth)]
    near = sorted(sorted(legal, key=lambda n: (abs(n - count), n))[:2])
    ends = "" if depth.allow_ends else ", since the first and the last always do (depth.allow_ends)"
    needs = "" if source.is_transformer else f" or {source.layout} needs a block that would go"
    return [
        f"shape.layers: {count} of {layers} layers cannot stay with rule {depth.rule}{ends}{needs};"
        f" nearest legal layers: {' or '.join(map(str, near))}"
    ]


def _possible(source: ModelConfig, count: int, depth: DepthConfig) -> bool:
    runs = removals(source, count, depth)
    if depth.rule == "contiguous" or not runs:
        return bool(runs)
    return len(_one_by_one(source, runs, len(layer_blocks(source)) - count)) > 0


def kept_layers(source: ModelConfig, count: int, damage: Damage, depth: DepthConfig) -> Indices:
    """Which ``count`` layers stay.

    Args:
        source: shape of the model.
        count: layers that stay; blocks where the stack is not attention+MLP pairs.
        damage: what each removal costs; called once.
        depth: the rules.

    Raises:
        ConfigError: so few cannot stay.
    """
    layers = len(layer_blocks(source))
    if count == layers:
        return tuple(range(layers))
    problems = depth_problems(source, count, depth)
    if problems:
        raise ConfigError("the model cannot lose so many layers", problems)
    runs = removals(source, count, depth)
    costs = damage(runs)
    order = sorted(range(len(runs)), key=lambda index: costs[index])  # of equal ones the first
    ranked = [runs[index] for index in order]
    if depth.rule == "contiguous":
        gone = set(ranked[0])
    else:
        gone = _one_by_one(source, ranked, layers - count)
    return tuple(layer for layer in range(layers) if layer not in gone)


def _one_by_one(source: ModelConfig, ranked: list[Indices], count: int) -> set[int]:
    """The first ``count`` single layers that the family can do without together; none if fewer."""
    gone: set[int] = set()
    for (layer,) in ranked:
        if len(gone) < count and _legal(source, gone | {layer}):
            gone.add(layer)
    return gone if len(gone) == count else set()
