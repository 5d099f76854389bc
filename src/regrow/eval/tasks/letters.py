"""Sets whose files hold the whole prompt, and letters as options."""

from __future__ import annotations

from typing import ClassVar

from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import json_rows, require_options


class LetterTask(ChoiceTask):
    """The file's query ends in ``Answer:`` after options that begin with their letters."""

    metric = "acc"
    size: ClassVar[int]
    options: ClassVar[int]

    def items(self, settings: TaskSettings) -> list[Item]:
        path = self.folder(settings)
        rows = json_rows(path, self.size, {"query": str, "choices": list, "gold": int})
        require_options(path, rows, "choices", self.options)
        return [
            Choice(
                id=str(index),
                options=tuple((row["query"], f" {letter}") for letter in row["choices"]),
                answer=row["gold"],
            )
            for index, row in enumerate(rows)
        ]


class SocialIqa(LetterTask):
    """Social IQa (arXiv 1904.09728), validation set: three options.

    A variant with two options is about; it is refused.
    """

    name = "siqa"
    chance = 1 / 3
    size = 1954
    options = 3
    files = "eval-llm-foundry/commonsense_reasoning/siqa.jsonl"


class CommonsenseQa(LetterTask):
    """CommonsenseQA (arXiv 1811.00937), validation set: five options.

    A variant with four options is about; it is refused.
    """

    name = "commonsense_qa"
    chance = 0.2
    size = 1221
    options = 5
    files = "eval-llm-foundry/commonsense_reasoning/commonsense_qa.jsonl"
