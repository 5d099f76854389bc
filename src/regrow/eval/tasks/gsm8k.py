"""GSM8K (arXiv 2110.14168): word problems of primary school, solved in words."""

from __future__ import annotations

import re

from regrow.core.errors import InputError
from regrow.eval.task import Completion, Item, Metrics, Response, Task, TaskSettings
from regrow.eval.tasks.rows import json_rows

_TRAIN = 7473
_FINAL = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?\$?[0-9][0-9.,]*")
_MARK = "Question:"


class Gsm8k(Task):
    """Test set; ``Question: ...\\nAnswer: ...`` of the first training problems, then the question.

    ``exact_match`` compares the number after ``####``, as in the solved examples;
    ``exact_match_any`` the last number of the answer, wherever it stands.
    """

    name = "gsm8k"
    metric = "exact_match"
    size = 1319
    shots = 5
    max_shots = 8
    files = "eval-gsm8k"

    def items(self, settings: TaskSettings) -> list[Item]:
        folder, keys = self.folder(settings), {"question": str, "answer": str}
        shots = self.shots if settings.shots is None else settings.shots
        rows = json_rows(folder / "test.jsonl", self.size, keys)
        solved = json_rows(folder / "train.jsonl", _TRAIN, keys)[:shots] if shots else []
        opening = "".join(f"{_prompt(row['question'])} {row['answer']}\n\n" for row in solved)
        items: list[Item] = []
        for index, row in enumerate(rows):
            final = final_number(row["answer"])
            if final is None:
                raise InputError(f"{folder / 'test.jsonl'}:{index + 1}: no number after ####")
            items.append(
                Completion(
                    id=str(index),
                    prompt=opening + _prompt(row["question"]),
                    references=(final,),
                    max_new_tokens=256,
                    stop=(_MARK,),
                    keep_prompt=False,
                )
            )
        return items

    def metrics(self, item: Completion, response: Response) -> Metrics:
        return {
            "exact_match": float(final_number(response.text) in item.references),
            "exact_match_any": float(last_number(response.text) in item.references),
        }


def _prompt(question: str) -> str:
    return f"{_MARK} {question}\nAnswer:"


def final_number(text: str) -> str | None:
    """The first number after ``####``, without commas and a full stop at its end."""
    found = _FINAL.search(text)
    return _plain(found.group(1)) if found else None


def last_number(text: str) -> str | None:
    """The last number, without currency and commas."""
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def _plain(number: str) -> str:
    return number.replace("$", "").replace(",", "").rstrip(".")
