"""The plan's figures against the models themselves and against counting by hand."""

from __future__ import annotations

import pytest
import torch

from regrow.core.errors import ConfigError
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.plan import PlanConfig, shape_plan
from regrow.model.presets import PRESETS
from regrow.model.shape_config import MambaShape
from regrow.model.shapes import (
    crossover_tokens,
    flops_per_token,
    kv_bytes_per_token,
    parameters,
    scan_flops_per_token,
    state_bytes,
)
from regrow.model.twin import equal_transformer
from tests.model.makers import ours, tokens


def test_the_command_of_the_hybrid() -> None:
    figures = shape_plan(PlanConfig(layers=56, attention_ratio=0.08, mlp_ratio=0.5)).figures
    assert figures["pattern"] == PRESETS["mamba2-hybrid-8b"].pattern
    assert figures["parameters"] == parameters(PRESETS["mamba2-hybrid-8b"])
    assert figures["export"] == "nemotron_h"
    twin = figures["transformer"]
    assert abs(twin["parameters"] / figures["parameters"] - 1) < 1e-3
    # At the crossover both remember as much, to within one token.
    saved = twin["kv_bytes_per_token"] - figures["kv_bytes_per_token"]
    left = figures["crossover_tokens"] * saved - figures["state_bytes_per_sequence"]
    assert 0 <= left < saved


@pytest.mark.parametrize("name", ["mamba2-8b", "mamba2-hybrid-8b", "nemotronh-8b"])
def test_the_twin_has_as_many_parameters(name: str) -> None:
    twin = equal_transformer(PRESETS[name])
    assert twin.is_transformer
    assert abs(parameters(twin) / parameters(PRESETS[name]) - 1) < 1e-3
    assert twin.hidden_size == PRESETS[name].hidden_size


def test_crossover_in_its_corners() -> None:
    hybrid, dense = PRESETS["mamba2-hybrid-8b"], PRESETS["transformer-8b"]
    assert crossover_tokens(hybrid, dense) == 202
    assert crossover_tokens(hybrid, dense.replace(kv_heads=8)) == 891
    assert crossover_tokens(dense, dense) == 0
    assert crossover_tokens(dense, hybrid) is None


def test_scan_flops_are_those_of_its_products() -> None:
    """Counted by torch over the products that the chunked scan really does, forward."""
    from torch.utils.flop_counter import FlopCounterMode

    sizes = MambaConfig(state=16, head_dim=8, heads=8, groups=2, chunk=32)
    model = ours(pattern="M", layers=1, mamba=sizes)
    ids = tokens(model.config, 2, 128)
    mixer = model.blocks[0].mixer
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    config = model.config
    linears = 2 * sum(p.numel() for p in (mixer.in_proj.weight, mixer.out_proj.weight))
    head = 2 * config.vocab_size * config.hidden_size
    counted = counter.get_total_flops() / ids.numel()
    assert counted - linears - head == scan_flops_per_token(config)


def test_flops_follow_the_window() -> None:
    full = ModelConfig(layers=2, hidden_size=64, heads=4, vocab_size=100)
    near = full.replace(sliding_window=16, layout="mistral")
    saved = flops_per_token(full, 128) - flops_per_token(near, 128)
    assert saved == 12 * 2 * 64 * (128 - 16)


def test_memory_and_times() -> None:
    settings = PlanConfig(
        layers=3,
        pattern="M*-",
        hidden_size=64,
        heads=4,
        vocab_size=100,
        mamba=MambaShape(state=8, head_dim=16),
        sequence=100,
        batch=3,
        peak_flops=1e12,
        bandwidth=1e9,
        utilisation=0.5,
    )
    plan = shape_plan(settings).figures
    model = settings.resolve(100, 1)
    assert plan["cache_bytes"] == 3 * (100 * kv_bytes_per_token(model) + state_bytes(model))
    moved = 2 * parameters(model) + 3 * (100 * kv_bytes_per_token(model) + 2 * state_bytes(model))
    assert plan["decode_bytes_per_step"] == moved
    assert plan["decode_seconds_per_step"] == pytest.approx(moved / 1e9)
    hours = 1e9 * flops_per_token(model, 100) / 5e11 / 3600
    assert plan["training_hours_per_billion_tokens"] == pytest.approx(hours)


@pytest.mark.parametrize(
    ("sequences", "seconds", "devices", "utilisation"),
    [(384, 0.57, 768, 34.15), (768, 0.58, 1536, 33.56), (1152, 0.64, 2304, 30.41)],
)
def test_utilisation_of_a_measured_step(
    sequences: int, seconds: float, devices: int, utilisation: float
) -> None:
    """The arithmetic of Nemotron-4 15B, whose report (table 2) says 34.3, 33.3 and 30.5 %."""
    settings = PlanConfig(
        preset="nemotron4-15b", step_seconds=seconds, step_sequences=sequences, devices=devices
    )
    figures = shape_plan(settings).figures
    assert round(100 * figures["mfu"], 2) == utilisation
    assert figures["mfu_causal"] < figures["mfu"]
    assert figures["tokens_per_second"] == pytest.approx(sequences * 4096 / seconds)
    assert "mfu" not in shape_plan(PlanConfig(preset="nemotron4-15b")).figures


def test_what_a_plan_says_and_refuses() -> None:
    order = shape_plan(PlanConfig(layers=4, pattern="-M*-", hidden_size=64))
    assert any("does not begin with M" in note for note in order.notes)
    with pytest.raises(ConfigError, match="impossible") as caught:
        shape_plan(PlanConfig(layers=4, attention_ratio=0.9, mlp_ratio=0.5))
    assert "4 + 2 blocks" in str(caught.value)
    with pytest.raises(ConfigError, match="exceeds max_positions"):
        shape_plan(PlanConfig(preset="minitron-4b", sequence=100_000))
    # Without a position encoding nothing ends at max_positions.
    shape_plan(PlanConfig(preset="mamba2-hybrid-8b", sequence=1_000_000))
