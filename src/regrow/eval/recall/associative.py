"""Multi-query associative recall: pairs of a key and a value, then the keys again.

Source: the task of Zoology (arXiv 2312.04927), in the dense form of section 6 of our notes on
Mamba-2-Hybrid (arXiv 2406.07887): every key is asked for, nothing stands between the pairs.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrow.core.errors import ConfigError
from regrow.eval.recall.recall_task import Question, RecallTask
from regrow.eval.recall.sequences import Ids, TokenSequences


@dataclass(frozen=True, slots=True)
class AssociativeRecall(TokenSequences):
    """``k1 v1 ... kn vn``, then all keys in random order, each followed by its value.

    Keys are ids 0 to ``keys - 1``, values the ids behind them. The keys of a sequence are distinct;
    values are drawn independently, so an answer that does not look is right in 1 of ``values``.

    Args:
        pairs: n.
        keys: distinct keys in all.
        values: distinct values in all.

    Raises:
        ConfigError: more pairs than keys, or a number that is not positive.
    """

    pairs: int
    keys: int = 20
    values: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.keys:
            raise ConfigError(f"pairs {self.pairs} must lie between 1 and keys {self.keys}")
        if self.values < 1:
            raise ConfigError(f"values {self.values} must be at least 1")

    @property
    def vocab_size(self) -> int:
        """Keys and values."""
        return self.keys + self.values

    @property
    def length(self) -> int:
        """All but the last value, which nothing follows."""
        return 4 * self.pairs - 1

    @property
    def num_targets(self) -> int:
        """One value a key."""
        return self.pairs

    @property
    def chance(self) -> float:
        """1 / values."""
        return 1 / self.values

    def draw(self, generator: np.random.Generator) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """The sequence; answers are the values of its second half."""
        n = self.pairs
        keys = generator.permutation(self.keys)[:n]
        values = self.keys + generator.integers(self.values, size=n)
        order = generator.permutation(n)
        ids = np.empty(4 * n, dtype=np.int64)
        ids[0 : 2 * n : 2], ids[1 : 2 * n : 2] = keys, values
        ids[2 * n :: 2], ids[2 * n + 1 :: 2] = keys[order], values[order]
        answers = np.zeros(4 * n, dtype=np.bool_)
        answers[2 * n + 1 :: 2] = True
        return ids, answers


class AssociativeRecallTask(RecallTask):
    """``qd: 31`` line by line, then four keys again; three come with their value.

    Keys are distinct codes of letters; values are two digits and may repeat.
    """

    name = "mqar"
    chance = 0.01
    least = 4
    queries = 4
    code = 3
    """Letters of a key."""

    def question(self, units: int, generator: np.random.Generator) -> Question:
        """``units`` pairs."""
        letters = len(string.ascii_lowercase)
        if units > letters**self.code:
            raise ConfigError(
                f"{units} distinct keys are needed, and there are {letters**self.code}; "
                "lower lengths=[...]"
            )
        codes = generator.permutation(letters**self.code)[:units]
        keys = [_letters(int(code), self.code) for code in codes]
        # Drawn from a stream of their own, so that a longer prompt begins like a shorter one.
        values = [f"{v:02d}" for v in generator.spawn(1)[0].integers(100, size=units)]
        pairs = [f"{key}: {value}" for key, value in zip(keys, values, strict=True)]
        asked = generator.permutation(units)[: self.queries]
        shown = [pairs[i] for i in asked[:-1]]
        last = int(asked[-1])
        prompt = "\n".join([*pairs, "", *shown, f"{keys[last]}:"])
        return Question(prompt, values[last], {"key": keys[last], "position": last})


def _letters(number: int, count: int) -> str:
    """``number`` written with ``count`` letters."""
    written = ""
    for _ in range(count):
        number, digit = divmod(number, len(string.ascii_lowercase))
        written = string.ascii_lowercase[digit] + written
    return written
