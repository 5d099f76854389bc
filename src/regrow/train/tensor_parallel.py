"""Tensor parallelism from outside the model: each process holds whole heads, groups and neurons.

What reads the residual stream is cut by its outputs, what writes to it by its inputs, and their
partial sums are added up; the embedding, the head and the norms of the residual stream stay whole
in every process. A Mamba-2 block is cut by groups: its input projection is a stack of five parts
(gate, x, B, C, time steps), each of which is cut by itself, and the gated norm stays inside a
group, so one sum at the end of the block is all that is exchanged.

Parts are plain parameters of the sizes that one process computes on, so that the block's own code
runs unchanged and FSDP shards them further.

Source: Megatron-LM (arXiv 1909.08053, section 3); groups as in Mamba-2-Hybrid (arXiv 2406.07887).
Legend: W processes of a tensor group.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.norm import RMSNorm, rms_norm
from regrow.model.ssd import Heads
from regrow.train.processes import tensor_problems
from regrow.train.world import World

#: Dimension that is cut, and the sizes of the stacked parts of which each is cut by itself.
Cut = tuple[int, tuple[int, ...]]


def cuts(config: ModelConfig) -> dict[str, Cut]:
    """How each tensor of a decoder is cut; tensors that are not named stay whole."""
    found: dict[str, Cut] = {}
    for index, symbol in enumerate(config.pattern):
        for name, cut in _BLOCK_CUTS[symbol](config).items():
            found[f"blocks.{index}.mixer.{name}"] = cut
    return found


def _attention_cuts(config: ModelConfig) -> dict[str, Cut]:
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    sizes = {"q_proj": query, "k_proj": key, "v_proj": key}
    inward = {f"{n}.{part}": (0, (s,)) for n, s in sizes.items() for part in ("weight", "bias")}
    return {**inward, "o_proj.weight": (1, (query,))}


def _mlp_cuts(config: ModelConfig) -> dict[str, Cut]:
    width = config.intermediate_size
    inward = {f"{n}_proj.{p}": (0, (width,)) for n in ("gate", "up") for p in ("weight", "bias")}
    return {**inward, "down_proj.weight": (1, (width,))}


def _mamba_cuts(config: ModelConfig) -> dict[str, Cut]:
    sizes = config.mamba
    assert sizes is not None
    shared = sizes.groups * sizes.state
    mixed = (sizes.inner, shared, shared)
    projected = (sizes.inner, *mixed, sizes.heads)
    return {
        "in_proj.weight": (0, projected),
        "in_proj.bias": (0, projected),
        "conv1d.weight": (0, mixed),
        "conv1d.bias": (0, mixed),
        "dynamics.A_log": (0, (sizes.heads,)),
        "dynamics.D": (0, (sizes.heads,)),
        "dynamics.dt_bias": (0, (sizes.heads,)),
        "norm.weight": (0, (sizes.inner,)),
        "out_proj.weight": (1, (sizes.inner,)),
    }


_BLOCK_CUTS = {"*": _attention_cuts, "-": _mlp_cuts, "M": _mamba_cuts}


def part_of(whole: Tensor, cut: Cut, rank: int, processes: int) -> Tensor:
    """One process's part of a tensor, in memory of its own."""
    dimension, sizes = cut
    parts = torch.split(whole, list(sizes), dimension)
    own = [part.chunk(processes, dimension)[rank] for part in parts]
    return torch.cat(own, dimension)


def whole_of(parts: list[Tensor], cut: Cut) -> Tensor:
    """The reverse of :func:`part_of`."""
    dimension, sizes = cut
    each = [size // len(parts) for size in sizes]
    pieces = [torch.split(part, each, dimension) for part in parts]
    stacked = [piece for stack in zip(*pieces, strict=True) for piece in stack]
    return torch.cat(stacked, dimension)


class _Spread(torch.autograd.Function):
    """The identity; its gradient is summed over the group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Add(torch.autograd.Function):
    """The sum over the group; its gradient is the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class AddingLinear(nn.Linear):
    """A linear over one part of its inputs, whose outputs are added up; the bias counts once."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs / W) to (..., outputs)."""
        total = cast(Tensor, _Add.apply(F.linear(x, self.weight), self.group))  # type: ignore[no-untyped-call]
        return total if self.bias is None else total + self.bias


class SharedNorm(RMSNorm):
    """A norm of one part of the heads with a gain for all: its gradient is summed."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`RMSNorm`."""
        weight = _Spread.apply(self.weight, self.group)  # type: ignore[no-untyped-call]
        return rms_norm(x, weight, self.eps)


def apply_tensor_parallel(model: Decoder, world: World) -> None:
    """Keep this process's part of a decoder, in place.

    Args:
        model: whole, with its weights; the same in every process.
        world: whose tensor group shares it.

    Raises:
        ConfigError: heads, groups or neurons that the processes do not divide.
    """
    wrong = tensor_problems(model.config, world.tensor)
    if wrong:
        raise ConfigError("the shape cannot be cut into parts", wrong)
    if world.tensor == 1:
        return
    group, rank, count = world.group("tensor"), world.tensor_rank, world.tensor
    plan = cuts(model.config)
    for name, parameter in list(model.named_parameters()):
        if name in plan:
            owner, _, last = name.rpartition(".")
            part = part_of(parameter.detach(), plan[name], rank, count)
            kept = nn.Parameter(part, requires_grad=parameter.requires_grad)
            setattr(model.get_submodule(owner), last, kept)
    for symbol, block in zip(model.config.pattern, model.blocks, strict=True):
        mixer = cast(Any, block).mixer
        mixer.register_forward_pre_hook(_spread_input(group))
        written = {"*": "o_proj", "-": "down_proj", "M": "out_proj"}[symbol]
        projection = getattr(mixer, written)
        projection.__class__ = AddingLinear
        projection.group = group
        if symbol == "*":
            mixer.heads, mixer.kv_heads = mixer.heads // count, mixer.kv_heads // count
            for norm in (mixer.q_norm, mixer.k_norm):
                if norm is not None:
                    norm.__class__ = SharedNorm
                    norm.group = group
        elif symbol == "M":
            sizes = mixer.sizes
            mixer.sizes = sizes.replace(heads=sizes.heads // count, groups=sizes.groups // count)
            mixer.norm.groups //= count
            mixer.heads = Heads(mixer.sizes.heads, sizes.head_dim, mixer.sizes.groups, sizes.state)


def _spread_input(group: dist.ProcessGroup) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_Spread.apply(inputs[0], group), *inputs[1:])  # type: ignore[no-untyped-call]

    return hook
