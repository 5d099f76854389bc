"""Token sequences with known answers, for models without a tokenizer.

Legend: B batch, T time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regrow.core.seed import derive

#: Target that marks "nothing counts here", as in torch.
IGNORED = -100

Ids = npt.NDArray[np.int64]


class SequenceBatch(NamedTuple):
    """Inputs with what should follow them.

    Attributes:
        tokens: (B, T) int64 ids.
        targets: (B, T) int64; what follows each token, :data:`IGNORED` where it does not count.
    """

    tokens: Ids
    targets: Ids


@dataclass(frozen=True, slots=True)
class TokenSequences(ABC):
    """A family of sequences of one length; sample k is a function of (seed, k) and nothing else."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""

    @property
    @abstractmethod
    def length(self) -> int:
        """T."""

    @property
    @abstractmethod
    def num_targets(self) -> int:
        """Targets of one sequence."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy over the targets of the best answers that do not read the sequence."""

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """A whole sequence, (T + 1,), and which of its tokens are answers."""

    def batch(self, seed: int, first: int, count: int) -> SequenceBatch:
        """Samples ``first`` to ``first + count``.

        Args:
            seed: of the whole stream.
            first: number of the first sample, 0 or more.
            count: B.
        """
        tokens = np.empty((count, self.length), dtype=np.int64)
        targets = np.empty_like(tokens)
        for row in range(count):
            stream = derive(seed, type(self).__name__, first + row)
            ids, answers = self.draw(np.random.default_rng(stream))
            tokens[row] = ids[:-1]
            targets[row] = np.where(answers[1:], ids[1:], IGNORED)
        return SequenceBatch(tokens, targets)
