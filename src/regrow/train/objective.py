"""The seam between the loop and what is learnt: a loss sum, its weight, and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

#: A sum over targets: on its device, or already a number.
Sum: TypeAlias = Tensor | float


class Loss(NamedTuple):
    """What an objective makes of a micro-batch."""

    sum: Tensor
    """Scalar, differentiable: summed over the micro-batch's targets, never averaged."""
    weight: Sum
    """How many targets were summed; the loop divides by the total over the global batch."""
    metrics: Mapping[str, Sum] = {}
    """Further sums over the same targets; logged divided by the weight."""


class Objective(Protocol):
    """Something to minimise; see :mod:`regrow.train` for how to add one."""

    def loss(self, batch: Any) -> Loss:
        """The loss sum over one micro-batch."""

    def trainable(self) -> nn.Module:
        """The module that is trained and saved."""


@runtime_checkable
class OwnsBackward(Protocol):
    """An objective that runs its own backward passes over a whole global batch."""

    def step(self, batch: Any) -> Loss:
        """Leave the gradient of the sum in the parameters; return detached figures."""


class Loader(Protocol):
    """Where batches come from: sample k is a pure function of k, so a position is one integer."""

    def batch(self, first: int, count: int) -> Any:
        """Samples ``first`` to ``first + count`` as one (named tuple of) tensors."""

    def ledger(self, samples: int) -> dict[str, dict[str, float]]:
        """What the first ``samples`` samples took from each source: tokens and epochs."""
