"""Numbers as text, against plain arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.report import format as written

_FACTOR = {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1.00k"), (1_183_744, "1.18M"), (15.2e9, "15.2B"),
        (999_499, "999k"), (999_999, "1.00M"), (300_000, "300k"), (-2500, "\N{MINUS SIGN}2.50k"),
    ],
)  # fmt: skip
def test_amount(value: float, text: str) -> None:
    assert written.amount(value) == text


@given(st.integers(0, 10**14))
def test_amount_is_within_half_a_percent(value: int) -> None:
    text = written.amount(value)
    digits = text.rstrip("kMBT")
    assert abs(float(digits) * _FACTOR[text[len(digits) :]] - value) <= 0.0051 * value
    assert len(digits) <= 5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: written.scientific(3.4e12), "3.40e12"),
        (lambda: written.scientific(0), "0"),
        (lambda: written.seconds(125), "2m05s"),
        (lambda: written.seconds(3.21), "3.2s"),
        (lambda: written.seconds(9.97), "10s"),
        (lambda: written.size(812), "812 B"),
        (lambda: written.size(4_733_012), "4.73 MB"),
        (lambda: written.percent(0.504), "50 %"),
        (lambda: written.percent(0.0042), "0.4 %"),
        (lambda: written.times(1.43), "1.43\N{MULTIPLICATION SIGN}"),
        (lambda: written.times(12.34), "12.3\N{MULTIPLICATION SIGN}"),
        (lambda: written.difference(-0.12), "\N{MINUS SIGN}0.120"),
        (lambda: written.difference(0.0312), "+0.031"),
        (lambda: written.difference(-0.0001), "0.000"),
        (lambda: written.learning_rate(0.0015), "1.5e-3"),
        (lambda: written.learning_rate(3e-4), "3e-4"),
        (lambda: written.short(0.25), "0.25"),
        (lambda: written.short(1234), "1,234"),
        (lambda: written.short(1.5e-5), "1.5e-5"),
        (lambda: written.short(0.00001), "1e-5"),
        (lambda: written.axis_amount(1_250_000), "1.25M"),
        (lambda: written.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_forms(call, text: str) -> None:  # type: ignore[no-untyped-def]
    assert call() == text


@given(st.floats(-1e300, 1e300))
def test_everything_can_be_written(value: float) -> None:
    for write in (written.amount, written.scientific, written.short, written.size, written.decimals,
                  written.difference, written.percent, written.times, written.axis_amount,
                  written.count, written.seconds, written.learning_rate):  # fmt: skip
        assert write(value)


def test_keys_tell_their_unit() -> None:
    assert written.unit_of("seconds_training").write(125) == "2m05s"
    assert written.unit_of("total_bytes").write(2000) == "2.00 kB"
    assert written.unit_of("validation_loss").name == "nats/token"
    assert written.unit_of("tokens_per_second").name == "tokens/s"
    assert written.words("non_embedding_parameters") == "Non-embedding parameters"
    assert written.words("search_flops") == "Search FLOPs"
    assert written.words("flops") == "FLOPs"
    assert written.words("weights_sha256") == "Weights SHA-256"
