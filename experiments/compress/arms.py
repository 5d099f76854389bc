"""The arms: which are due, and what each is as a run of a verb."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.compress import speed
from experiments.compress.prepare import Base, Size, Students, do, last_quarter, score
from experiments.results import read

from regrow.core.metrics_log import MetricsLog
from regrow.io.runs import resolve_model
from regrow.model.folder import load_config
from regrow.model.shapes import flops_per_token, forward_flops_per_token, non_embedding_parameters

Results = list[dict[str, Any]]

#: Name to where the student comes from and what it learns from.
METHODS = {
    "importance-kd": ("importance", "kd"),
    "importance-ce": ("importance", "ce"),
    "random-kd": ("random", "kd"),
    "scratch-kd": ("scratch", "kd"),
    "scratch-ce": ("scratch", "ce"),
    "depth-kd": ("depth", "kd"),
}
FIVE = ("importance-kd", "importance-ce", "random-kd", "scratch-kd", "scratch-ce")
#: Arms whose tokens grow to the FLOPs of their counterpart with a teacher.
CE = ("importance-ce", "scratch-ce")
CHILD, TWIN = "importance-kd", "scratch-ce"
#: Multiples of the child's tokens at which the twin also tries half of its rate.
TWIN_TRIES = 4


@dataclass(frozen=True, slots=True)
class Arm:
    """One student, trained once.

    Args:
        method: a key of :data:`METHODS`.
        tokens: that it is trained on.
        lr: peak learning rate.
        seed: of the order of the text, of what is cut at random, of fresh weights, and of the
            calibration text.
    """

    method: str
    tokens: int
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder and of its line."""
        return f"{self.method}-{self.tokens}-lr{self.lr:g}-seed{self.seed}"


def latest(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name to its last line."""
    return {result["name"]: result for result in results}


def of(results: Results, method: str, tokens: int) -> Results:
    """The arms of a method with a number of tokens."""
    return [
        r
        for r in latest(results).values()
        if r["part"] == "arm" and r["method"] == method and r["tokens"] == tokens
    ]


def first_rates(size: Size, method: str) -> tuple[float, ...]:
    """The learning rates that a method tries in any case."""
    return tuple(size.rates["scratch" if METHODS[method][0] == "scratch" else "pruned"])


def tried(results: Results, method: str, tokens: int) -> dict[float, float]:
    """Learning rate to validation loss, of seed 0."""
    found = {r["lr"]: r["validation"] for r in of(results, method, tokens) if r["seed"] == 0}
    return dict(sorted(found.items()))


def next_rates(results: Results, method: str, tokens: int, size: Size) -> tuple[float, ...]:
    """Rates that seed 0 has still to try: the first ones, then beyond an end that is the best."""
    first, known = first_rates(size, method), tried(results, method, tokens)
    left = tuple(lr for lr in first if lr not in known)
    if left or len(known) >= len(first) + size.more_rates:
        return left
    best = min(known, key=lambda lr: known[lr])
    rates = list(known)
    if best == rates[-1]:
        return (2 * best,)
    return (best / 2,) if best == rates[0] else ()


def best_rate(results: Results, method: str, tokens: int, size: Size) -> float | None:
    """The rate of lowest validation loss on seed 0; None while there are others to try."""
    known = tried(results, method, tokens)
    if not known or next_rates(results, method, tokens, size):
        return None
    return min(known, key=lambda lr: known[lr])


def swept(results: Results, method: str, tokens: int, size: Size, seeds: int) -> list[Arm]:
    """What is due of a method: its learning rates on seed 0, then the other seeds at the best."""
    left = next_rates(results, method, tokens, size)
    best = best_rate(results, method, tokens, size)
    if best is None:
        return [Arm(method, tokens, lr, 0) for lr in left]
    return at(results, method, tokens, best, seeds)


def at(results: Results, method: str, tokens: int, lr: float, seeds: int) -> list[Arm]:
    """What is due of a method at one rate."""
    done = {r["seed"] for r in of(results, method, tokens) if r["lr"] == lr}
    return [Arm(method, tokens, lr, seed) for seed in range(seeds) if seed not in done]


def chosen(results: Results, method: str, tokens: int, size: Size) -> Results:
    """The lines of a method at its best rate, by seed; none while the rate is not known."""
    best = best_rate(results, method, tokens, size)
    rows = [r for r in of(results, method, tokens) if r["lr"] == best]
    return sorted(rows, key=lambda r: r["seed"])


def equal_compute(base: Base, students: Students, tokens: int) -> int:
    """Tokens of training without a teacher that cost what ``tokens`` with it do.

    FLOPs of the student's forward and backward, and of the teacher's forward.
    """
    own = flops_per_token(students.config, base.sequence)
    teacher = forward_flops_per_token(base.shape, base.sequence)
    return int(tokens * (own + teacher) / own) // base.batch * base.batch


def twin_due(results: Results, base: Base, size: Size, seeds: int) -> list[Arm]:
    """The next length of the twin, until its loss is below the child's or it has the base's tokens.

    Its rate is the best of the length before (of the arm with equal tokens, to begin with); on the
    first lengths half of that is tried too, since longer training wants less.
    """
    short = base.tokens(size.short)
    children = chosen(results, CHILD, short, size)
    rate = best_rate(results, TWIN, base.tokens(size.students), size)
    if len(children) < seeds or rate is None:
        return []
    child, times = mean(r["test"] for r in children), 1
    while times * short <= base.result["tokens"]:
        tokens = times * short
        rates = (rate, rate / 2) if times <= TWIN_TRIES else (rate,)
        known = tried(results, TWIN, tokens)
        left = [Arm(TWIN, tokens, lr, 0) for lr in rates if lr not in known]
        if left:
            return left
        rate = min(rates, key=lambda lr: known[lr])
        if twin_loss(results, tokens) <= child:
            return []
        times *= 2
    return []


def twin_loss(results: Results, tokens: int) -> float:
    """Test loss of the twin of so many tokens, at its best rate of those tried."""
    rows = [r for r in of(results, TWIN, tokens) if r["seed"] == 0]
    return float(min(rows, key=lambda r: r["validation"])["test"])


def due(
    results: Results, students: Students, parts: Sequence[str], seeds: int, size: Size
) -> list[Arm]:
    """Arms that are not done, in the order of running."""
    base = students.base
    tokens = base.tokens(size.students)
    found: list[Arm] = []
    if "arms" in parts:
        for method in FIVE:
            found += swept(results, method, tokens, size, seeds)
    if "depth" in parts:
        found += swept(results, "depth-kd", tokens, size, seeds)
    if "compute" in parts:
        more = equal_compute(base, students, tokens)
        for method in CE:
            rate = best_rate(results, method, tokens, size)
            found += at(results, method, more, rate, seeds) if rate is not None else []
    if "twin" in parts:
        found += swept(results, CHILD, base.tokens(size.short), size, seeds)
        found += twin_due(results, base, size, seeds)
    return list(dict.fromkeys(found))


def shared(students: Students, tokens: int, seed: int) -> dict[str, Any]:
    """What the training of all students has in common."""
    base, size = students.base, students.size
    return {
        "data": {
            "shards": str(base.shards),
            "sequence": base.sequence,
            "seed": 1 + seed,  # the teacher's is 0
            "phases": [{"name": "general", "weights": base.weights}],
        },
        "train": {
            "tokens": tokens,
            "batch_tokens": base.batch,
            "micro_batch": base.settings["train"]["micro_batch"],
            "precision": size.precision,
            "compile": False,  # one way for all, however long
            "threads": 1,
        },
        "eval": {"every_tokens": max(base.batch, tokens // 6), "tokens": size.eval_tokens},
        "save": {"every_tokens": max(base.batch, 200_000)},
        # Gradients of few sequences vary too much for a bound in standard deviations.
        "guard": {"max_grad_norm_sigma": 0},
        "seed": seed,
    }


def optimiser(lr: float, tokens: int, name: str = "lr") -> dict[str, Any]:
    """The schedule of all students; ``name`` is what the verb calls the peak rate."""
    return {name: lr, "min_ratio": 0.1, "warmup_tokens": tokens // 50}


def settings(arm: Arm, students: Students) -> tuple[str, dict[str, Any]]:
    """Verb and settings of an arm: only what it is about differs from the others."""
    start, lesson = METHODS[arm.method]
    common = shared(students, arm.tokens, arm.seed)
    student = str(students.start(start, arm.seed))
    if lesson == "kd":
        optim = optimiser(arm.lr, arm.tokens)
        teacher = str(students.base.folder)
        return "distill", {**common, "student": student, "teacher": teacher, "optim": optim}
    optim = optimiser(arm.lr, arm.tokens, "start") | {"load_state": False}
    return "continue", {**common, "model": student, "optim": optim}


def run(arm: Arm, students: Students) -> dict[str, Any]:
    """Train and score; the line of the results."""
    verb, given = settings(arm, students)
    folder = students.work / arm.name
    made = do(verb, folder, **given)
    curve = [
        (record["tokens"], record["validation"]["loss"])
        for record in MetricsLog(folder / "metrics.jsonl").read()
        if "validation" in record
    ]
    tested = score(folder, students.base, students.size)
    shape = load_config(resolve_model(folder))
    # A finished arm is only read again; its optimiser states would fill the disk.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {
        "part": "arm",
        "name": arm.name,
        "method": arm.method,
        "tokens": arm.tokens,
        "lr": arm.lr,
        "seed": arm.seed,
        "steps": made["steps"],
        "flops": made["flops"],
        "teacher_flops": made.get("teacher_flops", 0),
        "seconds": made["seconds_training"],
        "layers": shape.layers,
        "parameters": made["parameters"],
        "non_embedding_parameters": non_embedding_parameters(shape),
        "validation": made["loss"],
        "test": tested["loss"],
        "losses": tested["losses"],
        "curve": curve,
    }


def read_of(path: Path, key: str) -> Results:
    """The results of one teacher and one size; see :attr:`Students.key`."""
    return [result for result in read(path) if result["base"] == key]


def teacher(students: Students) -> dict[str, Any]:
    """The line of the base: what it is, what it cost, how far from a plateau it was."""
    base = students.base
    tested = score(base.folder, base, students.size)
    return {
        "part": "base",
        "name": "base",
        "tokens": base.result["tokens"],
        "steps": base.result["steps"],
        "flops": base.result["flops"],
        "layers": base.shape.layers,
        "parameters": base.result["parameters"],
        "non_embedding_parameters": base.result["non_embedding_parameters"],
        "last_quarter_gain": last_quarter(base),
        "test": tested["loss"],
        "losses": tested["losses"],
        "student": students.width | {"layers": base.shape.layers},
        "student_flops_per_token": flops_per_token(students.config, base.sequence),
        "size": asdict(students.size),
        "student_tokens": base.tokens(students.size.students),
        "short_tokens": base.tokens(students.size.short),
        "equal_compute_tokens": equal_compute(base, students, base.tokens(students.size.students)),
    }


def speeds(students: Students) -> dict[str, Any]:
    """The line of the speeds."""
    models = {
        "teacher": resolve_model(students.base.folder),
        "width": resolve_model(students.start("importance", 0)),
        "depth": resolve_model(students.start("depth", 0)),
    }
    return {"part": "speed", "name": "speed", "speeds": speed.measure(models, *students.size.speed)}
