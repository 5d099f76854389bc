"""Many shapes of one size: does the order before any retraining tell the order after it?"""

from __future__ import annotations

from typing import Any

import numpy as np
from experiments.compress.arms import CHILD, Arm, best_rate, latest, settings
from experiments.compress.prepare import Size, Students, do, score

from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import within
from regrow.model.config import ModelConfig
from regrow.model.shapes import flops_per_token

AXES = ("layers", "hidden_size", "intermediate_size", "heads")


def shapes(source: ModelConfig, size: Size) -> list[dict[str, int]]:
    """Shapes within the budget that lie far from each other.

    The first is the most even one; each further one is, of those left, the farthest from all
    before, in the logarithms of the four sizes.
    """
    budget = BudgetTarget(
        non_embedding_parameters=size.kept,
        tolerance=size.spread,
        axes=("hidden", "mlp", "heads", "layers"),
    )
    found = within(source, budget)
    places = np.log(np.stack([getattr(found, axis) for axis in AXES], axis=1))  # (count, axes)
    taken = [0]
    while len(taken) < min(size.candidates, len(found)):
        apart = np.linalg.norm(places[:, None] - places[taken][None], axis=-1).min(1)
        taken.append(int(apart.argmax()))
    return [{axis: int(getattr(found, axis)[row]) for axis in AXES} for row in taken]


def name_of(shape: dict[str, int]) -> str:
    """Of its line."""
    return "-".join(["candidate", *map(str, shape.values())])


def due(results: list[dict[str, Any]], students: Students, size: Size) -> list[dict[str, int]]:
    """Candidates that are not done; none while the child's learning rate is not known."""
    if rate(results, students, size) is None:
        return []
    done = latest(results)
    return [s for s in shapes(students.base.shape, size) if name_of(s) not in done]


def rate(results: list[dict[str, Any]], students: Students, size: Size) -> float | None:
    """The learning rate of all candidates: the best of the width child."""
    return best_rate(results, CHILD, students.base.tokens(size.students), size)


def run(shape: dict[str, int], students: Students, lr: float) -> dict[str, Any]:
    """Cut, score, retrain a little, score again; the line of the results."""
    base, size = students.base, students.size
    folder, cut = students.shaped(shape)
    verb, given = settings(Arm(CHILD, base.tokens(size.light), lr, 0), students)
    trained = students.work / f"{name_of(shape)}-trained"
    made = do(verb, trained, **{**given, "student": str(folder)})
    return {
        "part": "search",
        "name": name_of(shape),
        "shape": shape,
        "lr": lr,
        "tokens": made["tokens"],
        "steps": made["steps"],
        "flops": made["flops"],
        "teacher_flops": made["teacher_flops"],
        "seconds": made["seconds_training"],
        "non_embedding_parameters": cut["non_embedding_parameters"],
        "flops_per_token": flops_per_token(base.shape.replace(**shape), base.sequence),
        "zero_shot": cut["loss"],
        "test": score(trained, base, size)["loss"],
    }
