"""One model over several processes: what is sharded, and how its state is put together again.

Tensor parallelism first (``tensor_parallel.py``), then FSDP2 over the data dimension, block by
block. The state that is saved is that of the whole model, in its own names and order, whatever the
world: so a run goes on in a world of another size, and its weights are those of a single process.

Source: FSDP2 is ``torch.distributed.fsdp.fully_shard``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.tensor_parallel import Cut, apply_tensor_parallel, cuts, part_of, whole_of
from regrow.train.world import World, start_world


class Sharding:
    """How the parameters of one module lie over the processes.

    Args:
        world: the processes.
        plan: parameters that the tensor group cuts.
    """

    def __init__(self, world: World, plan: Mapping[str, Cut]) -> None:
        self.world = world
        self.plan = plan if world.tensor > 1 else {}

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """The whole of a parameter, or of what an optimiser keeps for it; all processes take part.

        Args:
            name: the parameter's.
            tensor: this process's share; a scalar is the same in all.
        """
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if name in self.plan and tensor.ndim:
            return whole_of(self.world.join(tensor), self.plan[name])
        return tensor

    def share(self, name: str, whole: Tensor, like: Tensor) -> Tensor:
        """This process's share of a whole tensor, laid out as ``like``; nothing is exchanged."""
        if not whole.ndim:
            return whole
        if name in self.plan:
            world = self.world
            whole = part_of(whole, self.plan[name], world.tensor_rank, world.tensor)
        if isinstance(like, DTensor):
            whole = whole.to(like.device)
            return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
        return whole

    def load(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put a whole state dict into a sharded module.

        Raises:
            RuntimeError: names or shapes do not fit.
        """
        own = module.state_dict()
        odd = sorted(own.keys() ^ state.keys())
        if odd:
            raise RuntimeError(f"{odd[0]} is only in one of checkpoint and model")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(self.share(name, state[name], tensor))

    def shares(self, module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's share of an optimiser's state, ``parameter/key`` to whole tensor.

        Names that the module does not have are passed on, for the loader to refuse.
        """
        own = dict(module.named_parameters())
        found = {}
        for name, tensor in state.items():
            parameter = name.partition("/")[0]
            like = own.get(parameter)
            found[name] = tensor if like is None else self.share(parameter, tensor, like)
        return found

    def gathered(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Whole tensors one after the other; names may carry a ``/key`` behind the parameter's."""
        for name, tensor in tensors.items():
            yield name, self.whole(name.partition("/")[0], tensor)

    def squared_norm(self, named: Mapping[str, Tensor]) -> float:
        """Sum of squares over all parameters of the whole model; all processes take part.

        A share counts once for each dimension of the world over which it is a share, and a tensor
        that all hold counts once.
        """
        local: dict[tuple[bool, bool], Tensor | float] = {}
        for name, tensor in named.items():
            sharded = isinstance(tensor, DTensor) and any(
                isinstance(placement, Shard) for placement in tensor.placements
            )
            own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            key = (sharded, name in self.plan)
            local[key] = local.get(key, 0.0) + own.detach().double().square().sum()
        whole = 0.0
        for key in sorted({(d, t) for d in (False, True) for t in (False, True)}):
            value = float(local.get(key, 0.0))
            if key[0]:
                value = self.world.sum([value], "data")[0]
            if key[1] and self.world.tensor > 1:
                value = self.world.sum([value], "tensor")[0]
            whole += value
        return whole


def distribute(model: Decoder, world: World, device: torch.device) -> Sharding:
    """Shard a whole decoder over the world, in place.

    Args:
        model: the same weights in every process, on the CPU.
        world: the processes.
        device: what this process computes on.

    Raises:
        ConfigError: sizes that the tensor group does not divide.
    """
    sharding = Sharding(world, cuts(model.config))
    apply_tensor_parallel(model, world)
    model.to(device)
    if world.size > 1 and world.data > 1:
        assert world.mesh is not None
        mesh = world.mesh["data"]
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        # The loop calls these instead of forward; gradients are of sums, and are added up.
        register_fsdp_forward_method(model, "hidden")
        for module in model.modules():
            if hasattr(module, "set_gradient_divide_factor"):
                cast(Any, module).set_gradient_divide_factor(1.0)
                cast(Any, module).set_force_sum_reduction_for_comms(True)  # gloo has no other
    return sharding


def spread(model: Decoder, tp: int, device: torch.device) -> Sharding | None:
    """Move a decoder to where it is trained: one device, or its shares over all processes.

    Args:
        model: the same weights in every process, on the CPU.
        tp: processes that hold one replica together.
        device: what this process computes on.

    Returns:
        How it lies over them; None for one process.

    Raises:
        ConfigError: sizes or processes that cannot be divided.
    """
    world = start_world(tp, device)
    if world.size == 1:
        model.to(device)
        return None
    return distribute(model, world, device)


def whole_model(model: Decoder, sharding: Sharding, config: ModelConfig) -> Decoder | None:
    """The model put together in the first process, on the CPU; None in the others."""
    first = sharding.world.is_first
    with torch.device("meta"):
        made = Decoder(config)
    own = made.state_dict().keys()  # what an objective has added to the module stays behind
    state = {}
    for name, tensor in sharding.gathered(model.state_dict()):
        if first and name in own:
            state[name] = tensor.detach().cpu()
    if not first:
        return None
    made.load_state_dict(state, assign=True)
    return made
