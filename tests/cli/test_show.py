"""Figures on the terminal carry the unit that their name says."""

from __future__ import annotations

import pytest

from regrow.cli.show import figure


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("flops", 17_199_000_000, "17.199 GFLOP"),
        ("flops_per_token", 5_847_300, "5.8473 MFLOP"),
        ("teacher_flops", 1_833_467_305_594_957_332_480, "1.83e+21 FLOP"),
        ("search_flops", 186_441_088_305_725_440, "186.44 PFLOP"),
        ("checkpoint_bytes", 54_500_000_000, "54.5 GB"),
        ("parameters", 8_030_261_248, "8,030,261,248 (8.03B)"),
        ("loss", None, "-"),
    ],
)
def test_a_figure_is_written_with_its_unit(name: str, value: float | None, shown: str) -> None:
    assert figure(name, value) == shown


def test_flops_by_child_are_flops() -> None:
    assert figure("child_flops", {"half": 2.0e9}) == "half 2 GFLOP"
