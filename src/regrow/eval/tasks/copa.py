"""COPA (Roemmele et al. 2011): which of two sentences is the cause, or the effect, of another."""

from __future__ import annotations

from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import json_rows, require_options


class Copa(ChoiceTask):
    """Validation set; the prompt is the premise with ``because`` or ``therefore``.

    That word alone is the unconditional context.
    """

    name = "copa"
    metric = "acc"
    chance = 0.5
    size = 100
    files = "eval-llm-foundry/commonsense_reasoning/copa.jsonl"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = self.folder(settings)
        rows = json_rows(path, self.size, {"query": str, "choices": list, "gold": int})
        require_options(path, rows, "choices", 2)
        return [
            Choice(
                id=str(index),
                options=tuple((row["query"], f" {choice}") for choice in row["choices"]),
                answer=row["gold"],
                unconditional=row["query"].split()[-1],
            )
            for index, row in enumerate(rows)
        ]
