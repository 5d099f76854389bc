"""Distillation with hidden states: against a loop written out, and however a batch is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.objectives.distillation import Distillation
from regrow.train.objectives.hidden_match import HiddenMatch, add_map, automatic_pairs
from tests.train.fakes import Tokens

MAMBA = {"state": 4, "head_dim": 4, "heads": 4, "groups": 2, "chunk": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2},
    "nemotron": {"layers": 2, "layout": "nemotron"},
    "hybrid": {"layers": 4, "pattern": "M-*-", "mamba": MAMBA},
}


def decoder(seed: int, width: int, **settings: Any) -> Decoder:
    model = Decoder(
        ModelConfig(
            hidden_size=width, heads=2, head_dim=4, vocab_size=29, intermediate_size=12,
            init_std=0.3, **settings,
        )
    )  # fmt: skip
    model.initialise(torch.Generator().manual_seed(seed))
    return model.double()


def batch(rows: int = 4, time: int = 11, packed: bool = False) -> Tokens:
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(29, (rows, time), generator=generator)
    targets = torch.randint(29, (rows, time), generator=generator)
    targets[torch.rand(rows, time, generator=generator) < 0.3] = -100
    targets[1] = -100  # a sequence without any target
    documents = torch.arange(time).expand(rows, time) // 4 if packed else None
    return Tokens(tokens, targets, documents)


def pair(kind: str = "llama", width: int = 8) -> tuple[Decoder, Decoder]:
    shape = SHAPES[kind]
    deep = dict(shape, layers=shape["layers"] * 2)
    if "pattern" in shape:
        deep["pattern"] = shape["pattern"] * 2
    student, teacher = decoder(0, width, **shape), decoder(1, 12, **deep)
    add_map(student, 12)
    student.double()
    return student, teacher


def states(model: Decoder, given: Tokens) -> list[Tensor]:
    """What the norms read behind the embedding and each layer, from a pass written out."""
    context = model._context(given.tokens, given.documents, None)
    each = 2 if model.config.is_transformer else 1
    x, found = model.embed(given.tokens), []
    for index, block in enumerate(model.blocks):
        if index % each == 0:
            found.append(block.norm(x))
        x = block(x, context)
    return [*found, model.norm(x)]


def written_out(student: Decoder, teacher: Decoder, match: HiddenMatch, given: Tokens) -> Tensor:
    """KL plus hidden states, a sequence and a token at a time."""
    with torch.no_grad():
        goals = states(teacher, given)
        taught = teacher(given.tokens, given.documents).log_softmax(-1)
    ours = states(student, given)
    learnt = student(given.tokens, given.documents).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(given.tokens)):
        counts = given.targets[row] != -100
        kl = F.kl_div(learnt[row][counts], taught[row][counts], reduction="sum", log_target=True)
        far = torch.zeros((), dtype=torch.float64)
        places = [(-1, -1)] * match.embed + list(match.pairs)
        for a, b in places:
            for token in counts.nonzero().flatten().tolist():
                mapped = student.hidden_map.weight @ ours[a + 1][row, token]
                goal = goals[b + 1][row, token]
                if match.metric == "cosine":
                    far = far + 1 - mapped @ goal / (mapped.norm() * goal.norm())
                else:
                    far = far + (mapped - goal).square().mean()
        if match.alpha == "dynamic":
            alpha = (kl / far).item() if counts.any() else 0.0
        else:
            alpha = match.alpha
        total = total + kl + alpha * far
    return total


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    "match",
    [
        HiddenMatch(((0, 2),)),
        HiddenMatch(((0, 1), (1, 3)), embed=False, metric="mse"),
        HiddenMatch(((1, 2),), metric="mse", alpha=0.7),
        HiddenMatch((), embed=True, alpha=2.0),
    ],
    ids=["cosine", "last", "fixed", "embedding"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_hidden_states_against_a_loop(kind: str, match: HiddenMatch, packed: bool) -> None:
    student, teacher = pair(kind)
    given = batch(packed=packed)
    loss = Distillation(student, teacher, hidden=match).loss(given)
    expected = written_out(student, teacher, match, given)
    assert loss.sum.item() == pytest.approx(expected.item(), rel=1e-9)
    ours, theirs = gradients(student, loss.sum), gradients(student, expected)
    assert_same(ours, theirs)
    assert ours["hidden_map.weight"].abs().max() > 0
    assert all(p.grad is None for p in teacher.parameters())
    assert loss.weight == int((given.targets != -100).sum())
    if match.alpha == "dynamic":  # each sequence's hidden states weigh as its divergence
        assert loss.sum.item() == pytest.approx(2 * float(loss.metrics["kl"]), rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "hybrid"])
def test_recomputed_blocks_give_the_same_gradients(kind: str) -> None:
    student, teacher = pair(kind)
    objective = Distillation(student, teacher, hidden=HiddenMatch(((0, 2), (1, 3))))
    plain = gradients(student, objective.loss(batch()).sum)
    for block in student.blocks:
        block.recompute = True
    assert_same(gradients(student, objective.loss(batch()).sum), plain)


@pytest.mark.parametrize("alpha", ["dynamic", 0.5])
@pytest.mark.parametrize("options", [{}, {"divergence": "jsd", "top_k": 5, "ce_weight": 0.3}])
def test_micro_batches_add_up_to_one_batch(alpha: Any, options: dict[str, Any]) -> None:
    student, teacher = pair()
    match = HiddenMatch(((0, 2),), alpha=alpha)
    objective = Distillation(student, teacher, 2.0, hidden=match, **options)
    whole = objective.loss(batch())
    parts = [
        objective.loss(Tokens(batch().tokens[i], batch().targets[i])) for i in ([0, 1], [2, 3])
    ]
    assert sum(part.weight for part in parts) == whole.weight
    for name, value in whole.metrics.items():
        assert float(sum(p.metrics[name] for p in parts)) == pytest.approx(float(value)), name
    assert_same(gradients(student, sum(part.sum for part in parts)), gradients(student, whole.sum))


def test_padding_is_not_looked_at() -> None:
    """Tokens behind the last target change nothing."""
    student, teacher = pair()
    objective = Distillation(student, teacher, hidden=HiddenMatch(((0, 2),)))
    given = batch()
    given.targets[:, 8:] = -100
    other = given.tokens.clone()
    other[:, 8:] = 0
    first, second = (objective.loss(Tokens(t, given.targets)) for t in (given.tokens, other))
    assert first.sum.item() == pytest.approx(second.sum.item(), rel=1e-12)
    assert_same(gradients(student, first.sum), gradients(student, second.sum))


def test_a_batch_without_a_target() -> None:
    student, teacher = pair()
    given = batch()
    given.targets.fill_(-100)
    loss = Distillation(student, teacher, hidden=HiddenMatch(((0, 2),))).loss(given)
    assert (loss.sum.item(), loss.weight) == (0.0, 0)
    assert not any(g.any() for g in gradients(student, loss.sum).values())


def test_equal_hidden_states_have_no_weight() -> None:
    student = decoder(1, 12, layers=4)
    teacher = decoder(1, 12, layers=4)
    add_map(student, 12)
    student.double()
    loss = Distillation(student, teacher, hidden=HiddenMatch(((1, 1),), metric="mse")).loss(batch())
    assert abs(loss.sum.item()) < 1e-10
    assert float(loss.metrics["hidden"]) < 1e-25  # equal widths start at the identity


def test_the_map_starts_at_the_channels_that_were_kept() -> None:
    student = decoder(0, 8, layers=1)
    add_map(student, 12, channels=[0, 1, 2, 3, 5, 7, 8, 11])
    x = torch.arange(8.0)
    full = torch.zeros(12)
    full[[0, 1, 2, 3, 5, 7, 8, 11]] = x
    assert torch.equal(student.hidden_map(x), full)
    again, other = decoder(0, 8, layers=1), decoder(0, 8, layers=1)
    add_map(again, 12, seed=3)
    add_map(other, 12, seed=4)
    assert not torch.equal(again.hidden_map.weight, other.hidden_map.weight)
    assert again.hidden_map.weight.std().item() == pytest.approx(8**-0.5, rel=0.2)


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [(16, 32, ((13, 29),)), (24, 32, ()), (23, 32, ((20, 29),)), (32, 32, ()), (1, 4, ((0, 1),))],
)
def test_automatic_pairs(student: int, teacher: int, pairs: Any) -> None:
    assert automatic_pairs(student, teacher) == pairs


def test_autocast() -> None:
    student, teacher = (model.float() for model in pair())
    objective = Distillation(student, teacher, hidden=HiddenMatch(((0, 2),)))
    exact = objective.loss(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = objective.loss(batch())
    assert rounded.sum.dtype == torch.float32
    for name, value in exact.metrics.items():
        assert float(rounded.metrics[name]) == pytest.approx(float(value), rel=0.03), name
    rounded.sum.backward()
    assert student.hidden_map.weight.grad is not None


def test_a_teacher_in_bf16() -> None:
    student, teacher = (model.float() for model in pair())
    exact = Distillation(student, teacher).loss(batch()).sum.item()
    rounded = Distillation(student, teacher.bfloat16()).loss(batch())
    assert rounded.sum.dtype == torch.float32
    assert rounded.sum.item() == pytest.approx(exact, rel=0.05)


def test_settings_that_cannot_be() -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match="no pair of layers"):
        Distillation(student, teacher, hidden=HiddenMatch((), embed=False))
    with pytest.raises(ValueError, match="call add_map"):
        Distillation(decoder(0, 8, layers=2), teacher, hidden=HiddenMatch(((0, 0),)))
