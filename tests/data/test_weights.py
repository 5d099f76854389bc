"""Blends, against tables computed by hand and against their definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from regrow.core.errors import ConfigError, InputError
from regrow.data.settings.sample import SampleConfig, WeightsConfig
from regrow.data.weights import OTHER, Buckets, bucketed, spread, table

# 10 + 30 + 60 million tokens.
COUNTS = {"law": 10_000_000, "code": 30_000_000, "web": 60_000_000}


def millions(counts: dict[str, int], multipliers: dict[str, float] | None = None, **settings: Any):
    shares = spread(counts, WeightsConfig(**settings), multipliers)
    return {name: round(share.tokens / 1e6, 6) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"law": 10, "code": 30, "web": 60}),
        ({"total_tokens": 50_000_000}, {"law": 5, "code": 15, "web": 30}),
        ({"total_tokens": 45e6, "method": "uniform"}, {"law": 15, "code": 15, "web": 15}),
        # Shares are as 1 : 9 : 36 of 46 parts.
        (
            {"total_tokens": 46_000_000, "method": "alpha", "alpha": 2.0},
            {"law": 1, "code": 9, "web": 36},
        ),
        # 60 / 3 = 20 each; law can give 10, and 50 / 2 = 25 are left for each of the others.
        (
            {"total_tokens": 60_000_000, "method": "unimax", "max_epochs": 1.0},
            {"law": 10, "code": 25, "web": 25},
        ),
        # 120 / 3 = 40: law 20; 100 / 2 = 50 for code and for web.
        (
            {"total_tokens": 120_000_000, "method": "unimax", "max_epochs": 2.0},
            {"law": 20, "code": 50, "web": 50},
        ),
        # law 20, code 60 (65 are offered), web the rest.
        (
            {"total_tokens": 150_000_000, "method": "unimax", "max_epochs": 2.0},
            {"law": 20, "code": 60, "web": 70},
        ),
        (
            {
                "total_tokens": 300_000_000,
                "method": "unimax",
                "max_epochs": 2.0,
                "allow_short": True,
            },
            {"law": 20, "code": 60, "web": 120},
        ),
        # 3 : 1 : 0.
        (
            {
                "total_tokens": 8_000_000,
                "method": "manual",
                "weights": {"web": 0.0, "code": 0.25, "law": 0.75},
            },
            {"law": 6, "code": 2, "web": 0},
        ),
        # Manual under a cap: law can give 10 of its 30, code takes the rest.
        (
            {
                "total_tokens": 40_000_000,
                "method": "manual",
                "max_epochs": 1.0,
                "weights": {"web": 1, "code": 1, "law": 6},
            },
            {"law": 10, "code": 15, "web": 15},
        ),
    ],
)
def test_tables_computed_by_hand(settings: dict[str, Any], expected: dict[str, float]) -> None:
    assert millions(COUNTS, **settings) == expected


def test_alpha_of_the_paper_and_multipliers_by_hand() -> None:
    powers = {name: count**1.3 for name, count in COUNTS.items()}
    found = spread(COUNTS, WeightsConfig(method="alpha", alpha=1.3))
    for name, share in found.items():
        assert share.share == pytest.approx(powers[name] / sum(powers.values()), rel=1e-12)
        assert share.epochs == pytest.approx(share.tokens / COUNTS[name], rel=1e-12)
    assert found["web"].epochs > 1 > found["law"].epochs
    # 2 * 10 : 1 * 30 : 0.5 * 60 of 80 parts.
    halves = {"law": 2.0, "web": 0.5}
    assert millions(COUNTS, halves, total_tokens=80_000_000) == {"law": 20, "code": 30, "web": 30}
    # unimax, 2 : 1 : 1: law would get 40, has 10; the rest is even.
    given = {"total_tokens": 80_000_000, "method": "unimax", "max_epochs": 1.0}
    assert millions(COUNTS, {"law": 2.0}, **given) == {"law": 10, "code": 30, "web": 40}
    assert millions(COUNTS, {"law": 0.0}, total_tokens=9_000_000)["law"] == 0


counts = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(1, 10**12), min_size=1, max_size=8
)


@given(counts, st.floats(0.01, 8), st.floats(0.001, 1))
def test_unimax_is_the_loop_of_its_paper(counts: dict[str, int], cap: float, part: float) -> None:
    budget = max(1, int(part * cap * sum(counts.values())))
    left, expected = float(budget), {}
    ascending = sorted(counts, key=lambda name: (counts[name], name))
    for place, name in enumerate(ascending):
        share = left / (len(ascending) - place)
        expected[name] = min(share, cap * counts[name])
        left -= expected[name]
    config = WeightsConfig(method="unimax", max_epochs=cap, total_tokens=budget, allow_short=True)
    for name, share in spread(counts, config).items():
        assert share.tokens == pytest.approx(expected[name], rel=1e-9, abs=1e-3)


@given(
    counts,
    st.sampled_from(["proportional", "uniform", "alpha", "unimax"]),
    st.floats(0.1, 3),
    st.floats(0.05, 4),
    st.floats(0.01, 1),
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 100)),
)
def test_what_holds_of_every_blend(
    counts: dict[str, int],
    method: str,
    alpha: float,
    cap: float,
    part: float,
    multipliers: dict[str, float],
) -> None:
    budget = max(1, math.floor(part * cap * sum(counts.values())))
    if budget > cap * sum(counts.values()):
        return
    config = WeightsConfig(
        method=method,
        alpha=alpha if method == "alpha" else None,
        max_epochs=cap,
        total_tokens=budget,
    )
    shares = spread(counts, config, multipliers)
    assert list(shares) == list(counts)
    assert math.fsum(s.tokens for s in shares.values()) == pytest.approx(budget, rel=1e-9)
    assert math.fsum(s.share for s in shares.values()) == pytest.approx(1)
    assert all(s.epochs <= cap * (1 + 1e-9) for s in shares.values())
    # Those that are not full have tokens in proportion to their preference, the full ones less.
    power = {"uniform": 0.0, "unimax": 0.0, "proportional": 1.0, "alpha": alpha}[method]
    levels = {
        name: s.tokens / (counts[name] ** power * multipliers.get(name, 1.0))
        for name, s in shares.items()
    }
    free = [levels[n] for n, s in shares.items() if s.epochs < cap * (1 - 1e-6)]
    if free:
        assert max(free) == pytest.approx(min(free), rel=1e-6)
        full = [levels[n] for n, s in shares.items() if s.epochs >= cap * (1 - 1e-6)]
        assert all(level <= free[0] * (1 + 1e-6) for level in full)


def test_budgets_and_weights_that_cannot_be() -> None:
    with pytest.raises(ConfigError) as error:
        millions(COUNTS, method="unimax", max_epochs=2.0, total_tokens=300_000_000)
    assert "300,000,000 is more than 2 times the 100,000,000 tokens" in str(error.value)
    assert "set it to 200,000,000 or less, max_epochs to 3 or more" in str(error.value)
    with pytest.raises(ConfigError, match="no bucket 'cod', did you mean code"):
        millions(COUNTS, method="manual", weights={"cod": 1.0})
    with pytest.raises(ConfigError, match="say nothing of code, web; 0 leaves a bucket out"):
        millions(COUNTS, method="manual", weights={"law": 1.0})
    with pytest.raises(ConfigError, match="leave out every bucket"):
        millions({"a": 1}, {"a": 0.0})
    with pytest.raises(InputError, match="bucket 'a' has 0 tokens"):
        millions({"a": 0})
    with pytest.raises(InputError, match="no bucket"):
        millions({})
    for given_, part in (
        ({"method": "unimax"}, "max_epochs: is needed with method=unimax"),
        ({"method": "alpha"}, "alpha: is needed"),
        ({"method": "manual"}, "weights: is needed"),
        ({"alpha": 1.3}, "alpha: has no effect with method=proportional"),
        ({"weights": {"a": 1.0}}, "weights: has no effect"),
        ({"allow_short": True}, "allow_short: has no effect"),
        ({"method": "alpha", "alpha": 0.0}, "greater than 0"),
    ):
        with pytest.raises(ValidationError, match=part):
            WeightsConfig(**given_)


def test_buckets_of_two_attributes_by_hand() -> None:
    config = SampleConfig(
        buckets=("quality", "domain"),
        groups={"domain": {"Science": ("Physics", "Biology")}},
        multipliers={"quality": {"High": 2.0, "Low": 0.5}, "domain": {"Biology": 3.0}},
    )
    counts = {
        ("High", "Physics"): 600,
        ("High", "Biology"): 200,
        ("Low", "Physics"): 100,
        ("High", "Law & order"): 95,
        ("Low", "Games"): 3,  # 0.3 %
        ("High", "Games"): 2,  # 0.2 %
    }
    found = bucketed(counts, config)
    assert found == Buckets(
        {
            ("High", "Physics"): "High_Science",
            ("High", "Biology"): "High_Science",
            ("Low", "Physics"): "Low_Science",
            ("High", "Law & order"): "High_Law-order",
            ("Low", "Games"): OTHER,
            ("High", "Games"): OTHER,
        },
        {"High_Law-order": 95, "High_Science": 800, "Low_Science": 100, OTHER: 5},
        {
            "High_Law-order": 2.0,
            "High_Science": (600 * 2 + 200 * 6) / 800,
            "Low_Science": 0.5,
            OTHER: (3 * 0.5 + 2 * 2.0) / 5,
        },
    )
    assert list(found.tokens)[-1] == OTHER
    assert OTHER not in bucketed(counts, config.model_copy(update={"min_share": 0.0})).tokens
    sources = bucketed({("a",): 1, ("b",): 9999}, SampleConfig())
    assert sources.tokens == {"a": 1, "b": 9999}  # sources keep their names
    total = table(spread(found.tokens, config, found.multipliers))
    assert total["total_tokens"] == pytest.approx(1000)


def test_buckets_that_cannot_be() -> None:
    counts = {("High",): 5, ("Low",): 5}
    with pytest.raises(InputError, match="no document has 'Hihg' as its quality, did you mean"):
        bucketed(
            counts,
            SampleConfig(buckets=("quality",), multipliers={"quality": {"Hihg": 2.0}}),
        )
    with pytest.raises(InputError, match=r"groups\.quality\.Fine: no document has 'Best'"):
        bucketed(
            counts, SampleConfig(buckets=("quality",), groups={"quality": {"Fine": ("Best",)}})
        )
    with pytest.raises(InputError, match="'a b' and 'a/b' would both be called 'a-b'"):
        bucketed({("a b",): 5, ("a/b",): 5}, SampleConfig())
    with pytest.raises(ValidationError, match="'domain' is no column of buckets"):
        SampleConfig(buckets=("quality",), multipliers={"domain": {"Law": 2.0}})
    with pytest.raises(ValidationError, match="'x' stands twice"):
        SampleConfig(groups={"source": {"a": ("x",), "b": ("x",)}})
