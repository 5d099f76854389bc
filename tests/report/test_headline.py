"""The sentences of a family's page are true whichever way the figures came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrow.report.family import Family
from regrow.report.headline import headline, verdict
from regrow.report.record import RunFolder
from tests.report.family_run import family_models, family_result


def sentences(models: list[dict[str, Any]], **cost: Any) -> list[str]:
    result = family_result(models)
    result["cost"] |= cost
    return headline(Family(RunFolder(Path("nowhere"), result)))


def with_losses(**losses: float) -> list[dict[str, Any]]:
    models = family_models()
    for model in models:
        model["loss"] = losses.get(model["name"].replace("-", "_"), model["loss"])
    return models


def test_figures_of_the_first_sentence() -> None:
    first = sentences(family_models())[0]
    assert first == (
        "4 models from one base: 2 children at 50 % and 31 % of its non-embedding parameters, "
        "the family for 1.43\N{MULTIPLICATION SIGN} fewer FLOPs than training each from scratch."
    )


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.8, "1.25\N{MULTIPLICATION SIGN} more FLOPs than"),
        (1.001, "as many FLOPs as"),
        (3.42, "3.42\N{MULTIPLICATION SIGN} fewer FLOPs than"),
    ],
)
def test_the_price_may_be_higher(ratio: float, said: str) -> None:
    assert said in sentences(family_models(), flops_ratio=ratio)[0]


def test_every_child_better() -> None:
    told = sentences(with_losses(child_50=3.8, scratch_50=4.0, child_30=4.0, scratch_30=4.1))[1]
    assert told == (
        "On held-out text every child is better than its from-scratch twin at equal tokens, "
        "by 0.200 and 0.100 nats per token."
    )


def test_a_child_that_loses_is_said_to() -> None:
    told = sentences(family_models())[1]
    assert "child-50 is better than its from-scratch twin at equal tokens by 0.260" in told
    assert "child-30 loses to its from-scratch twin at equal tokens by 0.019" in told


def test_every_child_loses() -> None:
    told = sentences(with_losses(child_50=4.2, scratch_50=4.0, child_30=4.5, scratch_30=4.1))[1]
    assert told.startswith("On held-out text every child loses to its from-scratch twin")


def test_no_difference() -> None:
    told = sentences(with_losses(child_50=4.0, scratch_50=4.0001))[1]
    assert "child-50 is as good as its from-scratch twin" in told


def test_unequal_tokens_are_not_called_equal() -> None:
    models = family_models()
    next(m for m in models if m["name"] == "scratch-50")["tokens"] = 400_000
    assert "equal tokens" not in " ".join(sentences(models))


def test_the_bigram_may_be_better() -> None:
    assert "15 % fewer than an interpolated bigram" in sentences(family_models())[2]
    models = family_models()
    models[0]["bits_per_byte"]["all"] = 3.0
    assert "31 % more than an interpolated bigram" in sentences(models)[2]


def test_one_model_alone() -> None:
    only = [{"name": "base", "kind": "base"}]
    assert headline(Family(RunFolder(Path("nowhere"), {"models": only}))) == ["1 model."]


def test_relations() -> None:
    family = Family(RunFolder(Path("nowhere"), family_result(family_models())))
    first, second = family.comparisons()
    assert [m and m.name for m in (first.child, first.twin, first.pruned, first.longer)] == [
        "child-50", "scratch-50", "pruned-50", "scratch-50-2x",
    ]  # fmt: skip
    assert (verdict(first), verdict(second)) == ("better", "worse")
    assert family.start_tokens(second.child) == 1_000_000 + 300_000 + 300_000
    assert second.twin is not None
    assert family.start_tokens(second.twin) == 0
