"""What a family costs: exact closed forms, for the plan as for the finished run.

A child takes an importance pass over what it is cut from, passes over held-out text that score its
candidates, their lightweight retraining, and the full retraining of the winner. The teacher's
forward passes count wherever it teaches; candidates side by side share its blocks, but not its
output projection, which is formed chunk by chunk together with each candidate's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor, log10

from regrow.compress.family_config import FamilyConfig
from regrow.model.config import ModelConfig
from regrow.model.shapes import flops_per_token, forward_flops_per_token

#: Hidden states of the teacher that are kept for the next candidate take at most so many bytes.
SHARED_BYTES = 1 << 28
_MOST_STEPS = 8


def steps_in_turn(batch_tokens: int, teacher_width: int) -> int:
    """Steps that a candidate takes before the next one's turn; 0 where nothing can be shared.

    Args:
        batch_tokens: tokens of a step.
        teacher_width: hidden size of the teacher, whose states take 4 bytes each.
    """
    return min(_MOST_STEPS, SHARED_BYTES // (4 * batch_tokens * teacher_width))


@dataclass(frozen=True, slots=True)
class ChildCost:
    """FLOPs and tokens of one child.

    Args:
        importance_flops: the pass that scores channels, heads and layers.
        scoring_flops: candidates and teacher on held-out text.
        trial_flops: forward and backward of the candidates.
        trial_teacher_flops: the teacher's forward passes in the trials.
        retraining_flops: forward and backward of the winner.
        teacher_flops: the teacher's forward passes in the full retraining.
        trial_tokens: summed over the candidates.
        tokens: of the full retraining.
    """

    importance_flops: int = 0
    scoring_flops: int = 0
    trial_flops: int = 0
    trial_teacher_flops: int = 0
    retraining_flops: int = 0
    teacher_flops: int = 0
    trial_tokens: int = 0
    tokens: int = 0

    @property
    def search_flops(self) -> int:
        """All but the full retraining."""
        return (
            self.importance_flops + self.scoring_flops + self.trial_flops + self.trial_teacher_flops
        )

    @property
    def flops(self) -> int:
        """Everything."""
        return self.search_flops + self.retraining_flops + self.teacher_flops

    def as_json(self) -> dict[str, int]:
        """The parts and their sums."""
        return {**asdict(self), "search_flops": self.search_flops, "flops": self.flops}


def _head_flops(config: ModelConfig) -> int:
    """Of the output projection of one token, forward."""
    return 2 * config.vocab_size * config.hidden_size


def child_cost(
    config: FamilyConfig,
    teacher: ModelConfig,
    source: ModelConfig,
    rungs: Sequence[Sequence[ModelConfig]],
    winner: ModelConfig,
    tokens: int,
    score_tokens: int,
) -> ChildCost:
    """What one child takes.

    Args:
        config: of the family.
        teacher: its shape.
        source: shape of what is cut.
        rungs: the shapes that are scored at each of the rungs that are reached.
        winner: the shape that is retrained in full.
        tokens: of the full retraining.
        score_tokens: held-out tokens of one scoring.
    """
    sequence, batch = config.data.sequence, config.train.batch_tokens
    taught = forward_flops_per_token(teacher, sequence)
    shared = steps_in_turn(batch, teacher.hidden_size) > 0
    scoring = trial = teaching = trial_tokens = 0
    for number, shapes in enumerate(rungs):
        scored = taught + sum(forward_flops_per_token(shape, sequence) for shape in shapes)
        scoring += score_tokens * scored
        if number:
            steps = config.rung_steps[number] - config.rung_steps[number - 1]
            trial += steps * batch * sum(flops_per_token(shape, sequence) for shape in shapes)
            blocks, head = taught - _head_flops(teacher), _head_flops(teacher)
            passes = 1 if shared else len(shapes)
            teaching += steps * batch * (passes * blocks + len(shapes) * head)
            trial_tokens += steps * batch * len(shapes)
    # The retrained winner is scored once more.
    scoring += score_tokens * (taught + forward_flops_per_token(winner, sequence))
    measured = forward_flops_per_token(source, sequence) - _head_flops(source)
    return ChildCost(
        importance_flops=config.samples * sequence * measured,
        scoring_flops=scoring,
        trial_flops=trial,
        trial_teacher_flops=teaching,
        retraining_flops=tokens * flops_per_token(winner, sequence),
        teacher_flops=tokens * taught,
        trial_tokens=trial_tokens,
        tokens=tokens,
    )


def rung_sizes(config: FamilyConfig, candidates: int) -> list[int]:
    """Candidates that are scored at each rung, if none fails; it ends with one that is left."""
    sizes = [candidates]
    for rung in range(1, len(config.rung_steps)):
        if candidates == 1:
            break
        sizes.append(candidates)
        if config.trial.halving and rung < len(config.rung_steps) - 1:
            candidates = ceil(candidates / 2)
    return sizes


def total(costs: Mapping[str, ChildCost]) -> dict[str, int]:
    """The same figures, summed over children."""
    keys = ChildCost().as_json()
    return {key: sum(cost.as_json()[key] for cost in costs.values()) for key in keys}


@dataclass(frozen=True, slots=True)
class StepEquivalent:
    """The price of a family by the step, as the method's paper counts it.

    One step of the original and of each child, at the children's batch and sequence. From scratch,
    all take as many steps; grown, the children take fewer, and their step counts by that share.
    Importance passes, searches and the teacher's passes are not in it.

    Args:
        scratch: FLOPs of a step of every model.
        family: FLOPs of a step of the original, and the children's share of theirs.
        token_ratio: from-scratch tokens over those of a child.

    Source: arXiv 2407.14679, section 4 ("Cost of training a model family").
    """

    scratch: float
    family: float
    token_ratio: float

    @property
    def ratio(self) -> float:
        """How many times the price from scratch is the family's."""
        return self.scratch / self.family

    def as_json(self) -> dict[str, float]:
        """The figures."""
        return {
            "scratch_flops": self.scratch,
            "family_flops": self.family,
            "token_ratio": self.token_ratio,
            "ratio": self.ratio,
        }


def step_equivalent(
    original: int, children: Sequence[int], batch_tokens: int, token_ratio: float, digits: int = 0
) -> StepEquivalent:
    """The price of a family by the step.

    Args:
        original: FLOPs of one token of the original model, forward and backward.
        children: the same of each child.
        batch_tokens: tokens of a step.
        token_ratio: from-scratch tokens over those of a child.
        digits: round the FLOPs of each step to so many digits first, as tables print them; 0: not.
    """

    def rounded(value: int) -> float:
        return round(value, digits - 1 - floor(log10(value))) if digits else value

    first, *rest = (rounded(each * batch_tokens) for each in (original, *children))
    return StepEquivalent(first + sum(rest), first + sum(rest) / token_ratio, token_ratio)
