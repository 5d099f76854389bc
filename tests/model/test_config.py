"""Shapes: what is derived, what is refused, and closed forms against published counts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.presets import PRESETS, preset
from regrow.model.shapes import (
    flops_per_token,
    forward_flops_per_token,
    kv_bytes_per_token,
    non_embedding_parameters,
    parameters,
    state_bytes,
    tensor_shapes,
    weight_bytes,
)

# Counted from the public checkpoints' own classes.
PUBLISHED = {
    "nemotron4-15b": (15_628_775_424, 12_483_047_424),
    "minitron-8b": (8_271_699_968, 6_174_547_968),
    "minitron-4b": (4_190_509_056, 2_617_645_056),
    "llama31-8b": (8_030_261_248, 6_979_588_096),
    "llama31-minitron-4b-width": (4_512_746_496, 3_724_741_632),
    "llama31-minitron-4b-depth": (4_540_469_248, 3_489_796_096),
    "mn-minitron-8b": (8_414_105_600, 7_340_363_776),
}


@pytest.mark.parametrize("name", PRESETS)
def test_counts_are_exact(name: str) -> None:
    config = PRESETS[name]
    if name in PUBLISHED:
        assert (parameters(config), non_embedding_parameters(config)) == PUBLISHED[name]
    with torch.device("meta"):
        model = Decoder(config)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == tensor_shapes(config)
    assert sum(p.numel() for p in model.parameters()) == parameters(config)


def test_the_8b_models_of_the_hybrid_study() -> None:
    """The study's table gives the sizes of each kind of block; this is that arithmetic."""
    width, inner, groups, state, heads, vocabulary = 4096, 8192, 8, 128, 128, 256_000
    mixed = inner + 2 * groups * state
    mamba = width * (inner + mixed + heads) + mixed * 5 + 3 * heads + inner + inner * width + width
    attention = 2 * width * width + 2 * width * 1024 + width
    mlp = 2 * width * 4 * width + width
    outside = 2 * vocabulary * width + width
    assert parameters(PRESETS["mamba2-8b"]) == 56 * mamba + outside
    hybrid = 24 * mamba + 4 * attention + 28 * mlp + outside
    assert parameters(PRESETS["mamba2-hybrid-8b"]) == hybrid
    billions = {n: round(parameters(PRESETS[n]) / 1e9, 2) for n in PRESETS}
    assert billions["transformer-8b"] == 8.54
    assert billions["mamba2-8b"] == 8.24
    assert billions["mamba2-hybrid-8b"] == 8.65
    assert billions["nemotronh-8b"] == 8.10
    # 16 KiB for each token, and 96 MiB of states with their windows, for the hybrid.
    assert kv_bytes_per_token(PRESETS["mamba2-hybrid-8b"]) == 16 << 10
    assert kv_bytes_per_token(PRESETS["transformer-8b"]) == 512 << 10
    windows = 24 * 3 * mixed * 2
    assert state_bytes(PRESETS["mamba2-hybrid-8b"]) == (96 << 20) + windows


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 90),
    st.sampled_from(["swiglu", "relu2", "gelu"]),
    st.sampled_from(["rmsnorm", "layernorm1p"]),
    st.tuples(*[st.booleans()] * 5),
    st.sampled_from(["", "*", "-", "-*", "**-"]),
)
def test_closed_form_equals_the_module(  # type: ignore[no-untyped-def]
    layers, kv_heads, group, half, vocab, activation, norm, flags, unit
) -> None:
    pattern = unit * layers
    config = ModelConfig(
        layers=len(pattern) or layers,
        pattern=pattern,
        hidden_size=13,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=2 * half,
        vocab_size=vocab,
        activation=activation,
        norm=norm,
        tie_embeddings=flags[0],
        qkv_bias=flags[1],
        output_bias=flags[2],
        mlp_bias=flags[3],
        qk_norm=flags[4],
    )
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(p.numel() for p in model.parameters()) == parameters(config)
    outside = sum(p.numel() for n, p in model.named_parameters() if n.startswith(("embed", "head")))
    assert parameters(config) - outside == non_embedding_parameters(config)


def test_flops_follow_the_published_convention() -> None:
    config = PRESETS["nemotron4-15b"]
    assert round(flops_per_token(config, 4096) / 1e9, 3) == 93.999
    assert forward_flops_per_token(config, 4096) == flops_per_token(config, 4096) // 3
    # Table 2 of the report: GPUs of 989.4 TFLOP/s, sequences of 4096 a step, seconds a step, MFU.
    for devices, batch, seconds, published in (
        (768, 384, 0.57, 0.343),
        (1536, 768, 0.58, 0.333),
        (2304, 1152, 0.64, 0.305),
    ):
        rate = batch * 4096 / seconds / devices
        used = flops_per_token(config, 4096) * rate / 989.4e12
        assert used == pytest.approx(published, abs=0.003)
        assert flops_per_token(config, 4096, causal=True) * rate / 989.4e12 < published - 0.013


def test_bytes() -> None:
    config = PRESETS["llama31-8b"]
    assert kv_bytes_per_token(config) == 2 * 32 * 8 * 128 * 2
    assert weight_bytes(config, 4) == 4 * parameters(config)


def test_derived_values_and_layout_defaults() -> None:
    llama = ModelConfig(layers=3, hidden_size=128, heads=4, vocab_size=100)
    assert (llama.kv_heads, llama.head_dim, llama.intermediate_size) == (4, 32, 384)
    assert (llama.norm, llama.activation, llama.pattern) == ("rmsnorm", "swiglu", "*-*-*-")
    nemotron = ModelConfig(layout="nemotron", layers=3, hidden_size=128, heads=4, vocab_size=100)
    assert (nemotron.norm, nemotron.activation) == ("layernorm1p", "relu2")
    assert (nemotron.rotary_fraction, nemotron.intermediate_size) == (0.5, 512)
    assert llama.replace(layers=5).pattern == "*-" * 5
    assert llama.replace(hidden_size=96).head_dim == 32
    assert ModelConfig.model_validate_json(json.dumps(nemotron.as_json())) == nemotron


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "nearest legal kv_heads: 2, 4"),
        ({"hidden_size": 130}, "hidden_size 128 or 132"),
        ({"pattern": "E-*-"}, "'E' at index 0 .mixture"),
        ({"pattern": "*-x-"}, "'x' at index 2; use"),
        ({"pattern": "*-*-*-*-"}, "has 4 pairs"),
        ({"pattern": "*--"}, None),
        ({"layers": 2, "pattern": "*--"}, "has 3 blocks"),
        ({"head_dim": 12, "rotary_fraction": 0.25}, "odd; nearest legal: 0.166667 or 0.333333"),
        ({"layout": "gpt2"}, "known: llama, nemotron"),
        ({"eos_id": 100}, "outside vocab_size 100"),
        ({"layers": 0}, "greater than 0"),
        ({"layers": True}, "valid integer"),
        ({"rope_theta": float("inf")}, "finite"),
        ({"widht": 3}, "Extra inputs"),
    ],
)
def test_impossible_shapes(changes: dict[str, object], message: str | None) -> None:
    shape = {"layers": 3, "hidden_size": 128, "heads": 4, "vocab_size": 100}
    if message is None:
        ModelConfig(**{**shape, **changes})  # type: ignore[arg-type]
        return
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**{**shape, **changes})  # type: ignore[arg-type]


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean minitron-4b"):
        preset("minitron-4")


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys, regrow.model.presets, regrow.model.shapes, regrow.model.adapters.llama, "
        "regrow.model.adapters.nemotron, regrow.io.hf, regrow.io.runs; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
