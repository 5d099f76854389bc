"""What a search has found: ``candidates.jsonl``, rank flips, Pareto points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from regrow.compress.family_shapes import ShortList, sizes_of
from regrow.search.halving import SuccessiveHalving
from regrow.search.optimiser import Outcome
from regrow.search.pareto import front
from regrow.search.ranks import flips, kendall, spearman

CANDIDATES = "candidates.jsonl"
#: Figures that a model is wanted to have little of, beside its loss.
COSTS = ("parameters", "memory_bytes", "latency_ms")


def candidate_records(
    child: str,
    listed: ShortList,
    halving: SuccessiveHalving,
    told: Sequence[Outcome],
) -> list[dict[str, Any]]:
    """One record for each candidate of a child, in the order of the short list.

    Args:
        child: its name.
        listed: its short list, in the order of the halving's points.
        halving: where the search stands.
        told: every outcome so far.

    Returns:
        ``child, name, shape, parameters, non_embedding_parameters, memory_bytes, latency_ms`` (the
        last where it was measured), ``zero_shot`` (``kld`` and ``loss``, once known), ``rungs``
        (``step, tokens, kld, loss`` each), ``rank`` (from 1, by how far it came and its last
        divergence) and ``status``.
    """
    standing = [dict(point) for point in halving.standing()]
    records = []
    for entry, point in zip(listed.entries, halving.points, strict=True):
        mine = [outcome for outcome in told if outcome.trial.point == point]
        scored = [dict(outcome.figures) for outcome in mine if not outcome.failed]
        first = [figures for figures in scored if not figures["step"]]
        records.append(
            {
                "child": child,
                "name": entry.name,
                "shape": sizes_of(entry.shape),
                **entry.figures(),
                "zero_shot": {k: first[0][k] for k in ("kld", "loss")} if first else None,
                "rungs": [
                    {key: figures[key] for key in ("step", "tokens", "kld", "loss")}
                    for figures in scored
                    if figures["step"]
                ],
                "rank": standing.index(dict(point)) + 1,
                "status": _status(halving, point, mine),
            }
        )
    return records


def _status(halving: SuccessiveHalving, point: Mapping[str, Any], mine: Sequence[Outcome]) -> str:
    if mine and mine[-1].failed:
        return "failed"
    if point not in halving.alive:
        return f"dropped at step {mine[-1].trial.resource}"
    if not halving.done:
        return "waiting"
    return "winner" if halving.standing()[0] == point else "finished"


def as_lines(records: Sequence[Mapping[str, Any]]) -> str:
    """The content of ``candidates.jsonl``."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def rank_report(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far zero-shot ranks held.

    Args:
        records: of one child, see :func:`candidate_records`.

    Returns:
        ``spearman`` and ``kendall`` between the ranks by zero-shot divergence and the final ones
        (who came further stands higher, then the lower divergence; null below two candidates),
        ``flips`` (pairs whose order turned: ``[was better, is better]``), and ``by_rung``: the same
        coefficients at each rung, over the candidates that were there.
    """
    scored = [r for r in records if r["zero_shot"] is not None and r["rungs"]]
    before = [r["zero_shot"]["kld"] for r in scored]
    after = [r["rank"] for r in scored]
    names = [r["name"] for r in scored]
    steps = sorted({rung["step"] for r in scored for rung in r["rungs"]})
    by_rung = []
    for step in steps:
        there = [
            (r["zero_shot"]["kld"], rung["kld"])
            for r in scored
            for rung in r["rungs"]
            if rung["step"] == step
        ]
        first, second = [a for a, _ in there], [b for _, b in there]
        by_rung.append(
            {
                "step": step,
                "candidates": len(there),
                "spearman": spearman(first, second),
                "kendall": kendall(first, second),
            }
        )
    return {
        "candidates": len(scored),
        "spearman": spearman(before, after),
        "kendall": kendall(before, after),
        "flips": [[names[i], names[j]] for i, j in flips(before, after)],
        "by_rung": by_rung,
    }


def compared(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates of one child where all of them were given the same, as Pareto points.

    That is the first rung after some retraining; of a child with one candidate, before it.
    """
    step = min((rung["step"] for r in records for rung in r["rungs"]), default=0)
    points = []
    for record in records:
        there = [rung for rung in record["rungs"] if rung["step"] == step]
        scored = there[0] if there else record["zero_shot"] if not step else None
        if scored is not None:
            costs = {cost: record[cost] for cost in COSTS if cost in record}
            points.append({"name": record["name"], "step": step, "loss": scored["loss"], **costs})
    return mark_front(points)


def mark_front(points: Sequence[Mapping[str, Any]], value: str = "loss") -> list[dict[str, Any]]:
    """The points, each with ``front``: the costs in which no other has less at no more ``value``.

    Args:
        points: with ``value``, and those of :data:`COSTS` that are known of all.
        value: what is to be low.

    Returns:
        ``front`` is a list of names from :data:`COSTS`; with ``all`` where the point is on the
        front of every figure together.
    """
    known = [cost for cost in COSTS if points and all(p.get(cost) is not None for p in points)]
    marked: list[dict[str, Any]] = [{**point, "front": []} for point in points]
    choices: list[tuple[str, list[str]]] = [(cost, [cost]) for cost in known]
    choices += [("all", known)] if known else []
    for name, costs in choices:
        table = [[point[value], *(point[cost] for cost in costs)] for point in points]
        for point, on in zip(marked, front(table), strict=True):
            if on:
                point["front"].append(name)
    return marked
