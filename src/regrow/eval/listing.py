"""What there is to evaluate: tasks with size, metric, chance and files; suites. No torch."""

from __future__ import annotations

from typing import Any

from regrow.eval.task import Task
from regrow.eval.tasks import SUITES, TASKS


def describe(task: Task) -> dict[str, Any]:
    """What a reader of a task's figures needs to know of it."""
    return {
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "chance": task.chance,
        "size": task.size,
        "shots": task.shots,
        "files": task.files or None,
    }


def listing() -> tuple[list[str], dict[str, Any]]:
    """All tasks and suites, as lines and as an object."""
    tasks = {name: describe(TASKS.get(name)()) for name in TASKS.names()}
    rows = [["task", "metric", "items", "chance", "shots", "files under data"]]
    for name, told in tasks.items():
        size = f"{told['size']:,}" if told["size"] else "drawn"
        chance = f"{told['chance']:.3g}" if told["chance"] is not None else "-"
        files = told["files"] or "-"
        rows.append([name, told["metric"], size, chance, str(told["shots"]), files])
    suites = {name: list(tasks) for name, tasks in SUITES.items()}
    lines = aligned(rows, figures=range(2, 5))
    lines += [f"suite {name}: {', '.join(tasks)}" for name, tasks in suites.items()]
    return lines, {"tasks": tasks, "suites": suites}


def aligned(rows: list[list[str]], figures: range) -> list[str]:
    """Rows as lines; the columns of ``figures`` stand right, the others left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if index in figures else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
