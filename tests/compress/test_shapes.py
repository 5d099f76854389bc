"""Targets: closed forms, legal shapes, budgets, and what is said of illegal ones."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from regrow.compress.prune_config import BudgetTarget, PruneConfig, ShapeTarget
from regrow.compress.shape_search import count, enumerate_shapes, within
from regrow.compress.shapes import target_config
from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shapes import non_embedding_parameters, parameters
from tests.compress.makers import small


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["swiglu", "relu2"]),
    st.sampled_from(["rmsnorm", "layernorm1p"]),
)
def test_counts_of_many_shapes_are_those_of_each(
    layers: int, hidden: int, inner: int, each: int, kv: int,
    biases: bool, tied: bool, qk_norm: bool, activation: str, norm: str,
) -> None:  # fmt: skip
    common = {
        "head_dim": 6, "vocab_size": 61, "qkv_bias": biases, "output_bias": biases,
        "mlp_bias": biases, "tie_embeddings": tied, "qk_norm": qk_norm,
        "activation": activation, "norm": norm,
    }  # fmt: skip
    exact = ModelConfig(
        layers=layers, hidden_size=hidden, intermediate_size=inner, heads=each * kv,
        kv_heads=kv, **common,
    )  # fmt: skip
    arrays = (np.array([n]) for n in (layers, hidden, inner, each * kv, kv))
    total, inside = count(ModelConfig(layers=9, hidden_size=96, heads=16, **common), *arrays)
    assert total[0] == parameters(exact)
    assert inside[0] == non_embedding_parameters(exact)


def test_enumeration_is_every_multiple_and_every_one_is_legal() -> None:
    source = small(head_dim=4)
    budget = BudgetTarget(
        parameters=0.5, axes=("hidden", "mlp", "heads", "layers"), hidden_align=8, mlp_align=16
    )
    found = enumerate_shapes(source, budget)
    expected = {
        (layers, hidden, inner, heads)
        for layers in (2, 3, 4)
        for hidden in (8, 16, 24, 32)
        for inner in (16, 32, 48)
        for heads in (2, 4, 6, 8)
        if hidden % heads == 0  # what the stock llama class asks for
    }
    shown = zip(found.layers, found.hidden_size, found.intermediate_size, found.heads, strict=True)
    assert {tuple(map(int, row)) for row in shown} == expected
    for row in range(0, len(found), 7):
        config = found.config(source, row)
        assert parameters(config) == found.parameters[row]
        assert not ADAPTERS.get("llama").check(config)


def test_heads_with_their_own_keys_go_together() -> None:
    source = small(kv_heads=8, layers=2)
    budget = BudgetTarget(parameters=0.5, axes=("heads",))
    found = enumerate_shapes(source, budget)
    assert (found.heads == found.kv_heads).all()
    assert found.heads.max() == 8


@pytest.mark.parametrize("name", ["parameters", "non_embedding_parameters"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("hidden", [192, 256, 320])
def test_budget_default_is_even_and_near(name: str, share: float, hidden: int) -> None:
    source = ModelConfig(layers=6, hidden_size=hidden, heads=8, kv_heads=4, vocab_size=4096)
    budget = BudgetTarget(**{name: share})
    found = within(source, budget).config(source, 0)
    figure = parameters if name == "parameters" else non_embedding_parameters
    assert abs(figure(found) / (share * figure(source)) - 1) <= 0.05
    assert (found.layers, found.heads, found.kv_heads, found.head_dim) == (6, 8, 4, hidden // 8)
    assert found.hidden_size % 16 == 0
    ratio = found.hidden_size / source.hidden_size
    inner = found.intermediate_size / source.intermediate_size
    assert abs(math.log(ratio / inner)) < 0.2


def test_absolute_budget_and_the_order_of_candidates() -> None:
    source = PRESETS["nemotron4-15b"]
    budget = BudgetTarget(non_embedding_parameters=6.2e9, axes=("hidden", "mlp", "heads"))
    began = time.perf_counter()
    found = within(source, budget)
    counted = len(enumerate_shapes(source, budget))
    # 1e5 shapes a second are asked for; a tenth of it leaves room for a busy machine.
    assert 2 * counted / (time.perf_counter() - began) > 1e4
    assert (np.abs(found.non_embedding_parameters / 6.2e9 - 1) <= 0.05).all()
    assert len(found) > 100


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"parameters": 1e9}, r"more than the .* of the source"),
        ({"parameters": 0.002}, "nearest above"),
        ({"memory_mb": 0.001}, "nearest above(.|\n)*memory is also of sequence and batch"),
        ({"parameters": 0.501, "tolerance": 1e-6}, "nearest below"),
    ],
)
def test_budgets_that_cannot_be_met(budget: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        within(small(), BudgetTarget(**budget))
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"hidden_size": 40}, "shape.hidden_size: 40 is more than the 32"),
        ({"layers": 1}, "nearest legal layers: 2 or 3"),
        ({"heads": 5}, "nearest legal heads: 4 or 6"),
        ({"heads": 8, "kv_heads": 1}, "at most 4 each, the same number in each; nearest"),
        ({"hidden_size": 30}, "nearest legal hidden_size: 24 or 32"),
    ],
)
def test_illegal_shapes_are_refused_with_the_nearest_legal(
    target: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        target_config(small(), ShapeTarget(**target))
    assert message in str(caught.value)


def test_what_is_not_given_stays() -> None:
    source = small()
    assert target_config(source, ShapeTarget(hidden_size=32)) == source
    cut = target_config(source, ShapeTarget(kv_heads=1))
    assert (cut.heads, cut.kv_heads) == (4, 1)
    own = small(kv_heads=8)
    cut = target_config(own, ShapeTarget(heads=4))
    assert (cut.heads, cut.kv_heads) == (4, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=m", "scores=s"], "give one of shape, budget"),
        (["model=m", "shape.heads=4"], "scores is missing"),
        (["model=m", "scores=s", "shape.heads=4", "budget.parameters=0.5"], "not both"),
        (["model=m", "scores=s", "selection=random", "shape.heads=4"], "has no effect"),
        (["model=m", "scores=s", "shape={}"], "at least one of"),
        (["model=m", "scores=s", "budget.tolerance=0.1"], "one of parameters"),
        (["model=m", "scores=s", "budget={parameters: 0.5, axes: [mlp], hidden_align: 8}"], "axes"),
    ],
)
def test_settings_that_contradict_each_other(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PruneConfig, overrides=words)
    assert message in str(caught.value)


def test_shape_target_needs_a_size() -> None:
    with pytest.raises(ValidationError, match="at least one of"):
        ShapeTarget()
