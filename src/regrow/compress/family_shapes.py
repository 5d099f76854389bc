"""Which shapes of a budget are tried: a few that differ, of all that there are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.compress.budgets import memory_bytes, sequence_of
from regrow.compress.family_config import ChildConfig
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import Candidates, config_of, within
from regrow.compress.shapes import shape_of, target_config
from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig
from regrow.model.shapes import non_embedding_parameters, parameters

_LETTERS = {
    "layers": "L",
    "hidden_size": "d",
    "intermediate_size": "f",
    "heads": "h",
    "kv_heads": "kv",
    "mamba_heads": "m",
    "mamba_head_dim": "md",
}
_FIXED = ("head_dim", "vocab_size")
#: The short list is drawn from the more even half of the shapes, but from so many a place at least.
_POOL = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """One shape that is tried.

    Args:
        shape: the shape.
        memory_bytes: at the sequence, batch and dtype of the child's budget.
        latency_ms: measured on this machine; None where nobody asked.
    """

    shape: ModelConfig
    memory_bytes: int
    latency_ms: float | None = None

    @property
    def name(self) -> str:
        """A short name, unique among those of one source."""
        return shape_name(self.shape)

    def figures(self) -> dict[str, Any]:
        """What the shape takes, by name; a latency only where it is known."""
        return {
            "parameters": parameters(self.shape),
            "non_embedding_parameters": non_embedding_parameters(self.shape),
            "memory_bytes": self.memory_bytes,
            **({"latency_ms": self.latency_ms} if self.latency_ms is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class ShortList:
    """What is tried for one child.

    Args:
        counted: legal shapes within the budget.
        entries: those that are tried, the most even one first.
    """

    counted: int
    entries: tuple[Listed, ...]

    @property
    def shapes(self) -> tuple[ModelConfig, ...]:
        """The shapes alone."""
        return tuple(entry.shape for entry in self.entries)

    def as_decision(self) -> str:
        """The list as it is kept in the run folder: measured latencies differ between attempts."""
        entries = [
            {
                "shape": sizes_of(entry.shape),
                "memory_bytes": entry.memory_bytes,
                "latency_ms": entry.latency_ms,
            }
            for entry in self.entries
        ]
        return json.dumps({"counted": self.counted, "entries": entries})

    @classmethod
    def from_decision(cls, text: str, source: ModelConfig) -> ShortList:
        """The inverse of :meth:`as_decision`.

        Args:
            text: the decision.
            source: shape of what is cut.
        """
        told = json.loads(text)
        entries = [
            Listed(config_of(source, e["shape"]), e["memory_bytes"], e["latency_ms"])
            for e in told["entries"]
        ]
        return cls(told["counted"], tuple(entries))


def sizes_of(config: ModelConfig) -> dict[str, int]:
    """The sizes that cutting can change, without those that the model has no block for."""
    return {k: v for k, v in shape_of(config).items() if k not in _FIXED and v}


def shape_name(config: ModelConfig) -> str:
    """A short name for a shape, unique among those of one source: ``L4-d96-f224-h4-kv2``."""
    return "-".join(f"{_LETTERS.get(k, k)}{v}" for k, v in sizes_of(config).items())


def absolute(budget: BudgetTarget, original: ModelConfig) -> BudgetTarget:
    """The budget with shares of the original model turned into numbers of parameters."""
    wholes = {
        "parameters": parameters(original),
        "non_embedding_parameters": non_embedding_parameters(original),
    }
    shares = {name: getattr(budget, name) for name in wholes}
    numbers = {
        name: float(round(share * wholes[name]))
        for name, share in shares.items()
        if share is not None and share <= 1
    }
    return budget.model_copy(update=numbers)


def conditions_of(child: ChildConfig) -> BudgetTarget:
    """What memory and latency are counted at."""
    return child.budget or BudgetTarget(parameters=1.0)


def conditions(child: ChildConfig, source: ModelConfig) -> dict[str, Any]:
    """The same as figures of a result: ``latency`` (of what), ``sequence, batch, dtype``."""
    of = conditions_of(child)
    return {
        "latency": of.latency,
        "sequence": sequence_of(source, of),
        "batch": of.batch,
        "dtype": of.dtype,
    }


def short_list(
    name: str,
    child: ChildConfig,
    source: ModelConfig,
    original: ModelConfig,
    count: int,
    latency: bool = False,
) -> ShortList:
    """The candidates of one child.

    Args:
        name: the child's, for messages.
        child: its budget or shape.
        source: shape of what is cut.
        original: shape of the model that shares are of.
        count: how many at most.
        latency: whether to time those that no budget has timed.

    Raises:
        ConfigError: no shape fits, or the given one is impossible.
    """
    try:
        counted, shapes, times = _chosen(child, source, original, count)
        of = conditions_of(child)
        if latency and not times:
            from regrow.compress.latency import table_of

            table = table_of(source, of)
            times = [table.total_ms(shape) for shape in shapes]
        entries = [
            Listed(shape, memory_bytes(shape, of), round(times[n], 4) if times else None)
            for n, shape in enumerate(shapes)
        ]
    except ConfigError as error:
        first, *_ = error.message.partition(":")
        if not error.problems or first.startswith("budget."):
            lines = [f"children.{name}.{error.message}", *error.problems]
        else:
            lines = [f"children.{name}.{line}" for line in error.problems]
        raise ConfigError(f"child {name} cannot be made", lines) from error
    return ShortList(counted, tuple(entries))


def _chosen(
    child: ChildConfig, source: ModelConfig, original: ModelConfig, count: int
) -> tuple[int, list[ModelConfig], list[float]]:
    """Shapes counted, those to try, and their latencies where the budget measured them."""
    if child.shape is not None:
        return 1, [target_config(source, child.shape)], []
    assert child.budget is not None  # the config has one of the two
    found = within(source, absolute(child.budget, original))
    rows = spread(found, count)
    shapes = [found.config(source, int(row)) for row in rows]
    times = found.latency_ms[rows]
    return len(found), shapes, [] if np.isnan(times).any() else [float(ms) for ms in times]


def spread(found: Candidates, count: int) -> npt.NDArray[np.intp]:
    """Rows of a few shapes that differ from each other, in the order of ``found``.

    Of the more even half the most even ones are taken, but none that is closer to one before it
    than half a radius, by the logarithms of the sizes: the radius within which a farthest-first
    traversal covers the half with as many shapes. That many are always found, and no list has its
    closest two more than four times as far apart.

    Args:
        found: as :func:`regrow.compress.shape_search.within` orders them, the most even first.
        count: how many at most.

    Source: farthest-first traversal (Gonzalez 1985).
    """
    pool = min(len(found), max(_POOL * count, (len(found) + 1) // 2))
    sizes = np.stack([getattr(found, name)[:pool] for name in _LETTERS], axis=1)
    places = np.log(np.maximum(sizes, 1))
    # Farthest-first: each next centre is as far from all centres as any shape is.
    nearest = np.linalg.norm(places - places[0], axis=1)
    radius = np.inf
    for _ in range(min(count, pool) - 1):
        centre = int(nearest.argmax())
        radius = float(nearest[centre])
        nearest = np.minimum(nearest, np.linalg.norm(places - places[centre], axis=1))
    taken = [0]
    closest = np.linalg.norm(places - places[0], axis=1)
    for row in range(1, pool):
        if len(taken) < count and closest[row] >= radius / 2:
            taken.append(row)
            closest = np.minimum(closest, np.linalg.norm(places - places[row], axis=1))
    return np.array(taken, dtype=np.intp)
