"""Cutting a decoder down to index lists.

Every list is ascending, so keeping everything is the identity, bit for bit. Which list a dimension
of a tensor follows is one table, by block symbol and tensor name; it works on one tensor at a time,
so that a checkpoint can also be cut without being loaded as a whole.

Legend: D hidden channels, H query heads, K key/value heads, C head channels, F neurons.

Source: Minitron (arXiv 2407.14679), section 2.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder

Indices = tuple[int, ...]

#: Symbol of a block to, for each of its tensors, the axis of each dimension. ``hidden``, ``query``,
#: ``key`` and ``neurons`` follow an index list; ``-`` stays whole.
CUTS: dict[str, dict[str, tuple[str, ...]]] = {
    # Heads and channels of a Mamba-2 block stay whole; its width follows the residual stream.
    "M": {
        "in_proj.weight": ("-", "hidden"),
        "in_proj.bias": ("-",),
        "conv1d.weight": ("-", "-", "-"),
        "conv1d.bias": ("-",),
        "dynamics.A_log": ("-",),
        "dynamics.D": ("-",),
        "dynamics.dt_bias": ("-",),
        "norm.weight": ("-",),
        "out_proj.weight": ("hidden", "-"),
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


def layer_blocks(config: ModelConfig) -> list[tuple[int, ...]]:
    """The blocks of each layer: attention and MLP of a transformer, else one block a layer."""
    if config.is_transformer:
        return [(2 * layer, 2 * layer + 1) for layer in range(config.layers)]
    return [(block,) for block in range(len(config.pattern))]


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays of a model, as indices into the source, ascending.

    Args:
        layers: layers that stay.
        hidden: channels of the residual stream.
        neurons: MLP block (its index in the source) to its neurons; as many in each.
        heads: attention block to its query heads; as many in each, and in each group.
        kv_heads: attention block to its key/value heads; the query heads lie in their groups.
    """

    layers: Indices
    hidden: Indices
    neurons: Mapping[int, Indices]
    heads: Mapping[int, Indices]
    kv_heads: Mapping[int, Indices]

    @classmethod
    def all_of(cls, config: ModelConfig) -> Keep:
        """Everything."""
        symbols = list(enumerate(config.pattern))
        attention = [block for block, symbol in symbols if symbol == "*"]
        return cls(
            tuple(range(config.layers)),
            tuple(range(config.hidden_size)),
            {b: tuple(range(config.intermediate_size)) for b, symbol in symbols if symbol == "-"},
            {block: tuple(range(config.heads)) for block in attention},
            {block: tuple(range(config.kv_heads)) for block in attention},
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
        for name, lists in (
            ("intermediate_size", self.neurons),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
        ):
            if lists:
                changes[name] = len(next(iter(lists.values())))
        if len(self.layers) != source.layers:
            changes["layers"] = len(self.layers)
            if not source.is_transformer:
                changes["pattern"] = "".join(source.pattern[b] for b in self.blocks(source))
        return source.replace(**changes)

    def _check(self, source: ModelConfig) -> None:
        _check_list("layers", self.layers, source.layers)
        _check_list("hidden", self.hidden, source.hidden_size)
        symbols = {block: source.pattern[block] for block in self.blocks(source)}
        group = source.heads // max(1, source.kv_heads)
        for name, lists, symbol, limit in (
            ("neurons", self.neurons, "-", source.intermediate_size),
            ("heads", self.heads, "*", source.heads),
            ("kv_heads", self.kv_heads, "*", source.kv_heads),
        ):
            if lists.keys() != {block for block, known in symbols.items() if known == symbol}:
                raise ValueError(f"{name} must name the {symbol} blocks that stay")
            for block, indices in lists.items():
                _check_list(f"{name} of block {block}", indices, limit)
            if len({len(indices) for indices in lists.values()}) > 1:
                raise ValueError(f"{name} must keep as many in every block")
        for block, heads in self.heads.items():
            kept = self.kv_heads[block]
            members = {k: sum(1 for head in heads if head // group == k) for k in kept}
            if sum(members.values()) != len(heads) or len(set(members.values())) > 1:
                raise ValueError(f"heads of block {block} must be as many in each group that stays")

    def as_json(self) -> dict[str, Any]:
        """The lists as a JSON-able object; blocks are numbered as in the source."""
        return {
            "layers": list(self.layers),
            "hidden": list(self.hidden),
            **{
                name: {str(block): list(indices) for block, indices in lists.items()}
                for name, lists in (
                    ("neurons", self.neurons),
                    ("heads", self.heads),
                    ("kv_heads", self.kv_heads),
                )
            },
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Keep:
        """What :meth:`as_json` gave."""

        def lists(name: str) -> dict[int, Indices]:
            return {int(block): tuple(kept) for block, kept in record[name].items()}

        return cls(
            tuple(record["layers"]),
            tuple(record["hidden"]),
            lists("neurons"),
            lists("heads"),
            lists("kv_heads"),
        )


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
        indices = torch.tensor(_indices(axis, block, source, keep), device=tensor.device)
        tensor = tensor.index_select(dimension, indices)
    return tensor.clone() if tensor is whole else tensor


def _indices(axis: str, block: int, source: ModelConfig, keep: Keep) -> list[int]:
    if axis == "hidden":
        return list(keep.hidden)
    if axis == "neurons":
        return list(keep.neurons[block])
    heads = keep.heads[block] if axis == "query" else keep.kv_heads[block]
    width = source.head_dim
    return [head * width + channel for head in heads for channel in range(width)]


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
