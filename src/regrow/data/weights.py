"""How a budget of tokens is spread over buckets.

Each method gives a bucket a preference; the budget is spread in proportion to the preferences, as
far as ``max_epochs`` lets: what a bucket cannot take goes to those that can. UniMax (Chung et al.,
arXiv 2304.09151) is this with equal preferences. Methods after Data, Data Everywhere
(arXiv 2407.06380).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from math import fsum
from typing import Any

from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.data.settings.sample import WeightsConfig

OTHER = "other"
UNKNOWN = "unknown"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_SLACK = 1e-9

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What one bucket gets.

    Args:
        available: tokens that it has.
        tokens: tokens that it gives.
        share: of the blend.
        epochs: how often it is read.
    """

    available: int
    tokens: float
    share: float
    epochs: float

    def as_json(self) -> dict[str, float]:
        """The same as an object."""
        return asdict(self)


def spread(
    available: Mapping[str, int],
    config: WeightsConfig,
    multipliers: Mapping[str, float] | None = None,
) -> dict[str, Share]:
    """The blend.

    Args:
        available: bucket to its tokens.
        config: the method and the budget.
        multipliers: bucket to a factor of its preference, 1 where none is given.

    Returns:
        What each bucket gets, in their order; those that are left out get nothing.

    Raises:
        InputError: no bucket, or one without a token.
        ConfigError: weights of buckets that there are not, or none for one that there is; nothing
            left to read; a budget over what ``max_epochs`` allows.
    """
    if not available:
        raise InputError("there is no bucket to give a weight")
    empty = [name for name, tokens in available.items() if tokens <= 0]
    if empty:
        raise InputError(f"bucket {empty[0]!r} has {available[empty[0]]} tokens; leave it out")
    factors = multipliers or {}
    wanted = {
        name: value * factors.get(name, 1.0)
        for name, value in _preferences(available, config).items()
    }
    read = {name: value for name, value in wanted.items() if value > 0}
    if not read:
        raise ConfigError("weights and multipliers leave out every bucket")
    budget = float(config.total_tokens or sum(available.values()))
    caps = {name: (config.max_epochs or float("inf")) * available[name] for name in read}
    most = fsum(caps.values())
    if budget > most * (1 + _SLACK):
        if not config.allow_short:
            tokens = sum(available[name] for name in read)
            raise ConfigError(
                f"total_tokens: {budget:,.0f} is more than {config.max_epochs:g} times the "
                f"{tokens:,} tokens of the buckets that are read; set it to {most:,.0f} or less, "
                f"max_epochs to {budget / tokens:.3g} or more, or allow_short: true"
            )
        budget = most
    given = filled(read, caps, budget)
    total = fsum(given.values())
    return {
        name: Share(
            tokens,
            given.get(name, 0.0),
            given.get(name, 0.0) / total,
            given.get(name, 0.0) / tokens,
        )
        for name, tokens in available.items()
    }


def filled(
    wanted: Mapping[str, float], caps: Mapping[str, float], budget: float
) -> dict[str, float]:
    """``min(level * wanted, cap)`` of each, at the level where they add up to the budget.

    Args:
        wanted: preferences above 0.
        caps: what each takes at most; together at least the budget.
        budget: what is spread.
    """
    # Those that are full first, at the lowest level: the others share what they leave.
    order = sorted(wanted, key=lambda name: (caps[name] / wanted[name], name))
    rests = list(accumulate(wanted[name] for name in reversed(order)))[::-1]
    given: dict[str, float] = {}
    left = budget
    for place, name in enumerate(order):
        level = left / rests[place]
        if level * wanted[name] < caps[name]:
            return given | {name: level * wanted[name] for name in order[place:]}
        given[name] = caps[name]
        left = max(0.0, left - caps[name])
    return given


def _preferences(available: Mapping[str, int], config: WeightsConfig) -> dict[str, float]:
    if config.method == "manual":
        for name in config.weights:
            if name not in available:
                raise ConfigError(
                    f"weights: no bucket {name!r}{nearest(name, list(available))} "
                    f"(buckets: {', '.join(available)})"
                )
        missing = [name for name in available if name not in config.weights]
        if missing:
            raise ConfigError(
                f"weights: say nothing of {', '.join(missing)}; 0 leaves a bucket out"
            )
        return dict(config.weights)
    if config.method in ("uniform", "unimax"):
        return dict.fromkeys(available, 1.0)
    power = config.alpha if config.method == "alpha" and config.alpha else 1.0
    most = max(available.values())  # of ratios, so that no power overflows
    return {name: (tokens / most) ** power for name, tokens in available.items()}


@dataclass(frozen=True, slots=True)
class Buckets:
    """Which combination of values belongs to which bucket.

    Args:
        of: values of the columns to the bucket.
        tokens: bucket to its tokens, in the order of the names, ``other`` last.
        multipliers: bucket to its factor.
    """

    of: dict[Values, str]
    tokens: dict[str, int]
    multipliers: dict[str, float]


def bucketed(counts: Mapping[Values, int], config: WeightsConfig) -> Buckets:
    """Group values, and merge what is too small into ``other``.

    A merged bucket has the mean of its parts' multipliers, by their tokens.

    Args:
        counts: values of ``config.buckets`` to tokens.
        config: groups, multipliers and the smallest share.

    Raises:
        InputError: a group or a multiplier of a value that no document has; two buckets whose
            names differ only in characters that no file name should have.
    """
    _check_values(counts, config)
    grouped = {values: _grouped(values, config) for values in counts}
    sizes: dict[Values, int] = {}
    for values, group in grouped.items():
        sizes[group] = sizes.get(group, 0) + counts[values]
    total = sum(sizes.values())
    names = {group: _named(group) for group in sizes}
    for group, size in sizes.items():
        if size < config.least_share * total:
            names[group] = OTHER
    _check_names(names)
    tokens: dict[str, int] = {}
    weighted: dict[str, float] = {}
    for values, group in grouped.items():
        name, size = names[group], counts[values]
        tokens[name] = tokens.get(name, 0) + size
        weighted[name] = weighted.get(name, 0.0) + size * _factor(values, group, config)
    order = sorted(tokens, key=lambda name: (name == OTHER, name))
    return Buckets(
        {values: names[group] for values, group in grouped.items()},
        {name: tokens[name] for name in order},
        {name: weighted[name] / tokens[name] for name in order if tokens[name]},
    )


def _grouped(values: Values, config: WeightsConfig) -> Values:
    found = []
    for column, value in zip(config.buckets, values, strict=True):
        groups = config.groups.get(column, {})
        found.append(next((name for name, members in groups.items() if value in members), value))
    return tuple(found)


def _factor(values: Values, group: Values, config: WeightsConfig) -> float:
    """A multiplier may be of a group or of a value in it."""
    factor = 1.0
    for column, value, name in zip(config.buckets, values, group, strict=True):
        known = config.multipliers.get(column, {})
        factor *= known.get(value, known.get(name, 1.0))
    return factor


def _named(group: Values) -> str:
    return "_".join(_UNSAFE.sub("-", value).strip("-") or UNKNOWN for value in group)


def _check_names(names: Mapping[Values, str]) -> None:
    seen: dict[str, Values] = {}
    for group, name in names.items():
        if name != OTHER and seen.setdefault(name, group) != group:
            both = " and ".join(repr(", ".join(one)) for one in (seen[name], group))
            raise InputError(f"buckets: {both} would both be called {name!r}; rename one by groups")


def _check_values(counts: Mapping[Values, int], config: WeightsConfig) -> None:
    for place, column in enumerate(config.buckets):
        there = sorted({values[place] for values in counts})
        groups = config.groups.get(column, {})
        asked = [(f"groups.{column}.{name}", m) for name, ms in groups.items() for m in ms]
        known = [*there, *groups]
        for where, value in asked:
            _require(value, there, where, column)
        for value in config.multipliers.get(column, {}):
            _require(value, known, f"multipliers.{column}", column)


def _require(value: str, known: Sequence[str], where: str, column: str) -> None:
    if value not in known:
        raise InputError(
            f"{where}: no document has {value!r} as its {column}{nearest(value, list(known))} "
            f"(there are: {', '.join(known)})"
        )


def table(shares: Mapping[str, Share]) -> dict[str, Any]:
    """The blend as an object: ``total_tokens`` and ``buckets``."""
    return {
        "total_tokens": fsum(share.tokens for share in shares.values()),
        "buckets": {name: share.as_json() for name, share in shares.items()},
    }
