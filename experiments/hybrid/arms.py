"""The arms of the experiment: each is one training with its test, and one line of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from experiments.hybrid import sources
from experiments.hybrid.models import STATE, WIDE_STATE, build, shape
from experiments.hybrid.training import (
    Batch,
    Recipe,
    Source,
    Stage,
    accuracy,
    answer_logits,
    train,
)

from regrow.eval.recall import IGNORED
from regrow.model.decoder import Decoder
from regrow.model.shapes import non_embedding_parameters

Group = tuple[str, str, str, int]
"""Part, task, model, state: what the seeds and learning rates of one table row share."""

MODELS = ("transformer", "mamba2", "hybrid")
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
#: Of D: all three models did best at the end of the first grid, so it goes on.
TEXT_RATES = (*LEARNING_RATES, 8e-3, 1.6e-2)
TEST_SEED = 1 << 20
REACHED = 0.95

RECALL_SIZES = (4, 8, 16, 20)
PHONEBOOK_SIZES = (4, 8, 16)
COPIED = 16
WINDOW = 256

#: Held-out accuracy that decides between learning rates: the largest size that was trained.
RECIPES = {
    "A": Recipe(
        (Stage((2,), 0.08), Stage((2, 4), 0.4), Stage((4, 8), 0.5), Stage((4, 8, 16))), 1600, 48
    ),
    "B": Recipe(
        (Stage((3,), 0.2), Stage((3, 4), 0.4), Stage((4, 8), 0.65), Stage((4, 8, 16))), 1600, 32
    ),
    "C": Recipe(
        (Stage((2,), 0.1), Stage((2, 4), 0.2), Stage((4, 8), 0.3), Stage((4, 8, 16))), 700, 32
    ),
    "D": Recipe((Stage((WINDOW,)),), 400, 16),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """What is trained.

    Args:
        part: A, B, C or D.
        task: of the part; only B has two.
        model: of :data:`MODELS`.
        state: N of the Mamba-2 blocks.
        lr: peak learning rate.
        seed: of weights and stream.
    """

    part: str
    task: str
    model: str
    state: int
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """One word that tells it from all others."""
        return f"{self.part}-{self.task}-{self.model}-N{self.state}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done; smaller only to see that everything works.

    Args:
        steps: share of each recipe's steps.
        tests: sequences of a test.
        text_bytes: held-out bytes that are scored.
    """

    steps: float = 1.0
    tests: int = 256
    text_bytes: int = 1 << 17


def run(arm: Arm, size: Size) -> dict[str, Any]:
    """Train and test one arm."""
    recipe = RECIPES[arm.part]
    steps = max(2, round(recipe.steps * size.steps))
    recipe = Recipe(recipe.stages, steps, recipe.batch)
    source, score, watch = _PARTS[arm.part](arm, size)
    model = build(shape(arm.model, source.vocab_size, arm.state), arm.seed)
    reached: list[int] = []

    def look(step: int) -> float:
        found = accuracy(model, watch) if watch is not None else 0.0
        if found >= REACHED:
            reached.append(step)
        return found

    took = train(arm.name, model, source, recipe, arm.lr, arm.seed, look)
    model.eval()
    return {
        **asdict(arm),
        "name": arm.name,
        "parameters": non_embedding_parameters(model.config),
        "intermediate_size": model.config.intermediate_size,
        "steps": steps,
        "steps_done": took.steps,
        "cpu_seconds": round(took.seconds, 1),
        "stage_steps": took.stage_steps,
        "steps_to_95": reached[0] if reached else None,
        **score(model),
    }


Score = Callable[[Decoder], dict[str, Any]]
Part = tuple[Source, Score, Batch | None]


def _recall(arm: Arm, size: Size) -> Part:
    source = sources.Recall()
    tests = {n: source.batch(TEST_SEED, 0, size.tests, n) for n in RECALL_SIZES}
    watch = source.batch(TEST_SEED + 1, 0, 64, RECALL_SIZES[-2])

    def score(model: Decoder) -> dict[str, Any]:
        return {"accuracy": {str(n): accuracy(model, batch) for n, batch in tests.items()}}

    return source, score, watch


def _phonebook(arm: Arm, size: Size) -> Part:
    announced = arm.task == "reversed"
    test = sources.Phonebook(announced, testing=True)

    def score(model: Decoder) -> dict[str, Any]:
        figures: dict[str, dict[str, float]] = {"exact_match": {}, "digit_accuracy": {}}
        for n in PHONEBOOK_SIZES:
            exact, digits = dictate(model, test.batch(TEST_SEED, 0, size.tests, n))
            figures["exact_match"][str(n)], figures["digit_accuracy"][str(n)] = exact, digits
        return figures

    watch = test.batch(TEST_SEED + 1, 0, 64, PHONEBOOK_SIZES[-1])
    return sources.Phonebook(announced), score, watch


@torch.no_grad()
def dictate(model: Decoder, batch: Batch) -> tuple[float, float]:
    """Exact match and digit accuracy of answers that the model writes on its own predictions.

    Args:
        model: the decoder.
        batch: one answer of equally many adjacent targets in each row.
    """
    tokens = batch.tokens.clone()
    counted = batch.targets != IGNORED
    first = counted.int().argmax(1)
    rows = torch.arange(len(tokens))
    right = []
    for digit in range(int(counted[0].sum())):
        place = first + digit
        made = model.head(model.hidden(tokens)[rows, place]).argmax(-1)
        right.append(made == batch.targets[rows, place])
        inside = place + 1 < tokens.shape[1]
        tokens[rows[inside], place[inside] + 1] = made[inside]
    table = torch.stack(right, 1).float()
    return float(table.prod(1).mean()), float(table.mean())


def _copying(arm: Arm, size: Size) -> Part:
    source = sources.Copying()
    test = source.batch(TEST_SEED, 0, size.tests, COPIED)
    watch = source.batch(TEST_SEED + 1, 0, 32, COPIED)
    return source, lambda model: {"accuracy": {str(COPIED): accuracy(model, test)}}, watch


@cache
def _text() -> sources.Text:
    return sources.Text(sources.library_text())


def _language(arm: Arm, size: Size) -> Part:
    text = _text()

    def score(model: Decoder) -> dict[str, Any]:
        total, count = 0.0, 0
        windows = text.windows(WINDOW, size.text_bytes)
        for tokens, targets in zip(
            windows.tokens.split(32), windows.targets.split(32), strict=True
        ):
            with torch.no_grad():
                logits, ids = answer_logits(model, Batch(tokens, targets))
            total += float(F.cross_entropy(logits, ids, reduction="sum"))
            count += ids.numel()
        return {"held_out_loss": total / count, "held_out_bytes": count}

    return text, score, None


_PARTS: dict[str, Callable[[Arm, Size], Part]] = {
    "A": _recall,
    "B": _phonebook,
    "C": _copying,
    "D": _language,
}


def figure(result: dict[str, Any]) -> float:
    """What a learning rate is chosen by, to two digits of accuracy or three of loss."""
    if "held_out_loss" in result:
        return -round(result["held_out_loss"], 3)
    return round(result["accuracy"][str(RECALL_SIZES[-2])], 2)


def best_lr(results: Iterable[dict[str, Any]], group: Group, larger: bool = False) -> float | None:
    """The best learning rate of seed 0, once all of the grid are known.

    Args:
        results: finished arms.
        group: of a grid.
        larger: whether the larger of equally good rates counts, or the smaller.
    """
    trained = [r for r in results if r["part"] == group[0]]
    known = {r["lr"]: r for r in trained if _group(r) == group and r["seed"] == 0}
    if not known.keys() >= set(grid_of(group[0])):
        return None
    sign = 1 if larger else -1
    return max(known, key=lambda lr: (figure(known[lr]), sign * lr))


def grid_of(part: str) -> tuple[float, ...]:
    """The learning rates that a part with a grid tries."""
    return TEXT_RATES if part == "D" else LEARNING_RATES


def _group(result: dict[str, Any]) -> Group:
    return result["part"], result["task"], result["model"], result["state"]


def of_group(
    results: Iterable[dict[str, Any]], part: str, task: str, model: str, state: int = STATE
) -> list[dict[str, Any]]:
    """The seeds of one row, at the learning rate that the row is reported at."""
    group = (part, task, model, state)
    found = [r for r in results if r["part"] == part and _group(r) == group]
    rate = best_lr(found, group) if len({r["lr"] for r in found}) > 1 else None
    return [r for r in found if rate is None or r["lr"] == rate]


def due(
    results: list[dict[str, Any]],
    parts: str,
    seeds: int,
    grid_seeds: int = 1,
    models: Sequence[str] = MODELS,
) -> list[Arm]:
    """Arms that can be run now and are not done; more become due as learning rates are known.

    A and D try every learning rate on seed 0 and go on with the best one, of equally good ones
    the smaller. The wide state takes the rate of the narrow one; B and C, which are short, take
    each model's best rate of A, of equally good ones the larger.

    Args:
        results: finished arms.
        parts: of ABCD.
        seeds: of each row.
        grid_seeds: seeds on which the whole grid is run; beyond the first only for the record.
        models: of :data:`MODELS`.
    """
    done = {r["name"] for r in results}
    whole: list[Arm] = []
    for part in parts:
        arms: list[Arm] = []
        for model in models:
            first = _TASKS[part][0]
            if part in "AD":
                grid = range(max(1, grid_seeds))
                group = (part, first, model, STATE)
                arms += [Arm(*group, lr, seed) for seed in grid for lr in grid_of(part)]
                rate = best_lr(results, group)
            else:
                rate = best_lr(results, ("A", "recall", model, STATE), larger=True)
            if rate is None:
                continue
            rows = [(part, task, model, STATE) for task in _TASKS[part]]
            if (part, model) == ("A", "mamba2"):
                rows.append((part, first, model, WIDE_STATE))
            arms += [Arm(*row, rate, seed) for row in rows for seed in range(seeds)]
        # Seed by seed: whenever a run is cut short, all models have been tried equally often.
        whole += sorted(arms, key=lambda arm: arm.seed)
    fresh = {arm.name: arm for arm in whole if arm.name not in done}
    return list(fresh.values())


_TASKS = {"A": ("recall",), "B": ("standard", "reversed"), "C": ("copying",), "D": ("text",)}
