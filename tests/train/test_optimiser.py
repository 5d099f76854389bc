from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from regrow.core.errors import CheckpointError
from regrow.train.optimiser import (
    build_optimiser,
    load_optimiser_state,
    optimiser_state,
    set_lr,
)
from tests.train.fakes import TinyModel


def _step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    set_lr(optimiser, 0.01)
    optimiser.step()


def test_only_matrices_decay_and_the_update_is_adamw() -> None:
    """Against the update of Loshchilov and Hutter (2019, algorithm 2), in float64."""
    model = TinyModel()
    optimiser = build_optimiser(model, (0.9, 0.95), 1e-8, 0.1)
    expected = {n: p.detach().double().numpy().copy() for n, p in model.named_parameters()}
    moments = {n: (np.zeros_like(v), np.zeros_like(v)) for n, v in expected.items()}
    for t in range(1, 5):
        _step(model, optimiser, t)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.double().numpy()
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
            moments[name] = m, v
            decay = 0.1 if parameter.ndim >= 2 else 0.0
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
            expected[name] = expected[name] * (1 - 0.01 * decay) - 0.01 * step
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-4, atol=1e-6)


def test_state_goes_through_names() -> None:
    model = TinyModel()
    optimiser = build_optimiser(model, (0.9, 0.95), 1e-8, 0.1)
    _step(model, optimiser, 1)
    saved = {name: value.clone() for name, value in optimiser_state(optimiser, model).items()}
    assert {"gain/exp_avg", "gain/exp_avg_sq", "gain/step"} <= set(saved)
    other = copy.deepcopy(model)
    fresh = build_optimiser(other, (0.9, 0.95), 1e-8, 0.1)
    load_optimiser_state(fresh, other, saved)
    _step(model, optimiser, 2)
    _step(other, fresh, 2)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("damage", ["missing", "superfluous", "shape"])
def test_state_that_does_not_fit_changes_nothing(damage: str) -> None:
    model = TinyModel()
    optimiser = build_optimiser(model, (0.9, 0.95), 1e-8, 0.1)
    _step(model, optimiser, 1)
    state = dict(optimiser_state(optimiser, model))
    if damage == "missing":
        state = {k: v for k, v in state.items() if not k.startswith("gain/")}
    elif damage == "superfluous":
        state["ghost/exp_avg"] = torch.zeros(1)
    else:
        state["gain/exp_avg"] = torch.zeros(3)
    fresh = build_optimiser(model, (0.9, 0.95), 1e-8, 0.1)
    with pytest.raises(CheckpointError, match=r"gain|ghost"):
        load_optimiser_state(fresh, model, state)
    assert not fresh.state


def test_a_group_may_scale_its_rate() -> None:
    optimiser = build_optimiser(TinyModel(), (0.9, 0.95), 1e-8, 0.1)
    optimiser.param_groups[0]["lr_scale"] = 0.5
    set_lr(optimiser, 0.2)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.2]
