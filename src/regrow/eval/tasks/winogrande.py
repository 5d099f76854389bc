"""WinoGrande (arXiv 1907.10641): whom a sentence speaks of."""

from __future__ import annotations

from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import json_rows, require_options


class WinoGrande(ChoiceTask):
    """Validation set; each name is put in the blank, and what follows the blank is scored.

    So the continuation is one and the contexts differ (arXiv 1806.02847, partial scoring).
    """

    name = "winogrande"
    metric = "acc"
    chance = 0.5
    size = 1267
    files = "eval-llm-foundry/language_understanding/winogrande.jsonl"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = self.folder(settings)
        keys = {"context_options": list, "continuation": str, "gold": int}
        rows = json_rows(path, self.size, keys)
        require_options(path, rows, "context_options", 2)
        return [
            Choice(
                id=str(index),
                options=tuple((c, f" {row['continuation']}") for c in row["context_options"]),
                answer=row["gold"],
            )
            for index, row in enumerate(rows)
        ]
