"""How long what is due will take: its tokens over the rates that this core shows now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from experiments.compress import arms, search, zero
from experiments.compress.prepare import Students

from regrow.data.loader import Loader, Phase
from regrow.data.shards import ShardSet
from regrow.io.runs import resolve_model, resolve_shards
from regrow.model.decoder import Decoder
from regrow.model.folder import load
from regrow.train.device import autocast
from regrow.train.objectives.distillation import Distillation
from regrow.train.objectives.next_token import NextToken

_STEPS = 6
_SPLITS = 4  # sources of the base's text


class Rates(NamedTuple):
    """Tokens a second of one core's own time: training with and without a teacher, scoring."""

    kd: float
    ce: float
    score: float


def rates(students: Students) -> Rates:
    """Measured on a student of random weights; under load the time that others take is left out."""
    base, size = students.base, students.size
    teacher, student = load(resolve_model(base.folder)), Decoder(students.config)
    student.initialise(torch.Generator().manual_seed(0))
    shards = ShardSet.open(resolve_shards(base.shards), "train")
    rows = base.batch // base.sequence
    loader = Loader(
        shards, [Phase("all", base.weights, (_STEPS + 1) * rows)], base.sequence, 0, False
    )
    device = torch.device("cpu")
    found = []
    for objective in (Distillation(student, teacher), NextToken(student)):
        for step in range(_STEPS + 1):
            if step == 1:  # the first one chooses kernels and allocates
                started = time.process_time()
            with autocast("bf16" if size.precision == "bf16" else "fp32", device):
                loss = objective.loss(loader.batch(step * rows, rows)).sum
            (loss / base.batch).backward()  # type: ignore[no-untyped-call]
            student.zero_grad()
        found.append(_STEPS * base.batch / (time.process_time() - started))
    started = time.process_time()
    with torch.no_grad():
        for step in range(_STEPS):
            NextToken(student).loss(loader.batch(step * rows, rows))
    return Rates(*found, _STEPS * base.batch / (time.process_time() - started))


def expected(
    results: list[dict[str, Any]], students: Students, parts: Sequence[str], seeds: int
) -> dict[str, list[tuple[str, int]]]:
    """Part to what each of its runs learns from (``kd``, ``ce``, nothing) and its tokens.

    Of learning rates the ones that are tried in any case count; of the twin, all lengths. What is
    done is left out.
    """
    base, size = students.base, students.size
    tokens, short = base.tokens(size.students), base.tokens(size.short)
    found: dict[str, list[tuple[str, int]]] = {}

    def runs(method: str, tokens: int, count: int) -> list[tuple[str, int]]:
        left = max(0, count - len(arms.of(results, method, tokens)))
        return [(arms.METHODS[method][1], tokens)] * left

    sweep = {method: len(arms.first_rates(size, method)) + seeds - 1 for method in arms.METHODS}
    if "zero" in parts:
        found["zero"] = [("", 0)] * len(zero.due(results, seeds, size))
    if "arms" in parts:
        found["arms"] = [run for m in arms.FIVE for run in runs(m, tokens, sweep[m])]
    if "depth" in parts:
        found["depth"] = runs("depth-kd", tokens, sweep["depth-kd"])
    if "search" in parts:
        # Candidates share the teacher's forward pass; the winner has it to itself.
        whole = [("ce", base.tokens(size.light))] * size.candidates + [("kd", tokens)]
        found["search"] = [] if search.NAME in arms.latest(results) else whole
    if "compute" in parts:
        more = arms.equal_compute(base, students, tokens)
        found["compute"] = [run for method in arms.CE for run in runs(method, more, seeds)]
    if "twin" in parts:
        found["twin"] = runs(arms.CHILD, short, sweep[arms.CHILD])
        times = 1
        while times * short <= base.result["tokens"]:
            count = 2 if times <= arms.TWIN_TRIES else 1
            found["twin"] += runs(arms.TWIN, times * short, count)
            times *= 2
    return found


def plan(
    results: list[dict[str, Any]], students: Students, parts: Sequence[str], seeds: int
) -> str:
    """A line a part: runs, tokens, minutes of one core."""
    speed = rates(students)
    scored = _SPLITS * students.size.score_tokens
    lines = [
        f"student {students.width}, {students.config.layers} layers; depth student "
        f"{students.layers} layers; {students.base.tokens(students.size.students):,} tokens of the "
        f"teacher's {students.base.result['tokens']:,}",
        f"this core trains {speed.kd:,.0f} tokens/s with the teacher, {speed.ce:,.0f} without, "
        f"scores {speed.score:,.0f}",
    ]
    whole = 0.0
    for part, runs in expected(results, students, parts, seeds).items():
        trained = {lesson: sum(n for kind, n in runs if kind == lesson) for lesson in ("kd", "ce")}
        seconds = trained["kd"] / speed.kd + trained["ce"] / speed.ce
        seconds += len(runs) * scored / speed.score
        whole += seconds
        lines.append(
            f"{part}: {len(runs)} runs, {trained['kd']:,} tokens with the teacher, "
            f"{trained['ce']:,} without, {seconds / 60:.0f} minutes"
        )
    lines.append(
        f"in all {whole / 60:.0f} minutes of one core, half of that with two processes; more where "
        "a learning rate lies at an end of those tried, less where the twin catches up early"
    )
    return "\n".join(lines)
