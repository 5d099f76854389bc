"""Patterns from ratios: the published ones exactly, and what must hold of any."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.pattern import allocate
from regrow.model.presets import PRESETS
from regrow.model.shape_config import MambaShape, ShapeConfig


def test_the_published_patterns() -> None:
    assert allocate(56, 0.08, 0.5) == PRESETS["mamba2-hybrid-8b"].pattern
    assert [i for i, s in enumerate(allocate(56, 0.08, 0.5)) if s == "*"] == [10, 22, 33, 45]
    assert allocate(48, 0.08, 0.5) == "M-M-M--M-*M-M-M-M--*M-M-M-M-*M--M-M-M-*M-M--M-M-"
    assert allocate(6, 0.0, 0.0) == "MMMMMM"
    assert allocate(3, 1.0, 0.0) == "***"
    assert allocate(4, 0.0, 0.5) == "M-M-"


@given(st.integers(1, 120), st.floats(0, 1), st.floats(0, 1))
def test_counts_and_spread(layers: int, attention: float, share: float) -> None:
    mlp = share * (1 - attention)
    wanted = round(layers * attention), round(layers * mlp)
    if sum(wanted) > layers:  # both rounded up
        with pytest.raises(ValueError, match="lower one of them"):
            allocate(layers, attention, mlp)
        return
    pattern = allocate(layers, attention, mlp)
    assert len(pattern) == layers
    assert (pattern.count("*"), pattern.count("-")) == wanted
    places = [-1, *(i for i, s in enumerate(pattern) if s == "*"), layers]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert max(gaps) - min(gaps) <= 1


def test_settings_give_a_pattern() -> None:
    settings = ShapeConfig(
        layers=10, hidden_size=64, attention_ratio=0.2, mlp_ratio=0.4, mamba=MambaShape(state=16)
    )
    model = settings.resolve(100, 1)
    assert model.pattern == allocate(10, 0.2, 0.4)
    assert model.layout == "nemotron_h"
    assert model.mamba is not None
    assert (model.mamba.state, model.mamba.heads, model.mamba.groups) == (16, 2, 2)
    with pytest.raises(ConfigError, match="leave one out"):
        ShapeConfig(layers=4, pattern="M-M-", mlp_ratio=0.5).resolve(100, 1)
    with pytest.raises(ConfigError, match="layers: required"):
        ShapeConfig(hidden_size=64, mlp_ratio=0.5).resolve(100, 1)
    with pytest.raises(ValueError, match=r"4 \+ 2 blocks"):
        ShapeConfig(layers=4, hidden_size=64, attention_ratio=0.9, mlp_ratio=0.5)


def test_a_preset_with_changes_keeps_the_rest() -> None:
    narrow = ShapeConfig(preset="mamba2-hybrid-8b", hidden_size=2048).resolve(1, 1)
    assert narrow.mamba is not None
    assert (narrow.mamba.heads, narrow.mamba.state, narrow.mamba.chunk) == (64, 128, 128)
    small = ShapeConfig(preset="mamba2-hybrid-8b", mamba=MambaShape(state=64)).resolve(1, 1)
    assert small.mamba is not None
    assert (small.mamba.heads, small.mamba.state) == (128, 64)
    other = ShapeConfig(preset="mamba2-8b", attention_ratio=0.08, heads=32).resolve(1, 1)
    assert other.pattern == allocate(56, 0.08, 0.0)
    plain = ShapeConfig(preset="mamba2-hybrid-8b", layers=2, pattern="*-*-").resolve(1, 1)
    assert plain.mamba is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "M-E"}, "'E' at index 2 .mixture of experts"),
        ({"pattern": "MG-"}, "'G' at index 1 .gated delta net"),
        ({"pattern": "M-/"}, "'/' at index 2 .multi-token"),
        ({"pattern": "M*-", "heads": 0}, "heads is needed"),
        ({"pattern": "*-*", "mamba": {}}, "mamba is set, but"),
        ({"pattern": "M--", "mamba": {"head_dim": 48}}, "mamba.head_dim of 32, 64"),
        (
            {"pattern": "M--", "mamba": {"heads": 6, "groups": 4}},
            "nearest legal mamba.groups: 2, 3",
        ),
        ({"pattern": "M--", "mamba": {"dt_min": 1.0}}, "dt_min .1.0. exceeds dt_max"),
    ],
)
def test_impossible_patterns(settings: dict[str, object], message: str) -> None:
    shape = {"layers": 3, "hidden_size": 64, "heads": 4, "vocab_size": 100}
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate(shape | settings, strict=False)


def test_a_pipeline_cut_is_passed_over() -> None:
    shape = ModelConfig(layers=4, pattern="M-|M-", hidden_size=64, vocab_size=9)
    assert shape.pattern == "M-M-"
    assert (shape.heads, shape.kv_heads, shape.head_dim) == (0, 0, 0)
    assert MambaConfig().resolve(64).groups == 2
