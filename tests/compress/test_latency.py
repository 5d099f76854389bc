"""The table of measured layers: what is chosen by it, and its sum against assembled models."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from regrow.compress import latency
from regrow.compress.latency import Conditions, LatencyTable, assembled_ms, estimate, table_of
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import enumerate_shapes, within
from regrow.core.errors import ConfigError
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.shapes import block_parameters
from tests.compress.makers import small

HYBRID = small(
    pattern="M-M*-M", layers=6, layout="nemotron_h", activation="relu2",
    mamba=MambaConfig(state=5, head_dim=8, heads=8, groups=2, chunk=4),
)  # fmt: skip


def closed(config: ModelConfig, part: str) -> float:
    """A time for each part: a constant, and a millisecond for each million of its parameters."""
    if part == "outer":
        return 0.005 + 1e-6 * config.vocab_size * config.hidden_size
    return 0.001 + 1e-6 * block_parameters(config, part)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Parts take what :func:`closed` says; gives the list of those that were measured."""
    measured: list[tuple[Any, ...]] = []

    def block(self: LatencyTable, config: ModelConfig, symbol: str) -> float:
        measured.append(latency.key_of(config, symbol))
        return closed(config, symbol)

    monkeypatch.setattr(LatencyTable, "_block", block)
    monkeypatch.setattr(LatencyTable, "_outer", lambda self, config: closed(config, "outer"))
    latency._table.cache_clear()
    yield measured
    latency._table.cache_clear()


def whole(config: ModelConfig) -> float:
    return closed(config, "outer") + sum(closed(config, symbol) for symbol in config.pattern)


@pytest.mark.parametrize(
    ("source", "axes"),
    [
        (small(layers=12), ("hidden", "mlp", "heads", "layers")),
        (HYBRID, ("hidden", "mlp", "mamba_heads", "mamba_head_dim")),
    ],
)
def test_what_is_chosen_is_fast_enough_by_its_own_parts(
    source: ModelConfig, axes: tuple[Any, ...], timed: list[tuple[Any, ...]]
) -> None:
    bound = 0.7 * whole(source)
    budget = BudgetTarget(latency_ms=bound, axes=axes, hidden_align=8, mlp_align=8)
    found = within(source, budget)
    assert 0 < len(found) <= latency.ENOUGH
    for row in range(len(found)):
        config = found.config(source, row)
        assert found.latency_ms[row] == pytest.approx(whole(config))
        assert whole(config) <= bound
    assert found.latency_ms[0] > 0.8 * bound  # the bound is used, not undercut
    assert len(timed) == len(set(timed))  # nothing is measured twice
    both = within(source, budget.replace(parameters=0.6, tolerance=0.1))
    assert len(both) > 0
    assert (both.latency_ms <= bound).all()
    table = table_of(source, budget)
    assert table.rows() == table_of(source, budget.replace(parameters=0.6)).rows()


def test_estimates_go_through_what_was_measured(timed: list[tuple[Any, ...]]) -> None:
    source = small(layers=3)
    budget = BudgetTarget(
        latency_ms=1.0, axes=("hidden", "mlp", "layers"), hidden_align=8, mlp_align=4
    )
    found = enumerate_shapes(source, budget)
    estimated = estimate(table_of(source, budget), source, found)
    exact = np.array([whole(found.config(source, row)) for row in range(len(found))])
    np.testing.assert_allclose(estimated, exact, rtol=0.02)
    assert len(timed) < 12


def test_what_is_too_slow_or_fast_already_is_told(timed: list[tuple[Any, ...]]) -> None:
    source = small()
    with pytest.raises(ConfigError, match="nothing has to be cut"):
        within(source, BudgetTarget(latency_ms=whole(source) * 1.01))
    with pytest.raises(ConfigError) as caught:
        within(source, BudgetTarget(latency_ms=1e-3))
    assert re.search(r"at most 0\.001 ms here\n.*nearest: .*ms with layers 4", str(caught.value))


@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize("source", [small(), HYBRID], ids=["transformer", "hybrid"])
def test_every_part_is_measured(source: ModelConfig, kind: Any) -> None:
    table = LatencyTable(source, Conditions(kind, 16, 2, "bf16"))
    total = table.total_ms(source)
    assert total > 0
    rows = table.rows()
    assert {row["part"] for row in rows} == {"outer", *source.pattern}
    parts = {row["part"]: row["ms"] for row in rows}
    assert total == pytest.approx(parts["outer"] + sum(parts[s] for s in source.pattern))
    assert assembled_ms(source, table.conditions) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize("name", ["transformer", "hybrid"])
def test_the_sum_is_the_assembled_model(
    name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 10 %, in seconds of the one thread that works: others' work does not count."""
    import torch

    monkeypatch.setattr(latency, "_clock", lambda device: time.thread_time())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape: dict[str, Any] = {
        "hidden_size": 768, "heads": 12, "kv_heads": 4, "intermediate_size": 2048,
        "vocab_size": 8000,
    }  # fmt: skip
    source = ModelConfig(layers=8, **shape)
    if name == "hybrid":
        mamba = MambaConfig(state=64, head_dim=64, heads=24, groups=4)
        source = ModelConfig(pattern="M-M*-M-M-", layers=9, mamba=mamba, **shape)
    try:
        conditions = Conditions(kind, 256, 1, "fp32")
        ratios = []
        for _ in range(3):
            assembled = assembled_ms(source, conditions)
            ratios.append(LatencyTable(source, conditions).total_ms(source) / assembled)
    finally:
        torch.set_num_threads(threads)
    assert 0.9 < sorted(ratios)[1] < 1.1, ratios
