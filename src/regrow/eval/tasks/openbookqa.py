"""OpenBookQA (arXiv 1809.02789): elementary science, without the book."""

from __future__ import annotations

from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import json_rows, require_options


class OpenBookQa(ChoiceTask):
    """Test set; the prompt is the bare question, which the options continue."""

    name = "openbookqa"
    chance = 0.25
    size = 500
    files = "eval-llm-foundry/commonsense_reasoning/openbook_qa.jsonl"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = self.folder(settings)
        rows = json_rows(path, self.size, {"query": str, "choices": list, "gold": int})
        require_options(path, rows, "choices", 4)
        return [
            Choice(
                id=str(index),
                options=tuple((row["query"], f" {choice}") for choice in row["choices"]),
                answer=row["gold"],
                unconditional="Answer:",
            )
            for index, row in enumerate(rows)
        ]
