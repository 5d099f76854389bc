"""What the recall tasks share: prompts that fill a length, answers of digits, their scores."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from regrow.core.errors import ConfigError
from regrow.core.seed import derive
from regrow.eval.task import Completion, Item, Metrics, Response, Task, TaskSettings


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt with its answer.

    Args:
        prompt: ends where the answer begins; the space in front of that belongs to the answer.
        answer: digits, perhaps with single spaces in between.
        extra: what the per-sample file shows of it.
    """

    prompt: str
    answer: str
    extra: dict[str, Any] = field(default_factory=dict)


class RecallTask(Task):
    """A task whose prompts are drawn, as long as asked, and answered by digits.

    A prompt with its answer takes at most ``length`` tokens, and would take more with one unit
    (line, pair, sentence) more. Item k of a length is a function of (seed, length, k) and of the
    tokenizer.
    """

    metric = "exact_match"
    least: ClassVar[int] = 1
    """Units that a prompt has at least."""

    @abstractmethod
    def question(self, units: int, generator: np.random.Generator) -> Question:
        """A prompt of ``units`` units.

        Raises:
            ConfigError: more units than there are distinct keys.
        """

    def items(self, settings: TaskSettings) -> list[Item]:
        """``settings.samples`` completions of each length, grouped by it.

        Raises:
            ConfigError: a length that is too short for the smallest prompt, or for which there
                are too few distinct keys.
        """
        return [
            self._item(length, index, settings)
            for length in settings.lengths
            for index in range(settings.samples)
        ]

    def _item(self, length: int, index: int, settings: TaskSettings) -> Item:
        stream = derive(settings.seed, self.name, length, index)

        def made(units: int) -> Question:
            return self.question(units, np.random.default_rng(stream))

        def tokens(units: int) -> int:
            question = made(units)
            return settings.count_tokens(f"{question.prompt} {question.answer}")

        smallest = tokens(self.least)
        if smallest > length:
            raise ConfigError(
                f"lengths: {length} tokens are too few for task {self.name}, whose smallest "
                f"prompt takes {smallest}"
            )
        units, size = largest(tokens, length, self.least, smallest)
        question = made(units)
        return Completion(
            id=f"{length}-{index}",
            group=str(length),
            extra={"units": units, "tokens": size, "answer": question.answer, **question.extra},
            prompt=question.prompt,
            references=(question.answer,),
            # No token is empty, so no answer needs more of them than it has bytes.
            max_new_tokens=len(question.answer.encode()) + 1,
            stop=("\n",),
        )

    def metrics(self, item: Completion, response: Response) -> Metrics:
        """``exact_match``, ``digit_accuracy`` and the ``tokens`` of the prompt with its answer."""
        exact, share = digit_scores(self.read(response.text), self.read(item.references[0]))
        return {
            "exact_match": exact,
            "digit_accuracy": share,
            "tokens": float(item.extra["tokens"]),
        }

    def read(self, text: str) -> str:
        """The digits that a text answers with: its first number."""
        found = re.search(r"[0-9]+", text)
        return found.group() if found else ""


def digit_scores(found: str, answer: str) -> tuple[float, float]:
    """Whether two strings of digits are equal, and the share of equal digits, place by place.

    Where one is longer, the digits without a counterpart count as wrong.
    """
    right = sum(a == b for a, b in zip(found, answer, strict=False))
    return float(found == answer), right / max(len(found), len(answer), 1)


def largest(
    tokens: Callable[[int], int], length: int, least: int, smallest: int
) -> tuple[int, int]:
    """The number of units that fills ``length`` tokens, and the tokens that it takes.

    Tokens are about proportional to units, so the search interpolates; it falls back to halving.

    Args:
        tokens: of a prompt of so many units.
        length: tokens at most.
        least: units that fit.
        smallest: tokens that they take.

    Returns:
        (units, tokens): so many fit, and one unit more does not.
    """
    low, low_tokens = least, smallest
    high: int | None = None
    slope = max(1.0, smallest / least)
    step = 0
    while high is None or high - low > 1:
        guess = low + max(1, int((length - low_tokens) / slope) + (high is None))
        if high is not None:
            guess = (low + high) // 2 if step > 4 else min(guess, high - 1)
        size = tokens(guess)
        slope = max((size - smallest) / (guess - least), 1e-3)
        if size <= length:
            low, low_tokens = guess, size
        else:
            high = guess
        step += 1
    return low, low_tokens
