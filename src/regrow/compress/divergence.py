"""How far models are from their teacher on held-out text, several of them on one teacher's pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import nn

from regrow.data.loader import IGNORED, evaluation_batches
from regrow.data.shards import Shard
from regrow.model.divergences import Matching
from regrow.train.device import device_of, to_device
from regrow.train.held_out import evaluating


@dataclass(frozen=True, slots=True)
class Distance:
    """Of one model, over all targets.

    Args:
        kld: ``KL(teacher || model)``, nats per token, at temperature 1.
        loss: cross-entropy, nats per token.
    """

    kld: float
    loss: float


def divergence(
    students: Sequence[nn.Module],
    teacher: nn.Module,
    shards: Mapping[str, Shard],
    sequence: int,
    batch: int,
    max_tokens_per_source: int,
    document_mask: bool = False,
    vocabulary: int | None = None,
) -> list[Distance]:
    """Score models; each gets the figures that it would get alone.

    Args:
        students: decoders of the teacher's vocabulary, on its device; their modes are restored.
        teacher: a decoder.
        shards: source to held-out shard.
        sequence: tokens of a window; windows follow each other without overlap.
        batch: windows at once.
        max_tokens_per_source: stop a source after so many tokens.
        document_mask: whether documents are kept apart.
        vocabulary: ids that are compared, where matrices have padding behind them; all by default.

    Raises:
        ValueError: no source has a single target.
    """
    device = device_of(teacher)
    sums = [[0.0, 0.0] for _ in students]
    tokens = 0
    with ExitStack() as stack:
        for module in (teacher, *students):
            stack.enter_context(evaluating(module))
        for shard in shards.values():
            for window in evaluation_batches(
                shard, sequence, batch, max_tokens_per_source, document_mask
            ):
                read = to_device(window, device)
                taught = teacher.hidden(read.tokens, read.documents)  # type: ignore[operator]
                tokens += int((read.targets != IGNORED).sum())
                for total, student in zip(sums, students, strict=True):
                    made = student.head.match(  # type: ignore[operator, union-attr]
                        student.hidden(read.tokens, read.documents),  # type: ignore[operator]
                        taught,
                        teacher.head,
                        Matching(),
                        targets=read.targets,
                        vocabulary=vocabulary,
                    )
                    total[0] += float(made.loss)
                    total[1] += float(made.cross_entropy)
    if not tokens:
        raise ValueError("nothing to score on: no held-out source has a target")
    return [Distance(kld / tokens, loss / tokens) for kld, loss in sums]
