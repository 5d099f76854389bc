"""What a task is: items that a model is asked, and figures made of what it answers.

Four kinds of item exist. A :class:`Choice` is answered by the log-likelihoods of its options, a
:class:`Cloze` by that of its target, a :class:`Passage` by that of a whole text, a
:class:`Completion` by greedily made text. A :class:`Task` makes items and scores answers; it knows
no model, and :mod:`regrow.eval.harness` no task. Nothing here needs torch.

To add a task: a subclass in a file of its own, and its line in a registry
(:data:`regrow.eval.tasks.TASKS`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from regrow.core.errors import ConfigError

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question.

    Args:
        id: unique within its task, the same in every run.
        group: what it is counted under besides the whole (a subject, a language, a length).
        extra: whatever the per-sample file should show of it; of JSON types.
    """

    id: str
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Item):
    """Which of several (context, continuation) pairs is most likely.

    Args:
        options: the pairs; contexts may differ (WinoGrande) or be one. The space between the two
            belongs to the continuation.
        answer: index of the right one.
        unconditional: a context that says nothing of the question, such as ``"Answer:"``; with it
            options are also compared by how much the question raises their likelihood.
    """

    options: tuple[tuple[str, str], ...]
    answer: int
    unconditional: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloze(Item):
    """How likely ``target`` is after ``context``, and whether greedy decoding would make it."""

    context: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage(Item):
    """How likely a whole text is, from its first byte."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Item):
    """What greedy decoding writes after ``prompt``.

    Args:
        prompt: the text.
        references: right answers; which match counts is the task's matter.
        max_new_tokens: at most so many tokens are made.
        stop: the text is cut before the first of these.
        keep_prompt: where both do not fit into a model's positions, fewer tokens are made; without
            it the prompt is cut from the left.
    """

    prompt: str
    references: tuple[str, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    keep_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Score:
    """A continuation under a model.

    Args:
        log_likelihood: sum over its tokens, in nats.
        greedy: whether each token is the most likely one.
        tokens: of the continuation.
        size: its bytes of UTF-8.
    """

    log_likelihood: float
    greedy: bool
    tokens: int
    size: int


@dataclass(frozen=True, slots=True)
class Response:
    """What a model gave for an item.

    Args:
        scores: of each option of a :class:`Choice`; one of a :class:`Cloze` or :class:`Passage`.
        unconditional: of each continuation after the unconditional context, where there is one.
        text: of a :class:`Completion`, without its prompt, cut before the first stop.
    """

    scores: tuple[Score, ...] = ()
    unconditional: tuple[Score, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """How much of a task is asked, and from where.

    Args:
        data: the data folder; None is right for tasks that make their items.
        shots: solved examples in front of each question; None: as many as the task has by default.
        limit: items at most, evenly spaced over all; None: all.
        seed: of everything that a task draws.
        lengths: of generated tasks: tokens of a prompt, one group of items each.
        samples: of generated tasks: items a length.
        count_tokens: tokens of a text under the model's tokenizer.
    """

    data: Path | None = None
    shots: int | None = None
    limit: int | None = None
    seed: int = 0
    lengths: tuple[int, ...] = (256, 512)
    samples: int = 64
    count_tokens: Callable[[str], int] = lambda text: len(text.encode())


class Task(ABC):
    """A set of items with its figures; one instance a run, made without arguments."""

    name: ClassVar[str]
    """As in ``tasks=[...]``."""
    metric: ClassVar[str]
    """The headline among the metrics."""
    higher_is_better: ClassVar[bool] = True
    chance: ClassVar[float | None] = None
    """The headline of guessing; None where that has no meaning."""
    size: ClassVar[int | None] = None
    """Items of the whole public set; None for tasks that make their items."""
    files: ClassVar[str] = ""
    """Where its files lie under the data folder; empty for tasks that make their items."""
    shots: ClassVar[int] = 0
    """Solved examples by default."""
    max_shots: ClassVar[int] = 0
    """Solved examples at most; 0 where the task has none to give."""

    @abstractmethod
    def items(self, settings: TaskSettings) -> list[Item]:
        """Every item, in an order that does not change.

        Raises:
            InputError: files that are missing, or not the public set.
        """

    @abstractmethod
    def metrics(self, item: Any, response: Response) -> Metrics:
        """Figures of one answer; the same keys for every item."""

    def aggregate(self, items: Sequence[Item], figures: Sequence[Metrics]) -> dict[str, Any]:
        """Figures of the whole task.

        Returns:
            Each metric's mean, ``n``, ``stderr`` of the headline, and where items have groups
            ``groups``: each one's means and ``n``.
        """
        groups: dict[str, list[Metrics]] = {}
        for item, one in zip(items, figures, strict=True):
            groups.setdefault(item.group, []).append(one)
        whole: dict[str, Any] = self.summarise(figures)
        if set(groups) != {""}:
            whole["groups"] = {name: self.summarise(of) for name, of in groups.items()}
        return whole

    def summarise(self, figures: Sequence[Metrics]) -> dict[str, Any]:
        """Means over some items, with ``n`` and ``stderr`` of the headline (None for one item)."""
        n = len(figures)
        means: dict[str, Any] = {
            name: math.fsum(one[name] for one in figures) / n for name in figures[0]
        }
        centre = means[self.metric]
        squares = math.fsum((one[self.metric] - centre) ** 2 for one in figures)
        stderr = math.sqrt(squares / (n - 1) / n) if n > 1 else None
        return {**means, "n": n, "stderr": stderr}

    def folder(self, settings: TaskSettings) -> Path:
        """Where the task's files are.

        Raises:
            ConfigError: the settings name no data folder.
        """
        if settings.data is None:
            raise ConfigError(
                f"{self.name} reads {self.files} under the data folder, and none is named; "
                "give data=FOLDER or set REGROW_DATA"
            )
        return settings.data / self.files


class ChoiceTask(Task):
    """A task of :class:`Choice` items: the option of the largest score is the answer.

    ``acc`` compares sums of log-likelihoods, ``acc_norm`` sums per byte of the continuation (the
    space in front not counted), ``acc_per_token`` sums per token, ``acc_pmi`` (where there is an
    unconditional context) what the question adds to the sum.
    """

    metric = "acc_norm"

    def metrics(self, item: Choice, response: Response) -> Metrics:
        sums = [score.log_likelihood for score in response.scores]
        tokens = [max(1, score.tokens) for score in response.scores]
        sizes = [max(1, len(text.lstrip().encode())) for _, text in item.options]
        figures = {
            "acc": _right(item, sums),
            "acc_norm": _right(item, [s / n for s, n in zip(sums, sizes, strict=True)]),
            "acc_per_token": _right(item, [s / n for s, n in zip(sums, tokens, strict=True)]),
        }
        if item.unconditional is not None:
            base = [score.log_likelihood for score in response.unconditional]
            figures["acc_pmi"] = _right(item, [s - b for s, b in zip(sums, base, strict=True)])
        return figures


def _right(item: Choice, scores: Sequence[float]) -> float:
    """1 where the answer has the largest score; of equal ones the first counts."""
    return float(max(range(len(scores)), key=lambda i: scores[i]) == item.answer)


class PassageTask(Task):
    """A task of :class:`Passage` items: ``bits_per_byte``, and ``loss`` in nats per token.

    Both are ratios of sums, so a long text counts more than a short one.
    """

    metric = "bits_per_byte"
    higher_is_better = False

    def metrics(self, item: Passage, response: Response) -> Metrics:
        (score,) = response.scores
        return {
            "nats": -score.log_likelihood,
            "tokens": float(score.tokens),
            "bytes": float(score.size),
        }

    def summarise(self, figures: Sequence[Metrics]) -> dict[str, Any]:
        """Ratios of sums; ``stderr`` is that of a ratio of means."""
        n = len(figures)
        nats, tokens, size = (
            math.fsum(one[name] for one in figures) for name in ("nats", "tokens", "bytes")
        )
        left = math.fsum((one["nats"] - nats / size * one["bytes"]) ** 2 for one in figures)
        stderr = math.sqrt(left * n / (n - 1)) / size / math.log(2) if n > 1 else None
        return {
            "bits_per_byte": nats / size / math.log(2),
            "loss": nats / max(1.0, tokens),
            "bytes": int(size),
            "n": n,
            "stderr": stderr,
        }


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` of the items, evenly spaced over all; all without a limit."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]
