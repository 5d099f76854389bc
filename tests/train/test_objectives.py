from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.objectives import OBJECTIVES
from regrow.train.objectives.distillation import Distillation
from regrow.train.objectives.next_token import NextToken
from tests.train.fakes import FakeLoader, Tokens, equal, weights

SHAPE = ModelConfig(layers=1, hidden_size=16, heads=2, vocab_size=23, init_std=0.3)


def _decoder(seed: int, **changes: int) -> Decoder:
    model = Decoder(SHAPE.replace(**changes) if changes else SHAPE)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def _batch() -> Tokens:
    return FakeLoader().batch(0, 8)


def test_registry_knows_both() -> None:
    assert OBJECTIVES.get("next_token") is NextToken
    assert OBJECTIVES.get("distillation") is Distillation


def test_next_token_is_the_summed_cross_entropy() -> None:
    model, batch = _decoder(0), _batch()
    loss = NextToken(model).loss(batch)
    expected = F.cross_entropy(
        model(batch.tokens).flatten(0, 1), batch.targets.flatten(), reduction="sum"
    )
    assert loss.weight == int((batch.targets != -100).sum())
    assert loss.sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert NextToken(model).trainable() is model


@pytest.mark.parametrize(("temperature", "ce_weight"), [(1.0, 0.0), (2.0, 0.0), (1.0, 0.3)])
def test_distillation_against_torch(temperature: float, ce_weight: float) -> None:
    student, teacher = _decoder(0), _decoder(1, hidden_size=24)
    batch = _batch()
    loss = Distillation(student, teacher, temperature, ce_weight).loss(batch)
    loss.sum.backward()
    got = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    mask = batch.targets != -100
    ours = student(batch.tokens)[mask]
    theirs = teacher(batch.tokens)[mask]
    kl = temperature**2 * F.kl_div(
        F.log_softmax(ours / temperature, -1),
        F.log_softmax(theirs / temperature, -1),
        reduction="sum",
        log_target=True,
    )
    ce = F.cross_entropy(ours, batch.targets[mask], reduction="sum")
    total = kl + ce_weight * ce
    total.backward()
    assert loss.sum.item() == pytest.approx(total.item(), rel=1e-5)
    assert loss.weight == int(mask.sum())
    assert float(loss.metrics["kl"]) == pytest.approx(kl.item(), rel=1e-5)
    assert float(loss.metrics["ce"]) == pytest.approx(ce.item(), rel=1e-5)
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(got[name], parameter.grad, atol=2e-5), name


def test_the_teacher_stays_as_it_is() -> None:
    student, teacher = _decoder(0), _decoder(1)
    teacher.train()
    before = weights(teacher)
    objective = Distillation(student, teacher)
    objective.loss(_batch()).sum.backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert equal(before, weights(teacher))
    assert objective.trainable() is student


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    loss = Distillation(_decoder(0), _decoder(0)).loss(_batch())
    assert abs(loss.sum.item()) < 1e-4


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="the teacher 31"):
        Distillation(_decoder(0), _decoder(0, vocab_size=31))
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        Distillation(_decoder(0), _decoder(1), temperature=0)
