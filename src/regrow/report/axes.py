"""Scales and ticks: round numbers, as many as there is room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# An axis covers at least about this part of its values: ticks have four digits to differ in.
_LEAST = 0.01
_MANTISSAS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 3, 4, 5, 6, 7, 8, 9),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """What one axis shows.

    Args:
        title: the quantity and its unit.
        write: tick to text.
        log: logarithmic; values at or below 0 cannot be shown on it.
        zero: whether a linear axis begins at 0.
    """

    title: str
    write: Callable[[float], str]
    log: bool = False
    zero: bool = False

    def shows(self, value: float) -> bool:
        """Whether the axis has a place for ``value``."""
        # Beyond these bounds the arithmetic of ticks would leave the range of a float.
        return 1e-30 < value < 1e30 or (not self.log and (value == 0 or 1e-30 < -value < 1e30))


@dataclass(frozen=True, slots=True)
class Scale:
    """Value to pixel: ``low`` lies at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values on the scale."""
        made = log_ticks if self.log else linear_ticks
        return made(self.low, self.high, count)


def scale(values: Iterable[float], axis: Axis, start: float, end: float) -> Scale:
    """A scale that holds all ``values`` with a little air; never of zero width."""
    shown = [value for value in values if axis.shows(value)]
    low, high = (min(shown), max(shown)) if shown else (1.0, 10.0)
    if axis.log:
        air = max((high / low) ** 0.03, 1.0 + _LEAST)
        return Scale(low / air, high * air, start, end, log=True)
    if axis.zero:
        low = min(low, 0.0)
        return Scale(low, high if high > low else low + 1, start, end)
    air = max(0.04 * (high - low), _LEAST * max(abs(low), abs(high))) or 1.0
    return Scale(low - air, high + air, start, end)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten within ``[low, high]``."""
    count = max(1, count)
    raw = (high - low) / count
    if raw <= 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.9)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values in ``[low, high]``: of 1, 1-3, 1-2-5, ... the coarsest series that suffices."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in _MANTISSAS:
        found = [
            float(f"{mantissa * 10.0**exponent:.10g}")
            for exponent in exponents
            for mantissa in mantissas
            if low <= mantissa * 10.0**exponent <= high
        ]
        if len(found) >= min(3, count):
            break
    else:
        found = [tick for tick in linear_ticks(low, high, count) if tick > 0]
    stride = math.ceil(len(found) / max(1, count)) if len(found) > 2 * count else 1
    return found[::stride]
