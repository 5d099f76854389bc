"""Cutting a decoder down to index lists.

Every list is ascending, so keeping everything is the identity, bit for bit. Which list a dimension
of a tensor follows is one table, by block symbol and tensor name; it works on one tensor at a time,
so that a checkpoint can also be cut without being loaded as a whole.

Legend: D hidden channels, H query heads, K key/value heads, C head channels, F neurons; of a
Mamba-2 block I inner channels (heads x head channels), G groups, N state channels.

Sources: Minitron (arXiv 2407.14679), section 2.3; Minitron-SSM (arXiv 2504.11409) for Mamba-2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.compress.depth import Indices, layer_blocks
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder

#: Symbol of a block to, for each of its tensors, the axis of each dimension; ``-`` stays whole.
#: ``mamba_in`` and ``mamba_conv`` are the rows of the input projection (gate, x, B, C, time steps)
#: and the channels of the convolution (x, B, C): B and C stay whole, the others follow the heads.
CUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "M": {
        "in_proj.weight": ("mamba_in", "hidden"),
        "in_proj.bias": ("mamba_in",),
        "conv1d.weight": ("mamba_conv", "-", "-"),
        "conv1d.bias": ("mamba_conv",),
        "dynamics.A_log": ("mamba_head",),
        "dynamics.D": ("mamba_head",),
        "dynamics.dt_bias": ("mamba_head",),
        "norm.weight": ("mamba_inner",),
        "out_proj.weight": ("hidden", "mamba_inner"),
        "out_proj.bias": ("hidden",),
    },
    "*": {
        "q_proj.weight": ("query", "hidden"),
        "q_proj.bias": ("query",),
        "k_proj.weight": ("key", "hidden"),
        "k_proj.bias": ("key",),
        "v_proj.weight": ("key", "hidden"),
        "v_proj.bias": ("key",),
        "o_proj.weight": ("hidden", "query"),
        "o_proj.bias": ("hidden",),
        # Shared by all heads, over channels that the rotation pairs: never cut.
        "q_norm.weight": ("-",),
        "k_norm.weight": ("-",),
    },
    "-": {
        "gate_proj.weight": ("neurons", "hidden"),
        "gate_proj.bias": ("neurons",),
        "up_proj.weight": ("neurons", "hidden"),
        "up_proj.bias": ("neurons",),
        "down_proj.weight": ("hidden", "neurons"),
        "down_proj.bias": ("hidden",),
    },
}
_OUTSIDE = {
    "embed.weight": ("-", "hidden"),
    "norm.weight": ("hidden",),
    "norm.bias": ("hidden",),
    "head.weight": ("-", "hidden"),
}


#: Fields of :class:`Keep` that hold one list a block: the symbol of the blocks, and the setting of
#: the config that is its length.
LISTS = {
    "neurons": ("-", "intermediate_size"),
    "heads": ("*", "heads"),
    "kv_heads": ("*", "kv_heads"),
    "mamba_heads": ("M", "heads"),
    "mamba_channels": ("M", "head_dim"),
}


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays of a model, as indices into the source, ascending.

    Args:
        layers: layers that stay; blocks where the stack is not attention+MLP pairs.
        hidden: channels of the residual stream.
        neurons: MLP block (its index in the source) to its neurons; as many in each.
        heads: attention block to its query heads; as many in each, and in each group.
        kv_heads: attention block to its key/value heads; the query heads lie in their groups.
        mamba_heads: Mamba-2 block to its heads; as many in each, and in each group. Without any
            entry all heads stay.
        mamba_channels: Mamba-2 block to the channels that stay in each of its heads; as many in
            each. Without any entry all stay.
        merged: attention block to pairs of a query head that stays and one that goes: the first
            takes up its difference to the second, ``2 first - second`` (section 2.3). Where each
            query head has a key/value head of its own, these are merged likewise.
    """

    layers: Indices
    hidden: Indices
    neurons: Mapping[int, Indices]
    heads: Mapping[int, Indices]
    kv_heads: Mapping[int, Indices]
    mamba_heads: Mapping[int, Indices] = field(default_factory=dict)
    mamba_channels: Mapping[int, Indices] = field(default_factory=dict)
    merged: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @classmethod
    def all_of(cls, config: ModelConfig) -> Keep:
        """Everything."""
        lists: dict[str, Any] = {
            name: {
                block: tuple(range(limit_of(config, name)))
                for block, known in enumerate(config.pattern)
                if known == symbol
            }
            for name, (symbol, _) in LISTS.items()
        }
        return cls(
            tuple(range(config.layers)),
            tuple(range(config.hidden_size)),
            **lists,
        )

    def blocks(self, source: ModelConfig) -> list[int]:
        """The source's blocks that stay, in order."""
        groups = layer_blocks(source)
        return [block for layer in self.layers for block in groups[layer]]

    def config(self, source: ModelConfig) -> ModelConfig:
        """Shape of what stays; head_dim stays as it is, whatever hidden_size becomes.

        Raises:
            ValueError: lists that are not ascending, out of range, of unequal lengths, or query
                heads outside of the groups that stay.
        """
        self._check(source)
        changes: dict[str, Any] = {"hidden_size": len(self.hidden)}
        inner: dict[str, int] = {}
        for name, (symbol, setting) in LISTS.items():
            lists = getattr(self, name)
            if lists:
                (inner if symbol == "M" else changes)[setting] = len(next(iter(lists.values())))
        pattern = "".join(source.pattern[block] for block in self.blocks(source))
        if pattern != source.pattern:
            pairs = pattern == "*-" * (len(pattern) // 2)
            changes |= {"pattern": pattern, "layers": len(pattern) // (2 if pairs else 1)}
        if inner and source.mamba is not None and "M" in pattern:
            changes["mamba"] = source.mamba.replace(**inner)
        return source.replace(**changes)

    def _check(self, source: ModelConfig) -> None:
        _check_list("layers", self.layers, len(layer_blocks(source)))
        _check_list("hidden", self.hidden, source.hidden_size)
        symbols = {block: source.pattern[block] for block in self.blocks(source)}
        for name, (symbol, _) in LISTS.items():
            lists = getattr(self, name)
            if symbol == "M" and not lists:
                continue
            if lists.keys() != {block for block, known in symbols.items() if known == symbol}:
                raise ValueError(f"{name} must name the {symbol} blocks that stay")
            for block, indices in lists.items():
                _check_list(f"{name} of block {block}", indices, limit_of(source, name))
            if len({len(indices) for indices in lists.values()}) > 1:
                raise ValueError(f"{name} must keep as many in every block")
        group = source.heads // max(1, source.kv_heads)
        for block, heads in self.heads.items():
            _check_groups(f"heads of block {block}", heads, group, self.kv_heads[block])
        if source.mamba is not None:
            group, groups = source.mamba.heads // source.mamba.groups, source.mamba.groups
            for block, heads in self.mamba_heads.items():
                _check_groups(f"mamba_heads of block {block}", heads, group, tuple(range(groups)))
        for block, pairs in self.merged.items():
            kept = set(self.heads.get(block, ()))
            for head, gone in pairs:
                if head not in kept or gone in kept or not 0 <= gone < source.heads:
                    raise ValueError(
                        f"merged of block {block}: {head} must stay and {gone} must go"
                    )

    def as_json(self) -> dict[str, Any]:
        """The lists as a JSON-able object; blocks are numbered as in the source."""
        return {
            "layers": list(self.layers),
            "hidden": list(self.hidden),
            **{
                name: {str(block): list(kept) for block, kept in getattr(self, name).items()}
                for name in LISTS
            },
            "merged": {
                str(block): [list(p) for p in pairs] for block, pairs in self.merged.items()
            },
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Keep:
        """What :meth:`as_json` gave; records from before a list existed are read as well."""

        def lists(name: str) -> dict[int, Indices]:
            return {int(block): tuple(kept) for block, kept in record.get(name, {}).items()}

        return cls(
            tuple(record["layers"]),
            tuple(record["hidden"]),
            **{name: lists(name) for name in LISTS},
            merged={
                int(block): tuple((head, gone) for head, gone in pairs)
                for block, pairs in record.get("merged", {}).items()
            },
        )


def limit_of(source: ModelConfig, name: str) -> int:
    """How long the list ``name`` of :class:`Keep` is where everything stays."""
    symbol, setting = LISTS[name]
    holder = source.mamba if symbol == "M" else source
    return int(getattr(holder, setting)) if holder is not None else 0


def _check_groups(name: str, heads: Indices, group: int, kept: Indices) -> None:
    """Heads that lie in the groups that stay, the same number in each."""
    members = {k: sum(1 for head in heads if head // group == k) for k in kept}
    if sum(members.values()) != len(heads) or len(set(members.values())) > 1:
        raise ValueError(f"{name} must be as many in each group that stays")


def _check_list(name: str, indices: Indices, limit: int) -> None:
    if not indices or list(indices) != sorted(set(indices)):
        raise ValueError(f"{name}: indices must be ascending, each once, and at least one")
    if indices[0] < 0 or indices[-1] >= limit:
        raise ValueError(f"{name}: indices must lie in 0 .. {limit - 1}")


def renamed(source: ModelConfig, keep: Keep) -> Iterator[tuple[str, str, tuple[str, ...], int]]:
    """Each tensor that stays: its old and new name, the axis of each dimension, its old block.

    The block is -1 outside of the blocks.
    """
    from regrow.model.shapes import tensor_shapes

    places = {block: place for place, block in enumerate(keep.blocks(source))}
    for name in tensor_shapes(source):
        if not name.startswith("blocks."):
            yield name, name, _OUTSIDE[name], -1
            continue
        _, number, part, rest = name.split(".", 3)
        block = int(number)
        if block not in places:
            continue
        axes = ("hidden",) if part == "norm" else CUTS[source.pattern[block]][rest]
        yield name, f"blocks.{places[block]}.{part}.{rest}", axes, block


def cut_tensor(
    tensor: Tensor, axes: tuple[str, ...], block: int, source: ModelConfig, keep: Keep
) -> Tensor:
    """A copy of what stays of one tensor.

    Args:
        tensor: of the source.
        axes: from :func:`renamed`.
        block: index of its block in the source; -1 outside of the blocks.
        source: shape of the source.
        keep: what stays.
    """
    whole = tensor
    for dimension, axis in enumerate(axes):
        if axis == "-":
            continue
        kept = torch.tensor(indices(axis, block, source, keep), device=tensor.device)
        chosen = _picked(tensor, dimension, kept)
        pairs = keep.merged.get(block, ())
        own_keys = source.heads == source.kv_heads
        if pairs and (axis == "query" or (axis == "key" and own_keys)):
            chosen = _merge(chosen, tensor, dimension, kept, pairs, source.head_dim)
        tensor = chosen
    return tensor.clone() if tensor is whole else tensor


def _picked(tensor: Tensor, dimension: int, kept: Tensor) -> Tensor:
    """A copy of some rows or columns, as of ``index_select``; on a CPU three times as fast."""
    if tensor.device.type != "cpu":
        return tensor.index_select(dimension, kept)
    # numpy has no bfloat16, and what the bits mean does not matter here.
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    taken = np.take(tensor.detach().view(bits).numpy(), kept.numpy(), axis=dimension)
    return torch.from_numpy(taken).view(tensor.dtype)


def _merge(
    chosen: Tensor,
    tensor: Tensor,
    dimension: int,
    kept: Tensor,
    pairs: tuple[tuple[int, int], ...],
    width: int,
) -> Tensor:
    """``chosen`` with ``2 head - gone`` at the channels of each pair's first head."""
    heads = torch.tensor(pairs, device=tensor.device)
    channels = heads[..., None] * width + torch.arange(width, device=tensor.device)
    stay, go = channels[:, 0].flatten(), channels[:, 1].flatten()
    # In fp32 at least: the two weights are nearly equal in size, and the sum is rounded once.
    wide = torch.promote_types(tensor.dtype, torch.float32)
    first = tensor.index_select(dimension, stay).to(wide)
    taken = 2 * first - tensor.index_select(dimension, go).to(wide)
    return chosen.index_copy(dimension, torch.searchsorted(kept, stay), taken.to(tensor.dtype))


def indices(axis: str, block: int, source: ModelConfig, keep: Keep) -> list[int]:
    """What stays of a dimension that follows ``axis``.

    Args:
        axis: one of those in :data:`CUTS`, but ``-``.
        block: index of its block in the source.
        source: shape of the source.
        keep: what stays.
    """
    if axis == "hidden":
        return list(keep.hidden)
    if axis == "neurons":
        return list(keep.neurons[block])
    if axis.startswith("mamba"):
        assert source.mamba is not None  # a config with M has them
        return _mamba_indices(axis, block, source.mamba, keep)
    heads = keep.heads[block] if axis == "query" else keep.kv_heads[block]
    return _channels(heads, source.head_dim, range(source.head_dim))


def _channels(heads: Indices, width: int, kept: Indices | range) -> list[int]:
    return [head * width + channel for head in heads for channel in kept]


def _mamba_indices(axis: str, block: int, sizes: MambaConfig, keep: Keep) -> list[int]:
    heads = keep.mamba_heads.get(block, tuple(range(sizes.heads)))
    if axis == "mamba_head":
        return list(heads)
    kept = keep.mamba_channels.get(block, tuple(range(sizes.head_dim)))
    inner = _channels(heads, sizes.head_dim, kept)
    if axis == "mamba_inner":
        return inner
    if axis == "mamba_conv":
        return inner + list(range(sizes.inner, sizes.conv_channels))
    x = [sizes.inner + channel for channel in inner]
    steps = sizes.inner + sizes.conv_channels
    shared = range(2 * sizes.inner, steps)
    return [*inner, *x, *shared, *(steps + head for head in heads)]


def cut(model: Decoder, keep: Keep) -> Decoder:
    """A new decoder of what stays; the source is left as it is, and shares no memory with it.

    Args:
        model: the source.
        keep: what stays.

    Raises:
        ValueError: see :meth:`Keep.config`.
    """
    source = model.config
    target = keep.config(source)
    state = model.state_dict()
    cut_state = {
        new: cut_tensor(state[old], axes, block, source, keep)
        for old, new, axes, block in renamed(source, keep)
    }
    with torch.device("meta"):
        child = Decoder(target)
    child.load_state_dict(cut_state, assign=True)
    child.requires_grad_(True)
    return child.train(model.training)
