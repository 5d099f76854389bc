"""AdamW with decay on matrices only, and its state as plainly named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import CheckpointError


def build_optimiser(
    module: nn.Module, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the parameters of ``module`` that need a gradient.

    Tensors of two or more dimensions decay; gains and biases do not: for a gain that is stored
    minus one (LayerNorm1P) decay would pull the effective gain to 1, for an ordinary one to 0.
    The learning rate is set before each step, so it starts at 0 here.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on; a group's ``lr_scale``, where set, multiplies it."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def optimiser_state(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The state as ``parameter/key`` to tensor, for instance ``head.weight/exp_avg``."""
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            state[f"{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return state


def load_optimiser_state(
    optimiser: torch.optim.Optimizer, module: nn.Module, state: Mapping[str, Tensor]
) -> None:
    """The reverse of :func:`optimiser_state`.

    Raises:
        CheckpointError: a tensor is missing, superfluous or of another shape; nothing was changed.
    """
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        parameter_name, _, key = name.rpartition("/")
        by_parameter.setdefault(parameter_name, {})[key] = value
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if by_parameter and set(by_parameter) != set(trained):
        odd = sorted(set(by_parameter) ^ set(trained))[0]
        where = "the model" if odd in by_parameter else "the optimiser's state"
        raise CheckpointError(f"optimiser state does not fit: {odd} is not in {where}")
    for name, entries in by_parameter.items():
        for key, value in entries.items():
            if value.ndim and value.shape != trained[name].shape:
                raise CheckpointError(
                    f"optimiser state does not fit: {name}/{key} is {tuple(value.shape)}, "
                    f"the parameter {tuple(trained[name].shape)}"
                )
    for name, entries in by_parameter.items():
        parameter = trained[name]
        # Fused kernels want their step counter beside the parameter, as fp32.
        restored: dict[str, Any] = {
            key: value.to(parameter.device, copy=True) for key, value in entries.items()
        }
        optimiser.state[parameter] = restored
