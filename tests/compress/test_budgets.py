"""Budgets of several kinds: closed forms against built models, bounds that hold, what is said."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.compress.budgets import MB, memory_bytes
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import SHAPE, config_of, enumerate_shapes, evenness, within
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.presets import PRESETS
from regrow.model.shapes import non_embedding_parameters, parameters
from tests.compress.makers import small

SIZES = MambaConfig(state=5, head_dim=8, heads=8, groups=2, chunk=4, conv=3)
HYBRID = small(pattern="M-M*-M", layers=6, mamba=SIZES, layout="nemotron_h", activation="relu2")
PURE = ModelConfig(
    layers=2, pattern="MM", hidden_size=32, vocab_size=61,
    mamba=SIZES.replace(groups=1, proj_bias=True),
)  # fmt: skip
SOURCES: dict[str, ModelConfig] = {
    "grouped": small(),
    "own keys": small(kv_heads=8, layers=3, layout="mistral"),
    "hybrid": HYBRID,
    "mamba2": PURE,
}
AXES: dict[str, tuple[Any, ...]] = {
    "grouped": ("hidden", "mlp", "heads", "kv_heads", "layers"),
    "own keys": ("hidden", "mlp", "heads", "layers"),
    "hybrid": ("hidden", "mlp", "heads", "mamba_heads", "mamba_head_dim"),
    "mamba2": ("hidden", "mamba_heads", "mamba_head_dim"),
}


def budget_for(name: str, **settings: Any) -> BudgetTarget:
    given = {"parameters": 0.5, "axes": AXES[name], "batch": 3, "sequence": 40, **settings}
    if "hidden" in given["axes"]:
        given["hidden_align"] = 8
    if "mlp" in given["axes"]:
        given["mlp_align"] = 8
    return BudgetTarget(**given)


@pytest.mark.parametrize("name", SOURCES)
def test_memory_is_what_weights_and_caches_take(name: str) -> None:
    source = SOURCES[name]
    model = Decoder(source)
    weights = sum(p.nbytes for p in model.parameters())
    cache = model.new_cache(3, 40)
    expected = weights + cache.nbytes
    assert memory_bytes(source, budget_for(name, dtype="fp32")) == expected
    narrow = Decoder(source).to(torch.bfloat16)
    # Decay rates, skips and time-step biases stay in fp32: the form counts them like the rest.
    wide = sum(p.nbytes // 2 for n, p in narrow.named_parameters() if p.dtype == torch.float32)
    found = memory_bytes(source, budget_for(name, dtype="bf16"))
    taken = sum(p.nbytes for p in narrow.parameters()) + narrow.new_cache(3, 40).nbytes
    assert found == taken - wide
    assert (wide > 0) == ("M" in source.pattern)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SOURCES)), st.integers(0, 1 << 30), st.sampled_from(["bf16", "fp32"]))
def test_figures_of_many_shapes_are_those_of_each(name: str, row: int, dtype: str) -> None:
    source, budget = SOURCES[name], budget_for(name, dtype=dtype)
    found = enumerate_shapes(source, budget)
    assert len(found) > 20
    config = found.config(source, row := row % len(found))
    assert found.parameters[row] == parameters(config)
    assert found.non_embedding_parameters[row] == non_embedding_parameters(config)
    assert found.memory_mb[row] == pytest.approx(memory_bytes(config, budget) / MB, rel=1e-12)
    assert np.isnan(found.latency_ms[row])
    assert not ADAPTERS.get(source.layout).check(config)
    assert config.head_dim == source.head_dim
    sizes = {column: int(getattr(found, column)[row]) for column in SHAPE}
    assert config_of(source, sizes) == config


def test_every_shape_of_a_hybrid_is_there_once() -> None:
    found = enumerate_shapes(HYBRID, budget_for("hybrid"))
    expected = {
        (hidden, inner, heads, mamba_heads, width)
        for hidden in (8, 16, 24, 32)
        for inner in (16, 24, 32, 40, 48)  # no less than a quarter of 48
        for heads in (2, 4, 6, 8)
        for mamba_heads in (2, 4, 6, 8)
        for width in range(2, 9)
    }
    columns = ("hidden_size", "intermediate_size", "heads", "mamba_heads", "mamba_head_dim")
    rows = list(zip(*(getattr(found, column).tolist() for column in columns), strict=True))
    assert len(rows) == len(set(rows))
    assert set(rows) == expected


def test_mamba2_keeps_what_its_class_asks_for() -> None:
    found = enumerate_shapes(PURE, budget_for("mamba2"))
    inner = found.mamba_heads * found.mamba_head_dim
    assert len(found) > 20
    assert (inner % found.hidden_size == 0).all()


@pytest.mark.parametrize("cut", [0.2, 0.4])
def test_no_axis_loses_more_than_allowed(cut: float) -> None:
    source = small(layers=10, hidden_size=128, intermediate_size=256)
    budget = BudgetTarget(
        parameters=0.5, axes=AXES["grouped"], max_width_cut=cut, max_depth_cut=cut / 2
    )
    found = enumerate_shapes(source, budget)
    for column in ("hidden_size", "intermediate_size", "kv_heads"):
        assert getattr(found, column).min() >= (1 - cut) * getattr(source, column) - 1e-9
        assert getattr(found, column).max() == getattr(source, column)
    assert found.layers.min() == round(10 * (1 - cut / 2))


def test_all_bounds_hold_together() -> None:
    source = PRESETS["llama31-8b"]
    alone = BudgetTarget(parameters=4.5e9, axes=("hidden", "mlp", "kv_heads", "layers"))
    both = alone.replace(memory_mb=12_000, batch=8, sequence=8192)
    found, fewer = within(source, alone), within(source, both)
    assert 0 < len(fewer) < len(found)
    assert (np.abs(fewer.parameters / 4.5e9 - 1) <= 0.05).all()
    assert (fewer.memory_mb <= 12_000).all()
    config = fewer.config(source, 0)
    keys = 8 * 8192 * 2 * config.layers * config.kv_heads * 128 * 2
    assert fewer.memory_mb[0] == pytest.approx((2 * parameters(config) + keys) / 1e6)
    third = both.replace(non_embedding_parameters=3.6e9)
    last = within(source, third)
    assert 0 < len(last) <= len(fewer)
    assert (np.abs(last.non_embedding_parameters / 3.6e9 - 1) <= 0.05).all()
    order = evenness(source, last, third)
    assert order[0] <= np.median(order)


def test_memory_alone_is_used_but_not_exceeded() -> None:
    source = PRESETS["nemotronh-8b"]
    budget = BudgetTarget(
        memory_mb=10_000, axes=("hidden", "mlp", "mamba_heads"), sequence=8192, batch=4
    )
    found = within(source, budget)
    assert len(found) > 5
    assert found.memory_mb.max() <= 10_000
    assert found.memory_mb.min() >= 9_500
    assert memory_bytes(found.config(source, 0), budget) / MB == found.memory_mb[0]


@pytest.mark.parametrize(
    ("source", "child", "axes"),
    [
        ("nemotron4-15b", "minitron-8b", ("hidden", "mlp")),
        ("nemotron4-15b", "minitron-4b", ("hidden", "mlp", "heads")),
        ("llama31-8b", "llama31-minitron-4b-width", ("hidden", "mlp")),
        ("llama31-8b", "llama31-minitron-4b-depth", ("layers",)),
    ],
)
def test_published_children_are_among_the_candidates(
    source: str, child: str, axes: tuple[Any, ...]
) -> None:
    whole, target = PRESETS[source], PRESETS[child]
    found = within(whole, BudgetTarget(parameters=float(parameters(target)), axes=axes))
    shapes = {tuple(int(getattr(found, c)[r]) for c in SHAPE[:5]) for r in range(len(found))}
    assert tuple(getattr(target, c) for c in SHAPE[:5]) in shapes


def test_a_hundred_thousand_shapes_a_second() -> None:
    source = PRESETS["nemotronh-8b"]
    budget = BudgetTarget(
        parameters=0.5, axes=("hidden", "mlp", "heads", "mamba_heads", "mamba_head_dim")
    )
    began = time.process_time()
    found = enumerate_shapes(source, budget)
    spent = time.process_time() - began
    assert len(found) > 1e5
    assert len(found) / spent > 1e5


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (small(), {"memory_mb": 1e3}, r"takes 0\.8\d* MB .* nothing has to be cut"),
        (small(), {"memory_mb": 1e-6}, r"nearest above: 0\.8\d+ MB with layers 4, hidden_size 16"),
        (small(), {"parameters": 1e9}, "more than the"),
        (
            small(),
            {"parameters": 0.5, "memory_mb": 1e-3},
            r"(?s)parameters within 5% and at most 0\.001 MB.*nearest below: .* parameters, ",
        ),
        (small(), {"parameters": 0.5, "sequence": 5000}, "max_positions 4096"),
        (small(), {"parameters": 0.5, "axes": ("mamba_heads",)}, "no Mamba-2 blocks"),
        (HYBRID, {"parameters": 0.5, "axes": ("layers",)}, "shape.layers or depth.drop"),
        (PURE, {"parameters": 0.5, "axes": ("mlp", "heads")}, r"(?s)mlp: .*\(-\).*heads: .*\(\*\)"),
        (
            PRESETS["nemotronh-8b"],
            {
                "parameters": 0.5, "hidden_align": 1,
                "axes": ("hidden", "mlp", "heads", "kv_heads", "mamba_heads", "mamba_head_dim"),
            },
            "are too many to compare",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_told(
    source: ModelConfig, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        within(source, BudgetTarget(**settings))
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.1}, "give at least one of parameters, non_embedding_parameters, memory"),
        ({"parameters": 0.5, "axes": ("mlp", "mlp")}, "axes names one twice"),
        ({"parameters": 0.5, "axes": ("mlp",), "hidden_align": 8}, "hidden_align has no effect"),
    ],
)
def test_settings_that_say_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BudgetTarget(**settings)
