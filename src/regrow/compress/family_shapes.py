"""Which shapes of a budget are tried: a few that differ, of all that there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrow.compress.family_config import ChildConfig
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import Candidates, within
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
class ShortList:
    """What is tried for one child.

    Args:
        counted: legal shapes within the budget.
        shapes: those that are tried, the most even one first.
    """

    counted: int
    shapes: tuple[ModelConfig, ...]


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


def short_list(
    name: str, child: ChildConfig, source: ModelConfig, original: ModelConfig, count: int
) -> ShortList:
    """The candidates of one child.

    Args:
        name: the child's, for messages.
        child: its budget or shape.
        source: shape of what is cut.
        original: shape of the model that shares are of.
        count: how many at most.

    Raises:
        ConfigError: no shape fits, or the given one is impossible.
    """
    try:
        if child.shape is not None:
            return ShortList(1, (target_config(source, child.shape),))
        assert child.budget is not None  # the config has one of the two
        found = within(source, absolute(child.budget, original))
    except ConfigError as error:
        lines = error.problems or (error.message,)
        raise ConfigError(
            f"children.{name}: {error.message}" if error.problems else "a child is impossible",
            [f"children.{name}.{line}" if not error.problems else line for line in lines],
        ) from error
    rows = spread(found, count)
    return ShortList(len(found), tuple(found.config(source, int(row)) for row in rows))


def spread(found: Candidates, count: int) -> npt.NDArray[np.intp]:
    """Rows of a few shapes that differ from each other, in the order of ``found``.

    The more even half is divided into as many strata, by the logarithms of the sizes: centres are
    the most even shape and then, again and again, the one that is farthest from all centres; each
    shape belongs to its nearest centre. Each stratum gives its most even shape.

    Args:
        found: as :func:`regrow.compress.shape_search.within` orders them, the most even first.
        count: how many at most.

    Source: farthest-first traversal (Gonzalez 1985).
    """
    pool = min(len(found), max(_POOL * count, (len(found) + 1) // 2))
    names = [name for name in type(found).__slots__ if name in _LETTERS]
    sizes = np.stack([getattr(found, name)[:pool] for name in names], axis=1)
    places = np.log(np.maximum(sizes, 1))
    nearest = np.full(pool, np.inf)
    stratum = np.zeros(pool, dtype=np.intp)
    centre = 0
    for number in range(min(count, pool)):
        distance = np.linalg.norm(places - places[centre], axis=1)
        closer = distance < nearest
        stratum[closer], nearest[closer] = number, distance[closer]
        centre = int(nearest.argmax())
    _, first = np.unique(stratum, return_index=True)
    return np.sort(first)
