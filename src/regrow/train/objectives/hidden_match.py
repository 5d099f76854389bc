"""Hidden states of a student against those of its teacher, layer by layer.

What is compared is what the layers behind a place read: the residual stream after the norm that
reads it next. A linear map, one for all pairs and learned with the student, takes the student's
width to the teacher's. It is a module of the student while that is trained, so that it is sharded,
saved and resumed with it; an export has no place for it.

Source: Minitron (arXiv 2407.14679), section 3.3 and tables 17 to 19.
Legend: B batch, T time, D width of the student, D' of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from regrow.core.seed import derive
from regrow.model.blocks import fill_normal

#: Name of the map in the student.
MAP = "hidden_map"
#: Share of the layers that must be gone before hidden states are matched of their own accord.
DEPTH_CUT = 0.25


@dataclass(frozen=True, slots=True)
class HiddenMatch:
    """Which hidden states are compared, and how.

    Args:
        pairs: layers of student and teacher whose outputs are compared, counted from 0; a layer is
            one attention and MLP, in every other pattern one block.
        embed: whether the outputs of the embeddings are compared too.
        metric: ``cosine`` (one minus the cosine) or ``mse`` (mean over channels).
        alpha: weight of the sum over pairs. ``dynamic``: in each sequence, what makes it as large
            as the divergence of the logits there.
    """

    pairs: tuple[tuple[int, int], ...]
    embed: bool = True
    metric: Literal["cosine", "mse"] = "cosine"
    alpha: float | Literal["dynamic"] = "dynamic"

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Layers behind which is compared; -1 is the embedding."""
        return (((-1, -1),) if self.embed else ()) + self.pairs


def automatic_pairs(student_layers: int, teacher_layers: int) -> tuple[tuple[int, int], ...]:
    """The third layer from the end of both where much depth is gone, else nothing.

    The paper's best pair of 32 and 16 layers is 29 to 13; the last layers, or more of them, did
    worse.
    """
    if student_layers >= (1 - DEPTH_CUT) * teacher_layers:
        return ()
    return ((max(0, student_layers - 3), max(0, teacher_layers - 3)),)


def add_map(
    student: nn.Module, width: int, seed: int = 0, channels: Sequence[int] | None = None
) -> None:
    """Give a student its map to a teacher of ``width``; before it is sharded, the same in all.

    Args:
        student: a decoder.
        width: D'.
        seed: of the map, where nothing better is known.
        channels: the teacher's channel of each of the student's; without it equal widths start at
            the identity.
    """
    config: Any = student.config
    own: int = config.hidden_size
    linear = nn.Linear(own, width, bias=False, device="meta").to_empty(device="cpu")
    if channels is None and own == width:
        channels = range(own)
    with torch.no_grad():
        if channels is not None:
            linear.weight.zero_()
            linear.weight[torch.tensor(list(channels)), torch.arange(own)] = 1.0
        else:
            generator = torch.Generator().manual_seed(derive(seed, MAP))
            fill_normal(linear.weight, own**-0.5, generator)
    student.add_module(MAP, linear)


@contextmanager
def watched(model: nn.Module, layers: Sequence[int]) -> Iterator[Mapping[int, Tensor]]:
    """What the model's norms make of its residual stream behind each layer, as it runs.

    Args:
        model: a decoder.
        layers: counted from 0; -1 for the embedding.

    Yields:
        Layer to (B, T, D), filled by the model's next forward pass.
    """
    seen: dict[int, Tensor] = {}
    handles = [_watch(model, layer, seen) for layer in set(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch(model: Any, layer: int, seen: dict[int, Tensor]) -> RemovableHandle:
    """Keep what the norm behind a layer gives.

    A block's norm is run once more, on what comes into the block: its own run is inside of what may
    be recomputed or compiled. A sharded block has its weights together by then.
    """
    blocks = model.blocks
    place = (layer + 1) * (2 if model.config.is_transformer else 1)

    def before(block: Any, inputs: tuple[Any, ...]) -> None:
        seen[layer] = block.norm(inputs[0])

    def behind(norm: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[layer] = output

    if place < len(blocks):
        handle: RemovableHandle = blocks[place].register_forward_pre_hook(before)
        return handle
    last: RemovableHandle = model.norm.register_forward_hook(behind)
    return last


def distances(
    match: HiddenMatch,
    linear: nn.Module,
    student: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    rows: Tensor,
) -> Tensor:
    """Distance of the hidden states, summed over the pairs.

    Args:
        match: what is compared.
        linear: the map from D to D'.
        student: layer to (B, T, D).
        teacher: layer to (B, T, D').
        rows: (N,) which of the B T tokens count.

    Returns:
        (N,) in fp32 (float64 for float64 operands), differentiable.
    """
    total: Tensor | None = None
    for ours, theirs in match.places:
        mapped = linear(student[ours].flatten(0, 1)[rows])
        goal = teacher[theirs].flatten(0, 1)[rows]
        wide = torch.promote_types(mapped.dtype, torch.float32)
        mapped, goal = mapped.to(wide), goal.to(wide)
        if match.metric == "cosine":
            each = 1 - F.cosine_similarity(mapped, goal, dim=-1)
        else:
            each = (mapped - goal).square().mean(-1)
        total = each if total is None else total + each
    assert total is not None  # there is a place: the objective checks
    return total


def dynamic_weights(divergence: Tensor, distance: Tensor) -> Tensor:
    """(B,) what makes each sequence's distance as large as its divergence; no gradient.

    The paper takes the ratio of the whole batch. By sequence it is the same however a batch is
    split into micro-batches and over processes, and needs nothing from the step before.

    Args:
        divergence: (B,) sums over the sequences.
        distance: (B,) the same.
    """
    divergence, distance = divergence.detach().clamp(min=0), distance.detach()
    tiny = torch.finfo(distance.dtype).eps
    return torch.where(distance > tiny, divergence / distance.clamp(min=tiny), 0.0)
