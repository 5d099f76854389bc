"""What a row of stages lets through: a bar a stage, its loss hollow at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.report.drawing import Box, Drawing, shorten, text_width
from regrow.report.format import amount, count, percent
from regrow.report.plots import WIDTHS

_SIZE = 13.0
_ROW = 46.0
_BAR = 18.0
_LONG = 1e7


@dataclass(frozen=True, slots=True)
class Passage:
    """One stage: what came in, and what went out."""

    name: str
    before: float
    after: float

    @property
    def lost(self) -> float:
        """What did not go on."""
        return self.before - self.after


def flow_chart(passages: Sequence[Passage], *, title: str, width: float = WIDTHS[0]) -> Drawing:
    """Stages from top to bottom; all bars have one scale, that of the first stage.

    Args:
        passages: the stages.
        title: for those who cannot see it.
        width: of the whole.
    """
    drawing = Drawing(width, _ROW * len(passages) + 4, title)
    largest = max((one.before for one in passages), default=0.0) or 1.0
    write = count if largest < _LONG else amount
    for number, one in enumerate(passages):
        y = _ROW * number
        stays, whole = width * one.after / largest, width * one.before / largest
        share = percent(one.lost / one.before) if one.before else percent(0)
        lost = f"{write(one.lost)} lost, {share}" if one.lost else "none lost"
        told = f"{write(one.after)} stay, {lost}"
        room = width - text_width(told, _SIZE) - 14
        drawing.text(0, y + 14, shorten(one.name, room, _SIZE, bold=True), size=_SIZE, bold=True)
        drawing.text(width, y + 14, told, size=_SIZE, anchor="end", css="muted")
        tip = f"{one.name}: {told}"
        if one.lost:
            left = min(stays + 1.5, whole - 2)
            drawing.rect(Box(left, y + 21, max(2.0, whole - left - 1), _BAR), "hollow c2", 2, tip)
        if one.after:
            drawing.rect(Box(0, y + 20.5, max(2.0, stays), _BAR + 1), "bar c0", 2, tip)
    return drawing
