"""LAMBADA (arXiv 1606.06031): the last word of a passage that only its whole context tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from regrow.eval.task import Cloze, Item, Metrics, Response, Task, TaskSettings
from regrow.eval.tasks.rows import json_rows


class Lambada(Task):
    """Test set as OpenAI cleaned it; the prompt is the passage without its last word.

    ``acc``: greedy decoding makes the word. ``perplexity``: of the word, geometric mean.
    """

    name = "lambada"
    metric = "acc"
    size = 5153
    files = "eval-llm-foundry/language_understanding/lambada_openai.jsonl"

    def items(self, settings: TaskSettings) -> list[Item]:
        rows = json_rows(self.folder(settings), self.size, {"context": str, "continuation": str})
        return [
            Cloze(id=str(index), context=row["context"], target=f" {row['continuation']}")
            for index, row in enumerate(rows)
        ]

    def metrics(self, item: Cloze, response: Response) -> Metrics:
        (score,) = response.scores
        return {"acc": float(score.greedy), "log_likelihood": score.log_likelihood}

    def summarise(self, figures: Sequence[Metrics]) -> dict[str, Any]:
        """As for every task, with the perplexity."""
        whole = super().summarise(figures)
        # A model may find a word so unlikely that its perplexity is no float.
        whole["perplexity"] = math.exp(min(700.0, -whole["log_likelihood"]))
        return whole
