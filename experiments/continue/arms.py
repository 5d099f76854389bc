"""The arms: each is one ``continue`` of the same base, on as many tokens, with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.train.stage import read_schedule

from .prepare import BLEND_A, GENERAL, QA, QA_SHARE, Size  # noqa: TID252

QUESTIONS_BLEND = {
    **{name: share * (1 - QA_SHARE) for name, share in GENERAL.items()},
    QA: 100.0 * QA_SHARE,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What an arm is.

    Args:
        label: as the tables say it.
        switch: share of the starting rate at which the questions begin; None for never, 1 for at
            once.
        constant: whether the rate stays.
        rewarm: whether the rate first rises to the pretraining's largest.
    """

    label: str
    switch: float | None = 0.2
    constant: bool = False
    rewarm: bool = False


KINDS = {
    "a2": Kind("blend A, cosine to 1/100 (control)", None),
    "b": Kind("recipe: general, then questions at eta/5"),
    "c": Kind("questions blend from step 0", 1.0),
    "d": Kind("recipe re-warmed to eta_max", rewarm=True),
    "a": Kind("blend A, constant eta_min", None, constant=True),
    "e2": Kind("recipe, switch at eta/2", 0.5),
    "e10": Kind("recipe, switch at eta/10", 0.1),
    "e50": Kind("recipe, switch at eta/50", 0.02),
}
#: The required comparison first, of all seeds; the sweep last.
ORDER: tuple[Sequence[str], ...] = (("a2", "b"), ("c", "d", "a"), ("e2", "e10", "e50"))


def due(done: set[tuple[str, int]], kinds: Sequence[str], seeds: int) -> list[tuple[str, int]]:
    """Arms and seeds that are not done, in the order of running."""
    return [
        (kind, seed)
        for group in ORDER
        for seed in range(seeds)
        for kind in group
        if kind in kinds and (kind, seed) not in done
    ]


def settings(name: str, seed: int, base: Path, data: Path, size: Size) -> dict[str, Any]:
    """Settings of ``continue`` for one arm."""
    kind = KINDS[name]
    record = read_schedule(base)
    assert record is not None  # it was trained here
    tokens = int(record["tokens"] * size.continued) // size.batch * size.batch
    optim: dict[str, Any] = {"schedule": "constant" if kind.constant else "cosine"}
    if kind.rewarm:
        optim |= {"start": float(record["lr"]), "warmup_tokens": tokens // 20}
    return {
        "model": str(base),
        "data": {
            "shards": str(data),
            "sequence": size.sequence,
            "seed": 1 + seed,
            "phases": phases(kind),
        },
        "train": {
            "tokens": tokens,
            "batch_tokens": size.batch,
            "micro_batch": size.batch // size.sequence,
            "precision": "fp32",
        },
        "optim": optim,
        "eval": {"tokens": 4096},
        "save": {"every_tokens": 200_000},
        "log": {"every_steps": 50},
        "seed": seed,
    }


def phases(kind: Kind) -> list[dict[str, Any]]:
    """The blends of an arm."""
    if kind.switch is None:
        return [{"name": "A", "weights": BLEND_A}]
    last = {"name": "questions", "weights": QUESTIONS_BLEND}
    if kind.switch == 1.0:
        return [last]
    first = {"name": "general", "weights": GENERAL, "until": {"lr_fraction": kind.switch}}
    return [first, last]
