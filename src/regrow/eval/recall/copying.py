"""Selective copying: symbols scattered in noise, to be given back in order.

Source: the task of Mamba (arXiv 2312.00752, section 4.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrow.core.errors import ConfigError
from regrow.eval.recall.recall_task import Question, RecallTask
from regrow.eval.recall.sequences import Ids, TokenSequences


@dataclass(frozen=True, slots=True)
class SelectiveCopying(TokenSequences):
    """``data`` symbols at random places among ``noise`` tokens, a mark, then the symbols in order.

    Symbols are ids 0 to ``symbols - 1``, drawn independently; then come noise and the mark.

    Args:
        data: symbols of a sequence.
        noise: noise tokens of a sequence.
        symbols: distinct symbols in all.

    Raises:
        ConfigError: a number out of range.
    """

    data: int = 16
    noise: int = 128
    symbols: int = 16

    def __post_init__(self) -> None:
        if self.data < 1 or self.noise < 0 or self.symbols < 1:
            raise ConfigError(
                f"data {self.data} and symbols {self.symbols} must be at least 1, noise "
                f"{self.noise} at least 0"
            )

    @property
    def vocab_size(self) -> int:
        """Symbols, noise, mark."""
        return self.symbols + 2

    @property
    def length(self) -> int:
        """All but the last symbol, which nothing follows."""
        return self.noise + 2 * self.data

    @property
    def num_targets(self) -> int:
        """The symbols."""
        return self.data

    @property
    def chance(self) -> float:
        """1 / symbols."""
        return 1 / self.symbols

    def draw(self, generator: np.random.Generator) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """The sequence; answers are the symbols behind the mark."""
        scattered = self.data + self.noise
        ids = np.full(scattered + 1 + self.data, self.symbols, dtype=np.int64)
        symbols = generator.integers(self.symbols, size=self.data)
        places = np.sort(generator.permutation(scattered)[: self.data])
        ids[places] = symbols
        ids[scattered] = self.symbols + 1
        ids[scattered + 1 :] = symbols
        answers = np.zeros(ids.shape[0], dtype=np.bool_)
        answers[scattered + 1 :] = True
        return ids, answers


class SelectiveCopyingTask(RecallTask):
    """Sixteen digits among dots, to be written in order behind ``Digits:``; units are dots."""

    name = "selective_copying"
    chance = 1e-16
    data = 16

    def question(self, units: int, generator: np.random.Generator) -> Question:
        """``units`` dots."""
        digits = [str(d) for d in generator.integers(10, size=self.data)]
        body = ["."] * (units + self.data)
        places = np.sort(generator.permutation(len(body))[: self.data])
        for place, digit in zip(places, digits, strict=True):
            body[place] = digit
        return Question(" ".join(body) + "\nDigits:", " ".join(digits))

    def read(self, text: str) -> str:
        """All digits of the first line that has any."""
        lines = (re.sub(r"[^0-9]", "", line) for line in text.split("\n"))
        return next((line for line in lines if line), "")
