"""The processes that train one model together, as torchrun starts them.

One process is a world of its own: nothing here then costs anything, and no process group exists.
Ranks are laid out as (data, tensor): the ranks of one tensor group are neighbours, and read the
same samples.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from regrow.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """Where this process stands.

    Args:
        rank: of all processes.
        size: how many there are.
        tensor: processes that hold parts of one replica.
        mesh: (data, tensor); None for one process.
    """

    rank: int = 0
    size: int = 1
    tensor: int = 1
    mesh: DeviceMesh | None = None

    @property
    def data(self) -> int:
        """Groups that read different samples."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """Which samples this process reads."""
        return self.rank // self.tensor

    @property
    def tensor_rank(self) -> int:
        """Which part of a replica this process holds."""
        return self.rank % self.tensor

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    def group(self, name: str) -> dist.ProcessGroup:
        """The process group of one dimension, ``data`` or ``tensor``."""
        assert self.mesh is not None
        return self.mesh.get_group(name)

    def sum(self, values: Sequence[float], name: str = "data") -> list[float]:
        """Each value summed over one dimension, in float64."""
        if self.size == 1:
            return list(values)
        device = torch.device("cpu")
        if dist.get_backend() == "nccl":
            device = torch.device("cuda", torch.cuda.current_device())
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        dist.all_reduce(total, group=self.group(name))
        return [float(value) for value in total.tolist()]

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        return self.sum(self.sum(values, "data"), "tensor")

    def first(self, action: Callable[[], Any]) -> Any:
        """What the first process makes of an action, in all of them; its error is raised in all."""
        if self.size == 1:
            return action()
        result: Any = None
        failed: Exception | None = None
        if self.is_first:
            try:
                result = action()
            except Exception as error:
                failed = error
        result, failed = self.share((result, failed))
        if failed is not None:
            raise failed
        return result

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks, in all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            dist.barrier()

    def join(self, part: Tensor) -> list[Tensor]:
        """Every tensor rank's part of one tensor, in their order."""
        if self.tensor == 1:
            return [part]
        parts = [torch.empty_like(part) for _ in range(self.tensor)]
        dist.all_gather(parts, part.contiguous(), group=self.group("tensor"))
        return parts


def start_world(tensor: int, device: torch.device) -> World:
    """Join the processes that torchrun started; a single process needs none of its settings.

    Args:
        tensor: processes that hold one replica together.
        device: what this process computes on; decides the backend.

    Raises:
        ConfigError: the number of processes is no multiple of ``tensor``.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % tensor:
        raise ConfigError(
            f"parallel.tp: {tensor} does not divide the {size} process(es) of this run; "
            f"start it with torchrun --nproc-per-node {tensor} or a multiple"
        )
    if size == 1:
        return World()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(stop_world)
    mesh = init_device_mesh(
        device.type, (size // tensor, tensor), mesh_dim_names=("data", "tensor")
    )
    return World(dist.get_rank(), size, tensor, mesh)


def stop_world() -> None:
    """Leave the process group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
