"""Many shapes of one size: does the order before any retraining tell the order after it?

One run of ``family`` whose halving is switched off, so that every candidate is trained to the end.
"""

from __future__ import annotations

import json
from typing import Any

from experiments.compress.arms import CHILD, Results, best_rate, latest, optimiser, shared
from experiments.compress.prepare import Students, do, score

from regrow.compress.family_record import CANDIDATES

NAME, WINNER = "search", "half"


def rate(results: Results, students: Students) -> float | None:
    """The learning rate of all candidates: the best of the width child."""
    size = students.size
    return best_rate(results, CHILD, students.base.tokens(size.students), size)


def due(results: Results, students: Students) -> bool:
    """Whether the search is not done and the child's learning rate is known."""
    return NAME not in latest(results) and rate(results, students) is not None


def settings(students: Students, lr: float) -> dict[str, Any]:
    """Settings of ``family``: the winner is retrained as the width child is."""
    base, size = students.base, students.size
    tokens = base.tokens(size.students)
    budget = {
        "non_embedding_parameters": size.kept,
        "tolerance": size.spread,
        "axes": ["hidden", "mlp", "heads", "layers"],
    }
    return {
        **shared(students, tokens, 0),
        "model": str(base.folder),
        "children": {WINNER: {"budget": budget}},
        "candidates": size.candidates,
        "trial": {
            "tokens": base.tokens(size.light),
            "halving": False,
            "score_tokens": size.eval_tokens,
        },
        "samples": size.samples,
        "optim": optimiser(lr, tokens),
    }


def run(students: Students, lr: float) -> dict[str, Any]:
    """Search; the line of the results."""
    folder = students.work / NAME
    made = do("family", folder, **settings(students, lr))
    child = made["children"][WINNER]
    lines = (folder / CANDIDATES).read_text(encoding="utf-8").splitlines()
    return {
        "part": "search",
        "name": NAME,
        "lr": lr,
        "tokens": students.base.tokens(students.size.light),
        "candidates": [json.loads(line) for line in lines],
        "ranks": child["ranks"],
        "counted": child["counted"],
        "winner": child["winner"],
        "winner_test": score(folder / WINNER, students.base, students.size)["loss"],
        "trial_tokens": made["trial_tokens"],
        "search_flops": made["search_flops"],
        "seconds": made["seconds"],
    }
