"""``metrics.jsonl`` as curves: smoothed, thinned to what a screen can show, on one token axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrow.report.drawing import Point
from regrow.report.record import mapping, number, numbers, text

Records = Sequence[dict[str, Any]]
POINTS = 240
_DOTS = 40
# A point of the line is the mean over about this part of the run's records.
_WINDOW = 20


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most ``limit`` of the points, evenly spread, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    last = len(points) - 1
    return [points[round(index * last / (limit - 1))] for index in range(limit)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """A centred moving average over a 20th of the points.

    At the start, where a loss falls steeply, the window shrinks; at the end it only loses its
    later half, so that the last value is not one batch's.
    """
    reach = len(points) // (2 * _WINDOW)
    if not reach:
        return list(points)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    made = []
    for index, (place, _) in enumerate(points):
        near = min(reach, index)
        first, last = index - near, min(index + near, len(points) - 1)
        made.append((place, (sums[last + 1] - sums[first]) / (last + 1 - first)))
    return made


def series(records: Records, key: str) -> list[Point]:
    """``(tokens, value)`` of one field of the training records."""
    found = []
    for record in records:
        place, value = number(record.get("tokens")), number(record.get(key))
        if place is not None and value is not None and "validation" not in record:
            found.append((float(place), float(value)))
    return found


def is_distillation(records: Records) -> bool:
    """Whether ``loss`` is a divergence from a teacher, which no held-out loss compares to."""
    return any("kl" in record for record in records)


def next_token_loss(records: Records) -> list[Point]:
    """Training loss in nats per token, as far as it was measured."""
    return series(records, "ce" if is_distillation(records) else "loss")


def held_out(records: Records) -> list[Point]:
    """``(tokens, nats per token)`` on held-out text."""
    found = []
    for record in records:
        scored = record.get("validation")
        value = number(mapping(scored).get("loss")) if isinstance(scored, dict) else number(scored)
        place = number(record.get("tokens"))
        if place is not None and value is not None:
            found.append((float(place), float(value)))
    return found


def held_out_by_source(records: Records) -> dict[str, list[Point]]:
    """Source to ``(tokens, nats per token)`` on its held-out text."""
    found: dict[str, list[Point]] = {}
    for record in records:
        place = number(record.get("tokens"))
        for source, value in numbers(mapping(record.get("validation")).get("losses")).items():
            if place is not None:
                found.setdefault(source, []).append((float(place), value))
    return found


def dots(points: Sequence[Point]) -> list[Point]:
    """As many held-out points as can be told apart."""
    return thin(points, _DOTS)


def shifted(points: Sequence[Point], by: float) -> list[Point]:
    """The same points ``by`` tokens later."""
    return [(place + by, value) for place, value in points]


def switches(records: Records) -> list[tuple[float, str]]:
    """Where the blend changes: tokens before the change, name of the new phase."""
    found: list[tuple[float, str]] = []
    before: str | None = None
    place = 0.0
    for record in records:
        phase = text(record.get("phase"))
        if phase is not None and before is not None and phase != before:
            found.append((place, phase))
        before = phase or before
        place = float(number(record.get("tokens")) or place)
    return found
