"""Which shapes a model can be cut to, and what to say about those that it cannot."""

from __future__ import annotations

from pydantic import ValidationError

from regrow.compress.prune_config import ShapeTarget
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig

AXES = ("layers", "hidden_size", "intermediate_size", "heads", "kv_heads")


def target_config(source: ModelConfig, target: ShapeTarget) -> ModelConfig:
    """The config of ``source`` cut to ``target``; what is not given stays.

    Giving ``kv_heads`` alone takes whole groups of query heads away. Where every query head has a
    key/value head of its own, giving ``heads`` alone takes both.

    Raises:
        ConfigError: every rule that is broken, with the nearest legal values.
    """
    wanted = {name: getattr(target, name) or getattr(source, name) for name in AXES}
    group = source.heads // max(1, source.kv_heads)
    if target.heads is None and target.kv_heads is not None:
        wanted["heads"] = target.kv_heads * group
    if target.kv_heads is None and group == 1:
        wanted["kv_heads"] = wanted["heads"]
    problems = [
        f"shape.{name}: {value} is more than the {getattr(source, name)} of the source; "
        "cutting only makes smaller"
        for name, value in wanted.items()
        if value > getattr(source, name)
    ]
    if problems:
        raise ConfigError("the model cannot be cut to this shape", problems)
    problems = _head_problems(source, wanted["heads"], wanted["kv_heads"])
    if wanted["layers"] != source.layers:
        if not source.is_transformer:
            problems.append("shape.layers: only stacks of attention+MLP pairs can lose layers")
        elif wanted["layers"] < 2:
            problems.append(
                f"shape.layers: {wanted['layers']} of {source.layers} cannot stay, since the first "
                "and the last always do; use 2 or more"
            )
    if problems:
        raise ConfigError("the model cannot be cut to this shape", problems)
    changes = {name: value for name, value in wanted.items() if value != getattr(source, name)}
    try:
        config = source.replace(**changes) if changes else source
    except ValidationError as error:
        messages = [e["msg"].removeprefix("Value error, ") for e in error.errors()]
        raise ConfigError("the model cannot be cut to this shape", messages) from None
    broken = ADAPTERS.get(config.layout).check(config)
    if broken:
        raise ConfigError(f"no stock {config.layout} class can hold this shape", broken)
    return config


def _head_problems(source: ModelConfig, heads: int, kv_heads: int) -> list[str]:
    """Rules of grouped-query attention: as many query heads in each group, none larger."""
    if not source.heads:
        return []
    group = source.heads // source.kv_heads
    if heads % kv_heads == 0 and heads // kv_heads <= group:
        return []
    legal = [kv_heads * each for each in range(1, group + 1)]
    near = sorted(sorted(legal, key=lambda value: abs(value - heads))[:2])
    return [
        f"shape.heads: {heads} heads cannot be spread over {kv_heads} groups of at most {group} "
        f"each, the same number in each; nearest legal heads: {' or '.join(map(str, near))}"
    ]


def shape_of(config: ModelConfig) -> dict[str, int]:
    """The sizes that cutting can change, and the ones that go with them."""
    return {name: getattr(config, name) for name in (*AXES, "head_dim", "vocab_size")}
