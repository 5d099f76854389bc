"""PIQA (arXiv 1911.11641): which of two ways reaches a goal in the physical world."""

from __future__ import annotations

from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import json_rows, require_options


class Piqa(ChoiceTask):
    """Validation set; the prompt is ``Question: {goal}\\nAnswer:``."""

    name = "piqa"
    chance = 0.5
    size = 1838
    files = "eval-llm-foundry/commonsense_reasoning/piqa.jsonl"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = self.folder(settings)
        rows = json_rows(path, self.size, {"query": str, "choices": list, "gold": int})
        require_options(path, rows, "choices", 2)
        return [
            Choice(
                id=str(index),
                # The file's query is "Question: {goal}\n".
                options=tuple(
                    (f"{row['query'].rstrip()}\nAnswer:", f" {c}") for c in row["choices"]
                ),
                answer=row["gold"],
                unconditional="Answer:",
            )
            for index, row in enumerate(rows)
        ]
