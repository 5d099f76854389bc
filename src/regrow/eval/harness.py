"""Ask a language model every item of a task, and keep what it answered.

For a model M and a task T, ``M/T.jsonl`` holds one line an item and ``M/T.json`` the figures;
the latter is written last, so a task with figures is finished. Until then what has been asked
stands in ``M/T.partial.jsonl``, and a run that was killed goes on behind it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.core import atomic
from regrow.core.errors import RunError
from regrow.eval.task import (
    Choice,
    Cloze,
    Completion,
    Item,
    Passage,
    Response,
    Score,
    Task,
    TaskSettings,
    spread,
)
from regrow.io.jsonl import read_jsonl

if TYPE_CHECKING:
    from regrow.eval.lm import LanguageModel

#: Items that are asked together, and then written: what a killed run may lose.
BLOCK = 64


def run_task(
    model: LanguageModel,
    task: Task,
    settings: TaskSettings,
    folder: Path,
    between: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Ask what is left of one task, and write its files.

    Args:
        model: asked.
        task: what is asked.
        settings: of the task; the same in every attempt.
        folder: of the model's files.
        between: called before each block of items with how many are done, of how many; what it
            raises ends the attempt, and nothing that was asked is lost.

    Returns:
        What :meth:`Task.aggregate` gives, with ``cut``: requests whose text did not fit.

    Raises:
        InputError: the task's files are not there, or not the public set.
        RunError: the task has no items.
    """
    items = spread(task.items(settings), settings.limit)
    if not items:
        raise RunError(f"task {task.name} has no items with these settings")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{task.name}.partial.jsonl"
    records = _recover(partial, items)
    # Lines were whole when they were flushed; only what came after the last flush may be torn.
    atomic.write_text(partial, _lines(records))
    with partial.open("a", encoding="utf-8") as file:
        while len(records) < len(items):
            between(len(records), len(items))
            block = items[len(records) : len(records) + BLOCK]
            before = model.cut
            responses = respond(model, block)
            made = [_record(task, *pair) for pair in zip(block, responses, strict=True)]
            # The first of a block carries how many texts of the block were cut.
            made[0]["cut"] = model.cut - before
            file.write(_lines(made))
            file.flush()
            os.fsync(file.fileno())
            records += made
    figures = task.aggregate(items, [record["metrics"] for record in records])
    figures["cut"] = sum(record.pop("cut", 0) for record in records)
    atomic.write_text(folder / f"{task.name}.jsonl", _lines(records))
    atomic.write_json(folder / f"{task.name}.json", figures)
    partial.unlink()
    return figures


def finished(folder: Path, name: str) -> dict[str, Any] | None:
    """Figures of a task that an earlier attempt finished."""
    path = folder / f"{name}.json"
    figures: dict[str, Any] | None = atomic.read_json(path) if path.is_file() else None
    return figures


def _recover(partial: Path, items: Sequence[Item]) -> list[dict[str, Any]]:
    """The whole lines of an earlier attempt, as far as they are of these items."""
    records: list[dict[str, Any]] = []
    if partial.is_file():
        for line, item in zip(read_jsonl(partial), items, strict=False):
            if line.value is None or line.value.get("id") != item.id:
                break
            records.append(line.value)
    return records


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records)


def _record(task: Task, item: Item, response: Response) -> dict[str, Any]:
    """One line of the per-item file."""
    record: dict[str, Any] = {"id": item.id}
    if item.group:
        record["group"] = item.group
    if isinstance(item, Choice):
        record["answer"] = item.answer
    elif isinstance(item, Completion):
        record |= {"references": list(item.references), "response": response.text}
    if response.scores:
        record["scores"] = [_score(score) for score in response.scores]
    if response.unconditional:
        record["unconditional"] = [score.log_likelihood for score in response.unconditional]
    if item.extra:
        record["extra"] = dict(item.extra)
    record["metrics"] = task.metrics(item, response)
    return record


def _score(score: Score) -> dict[str, Any]:
    found = asdict(score)
    return {"bytes" if name == "size" else name: value for name, value in found.items()}


def respond(model: LanguageModel, items: Sequence[Item]) -> list[Response]:
    """What a model gives for items of any kinds, in their order."""
    pairs: list[tuple[str, str]] = []
    for item in items:
        pairs += _pairs(item)
    scores = iter(model.log_likelihood(pairs))
    passages = iter(model.passages([item.text for item in items if isinstance(item, Passage)]))
    texts = _complete(model, items)
    responses = []
    for index, item in enumerate(items):
        if isinstance(item, Choice):
            found = _take(scores, len(item.options))
            alone = _take(scores, len(item.options)) if item.unconditional is not None else ()
            responses.append(Response(found, alone))
        elif isinstance(item, Cloze):
            responses.append(Response(_take(scores, 1)))
        elif isinstance(item, Passage):
            responses.append(Response(_take(passages, 1)))
        else:
            responses.append(Response(text=texts[index]))
    return responses


def _pairs(item: Item) -> list[tuple[str, str]]:
    """What has to be scored of an item."""
    if isinstance(item, Cloze):
        return [(item.context, item.target)]
    if not isinstance(item, Choice):
        return []
    alone = item.unconditional
    return [*item.options, *((alone, text) for _, text in item.options if alone is not None)]


def _take(scores: Iterator[Score], count: int) -> tuple[Score, ...]:
    return tuple(next(scores) for _ in range(count))


def _complete(model: LanguageModel, items: Sequence[Item]) -> dict[int, str]:
    """Index to text of the completions; those of equal limits and stops are made together."""
    alike: dict[tuple[int, tuple[str, ...], bool], list[tuple[int, str]]] = {}
    for index, item in enumerate(items):
        if isinstance(item, Completion):
            key = item.max_new_tokens, item.stop, item.keep_prompt
            alike.setdefault(key, []).append((index, item.prompt))
    made: dict[int, str] = {}
    for limits, entries in alike.items():
        texts = model.generate([prompt for _, prompt in entries], *limits)
        made |= {index: text for (index, _), text in zip(entries, texts, strict=True)}
    return made
