"""Numbers as people read them: rounded to what they mean, each with its unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from regrow.core.progress import duration

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
_SUFFIXES = ("", "k", "M", "B", "T")


def _signed(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def _scaled(value: float, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Three digits and the suffix of a power of 1000; 999,950 is 1.00M, not 1000k."""
    power = 0
    while power < len(suffixes) - 1 and abs(value) >= 999.5:
        value /= 1000
        power += 1
    digits = max(0, 2 - int(math.log10(abs(value)))) if abs(value) >= 1 else 2
    if abs(value) >= 1 and round(abs(value), digits) >= 10 ** (3 - digits):
        digits = max(0, digits - 1)
    return f"{value:.{digits}f}", suffixes[power]


def amount(value: float) -> str:
    """A count in three digits: ``950``, ``12.3k``, ``1.18M``, ``7.80B``."""
    if abs(value) < 1000 and float(value).is_integer():
        return _signed(f"{int(value)}")
    digits, suffix = _scaled(value, _SUFFIXES)
    return _signed(digits + suffix)


def axis_amount(value: float) -> str:
    """A count as short as it goes, for the ticks of an axis: ``0``, ``500k``, ``1.5M``."""
    if value == 0:
        return "0"
    power = 0
    while power < len(_SUFFIXES) - 1 and abs(value) >= 1000:
        value /= 1000
        power += 1
    return _signed(f"{value:.4g}{_SUFFIXES[power]}")


def count(value: float) -> str:
    """A count in full: ``12,345``."""
    return _signed(f"{value:,.0f}")


def scientific(value: float) -> str:
    """``3.40e12``; ``0`` for nothing."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return _signed(f"{mantissa}e{int(exponent)}")


def short(value: float) -> str:
    """Four significant digits, for a tick or a figure of unknown kind."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e7):
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        if exponent:
            return _signed(f"{mantissa}e{int(exponent)}")
        return _signed(scientific(value))
    if float(value).is_integer():
        return count(value)
    return _signed(f"{value:.4g}")


def seconds(value: float) -> str:
    """``3.2s``, ``42s``, ``2m05s``, ``3h07m``."""
    return f"{value:.1f}s" if 0 <= value < 9.95 else duration(value)


def size(value: float) -> str:
    """Bytes in powers of ten: ``812 B``, ``12.0 kB``, ``3.40 GB``."""
    if abs(value) < 1000:
        return f"{value:.0f} B"
    digits, suffix = _scaled(value, (" B", " kB", " MB", " GB", " TB"))
    return _signed(digits + suffix)


def decimals(value: float) -> str:
    """Three decimals: losses in nats per token, bits per byte."""
    return _signed(f"{value:.3f}")


def difference(value: float) -> str:
    """Three decimals with the sign, for differences of losses: ``−0.120``, ``+0.031``."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else _signed(text)


def percent(value: float) -> str:
    """A share in percent: ``31 %``, ``0.4 %``."""
    digits = 0 if abs(value) >= 0.0995 or value == 0 else 1
    return _signed(f"{100 * value:.{digits}f} %")


def times(value: float) -> str:
    """A ratio: ``3.42×``, ``12.3×``."""
    return f"{value:.{2 if abs(value) < 10 else 1}f}{TIMES}"


def learning_rate(value: float) -> str:
    """``3e-4``, ``1.5e-3``, ``0``."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Unit(NamedTuple):
    """How the figures of one key are written.

    Args:
        write: number to text.
        name: the unit, where the text does not say it already.
    """

    write: Callable[[float], str]
    name: str = ""


_EXACT: dict[str, Unit] = {
    "loss": Unit(decimals, "nats/token"),
    "bits_per_byte": Unit(decimals, "bits/byte"),
    "flops": Unit(scientific, "FLOPs"),
    "flops_per_token": Unit(scientific, "FLOPs/token"),
    "teacher_flops": Unit(scientific, "FLOPs"),
    "decode_tokens_per_second": Unit(count, "tokens/s"),
    "prefill_tokens_per_second": Unit(count, "tokens/s"),
    "tokens_per_second": Unit(count, "tokens/s"),
    "parameters": Unit(amount, "parameters"),
    "non_embedding_parameters": Unit(amount, "parameters"),
    "tokens": Unit(amount, "tokens"),
    "documents": Unit(count, "documents"),
    "steps": Unit(count, "steps"),
    "threads": Unit(count, "threads"),
    "vocab_size": Unit(count, "ids"),
    "epochs": Unit(lambda value: _signed(f"{value:.2f}"), "epochs"),
    "lr": Unit(learning_rate),
    "learning_rate": Unit(learning_rate),
    "seed": Unit(lambda value: f"{value:.0f}"),
}
_ENDINGS: tuple[tuple[str, Unit], ...] = (
    ("_per_second", Unit(count, "per second")),
    ("seconds", Unit(seconds)),
    ("bytes", Unit(size)),
    ("flops", Unit(scientific, "FLOPs")),
    ("tokens", Unit(amount, "tokens")),
    ("parameters", Unit(amount, "parameters")),
    ("documents", Unit(count, "documents")),
    ("_ratio", Unit(times)),
    ("_fraction", Unit(percent)),
    ("_share", Unit(percent)),
    ("loss", Unit(decimals, "nats/token")),
    ("losses", Unit(decimals, "nats/token")),
    ("_lr", Unit(learning_rate)),
)


def unit_of(key: str) -> Unit:
    """How to write a figure, by the name that it has in ``result.json``."""
    if key in _EXACT:
        return _EXACT[key]
    for ending, unit in _ENDINGS:
        if key.endswith(ending):
            return unit
    return Unit(seconds) if "seconds" in key.split("_") else Unit(short)


def words(key: str) -> str:
    """A key as a label: ``non_embedding_parameters`` is ``Non-embedding parameters``."""
    known = {
        "non_embedding_parameters": "Non-embedding parameters",
        "lr": "Learning rate",
        "seconds": "Time",
        "seconds_training": "Time in training steps",
        "loss": "Held-out loss",
        "mfu": "Model FLOPs utilisation",
    }
    if key in known:
        return known[key]
    label = " ".join({"sha256": "SHA-256", "flops": "FLOPs"}.get(w, w) for w in key.split("_") if w)
    return label[:1].upper() + label[1:]


def listing(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
