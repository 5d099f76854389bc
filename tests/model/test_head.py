"""The chunked losses against the formulas written out."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model.config import ModelConfig
from regrow.model.head import OutputHead

CONFIG = ModelConfig(layers=1, hidden_size=16, heads=2, vocab_size=97)
TEACHER = CONFIG.replace(hidden_size=24)


def head(config: ModelConfig, dtype: torch.dtype, tied: bool = False, seed: int = 0) -> OutputHead:
    generator = torch.Generator().manual_seed(seed)
    table = torch.empty(config.vocab_size, config.hidden_size)
    table.normal_(generator=generator)
    embedding = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table) if tied else None
    made = OutputHead(config, embedding)
    if embedding is None:
        with torch.no_grad():
            made.weight.copy_(table)
        return made.to(dtype)
    embedding.to(dtype)
    return made


def hidden(width: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(50, width).normal_(generator=generator).to(dtype).requires_grad_()


def targets() -> Tensor:
    ids = torch.randint(97, (50,), generator=torch.Generator().manual_seed(2))
    ids[::7] = -100
    return ids


def grads(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss * 0.37, inputs)


def divergence(s: Tensor, t: Tensor, mask: Tensor, tau: float) -> Tensor:
    log_s, log_t = F.log_softmax(s / tau, -1), F.log_softmax(t / tau, -1)
    return ((log_t.exp() * (log_t - log_s)).sum(-1) * mask).sum() * tau**2


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [1, 13, 50, 1000, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cross_entropy_equals_torch(tied: bool, chunk: int | None, dtype: torch.dtype) -> None:
    made, x, y = head(CONFIG, dtype, tied), hidden(16, dtype), targets()
    loss, count = made.cross_entropy(x, y, chunk)
    assert count == int((y != -100).sum())
    reference_x = x.detach().double().requires_grad_()
    reference_w = made.matrix.detach().double().requires_grad_()
    reference = F.cross_entropy(reference_x @ reference_w.T, y, reduction="sum", ignore_index=-100)
    torch.testing.assert_close(loss.double(), reference, rtol=1e-6, atol=1e-6)
    expected = grads(reference, reference_x, reference_w)
    for one, other in zip(grads(loss, x, made.matrix), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("chunk", [7, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_distillation_equals_the_formula(tau: float, chunk: int | None, dtype: torch.dtype) -> None:
    made, teacher = head(CONFIG, dtype), head(TEACHER, dtype, seed=5)
    x, tx = hidden(16, dtype), hidden(24, dtype, seed=6)
    mask = torch.rand(50, generator=torch.Generator().manual_seed(3)) > 0.3
    loss, count = made.distillation(x, tx, teacher, mask, tau, chunk)
    assert count == int(mask.sum())
    reference_x = x.detach().double().requires_grad_()
    reference_w = made.matrix.detach().double().requires_grad_()
    goal = tx.detach().double() @ teacher.matrix.detach().double().T
    reference = divergence(reference_x @ reference_w.T, goal, mask, tau)
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-5)
    expected = grads(reference, reference_x, reference_w)
    for one, other in zip(grads(loss, x, made.matrix), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    assert tx.grad is None
    assert teacher.matrix.grad is None


def test_autocast_rounds_the_products_and_nothing_else() -> None:
    made, teacher = head(CONFIG, torch.float32), head(TEACHER, torch.float32, seed=5)
    x, tx, y = hidden(16, torch.float32), hidden(24, torch.float32, seed=6), targets()
    exact = F.cross_entropy(x @ made.matrix.T, y, reduction="sum", ignore_index=-100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = made.cross_entropy(x, y, 16)
        kl, _ = made.distillation(x, tx, teacher)
    assert loss.dtype == kl.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=5e-3, atol=0.0)
    for one, other in zip(grads(loss, x, made.matrix), grads(exact, x, made.matrix), strict=True):
        assert one.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999
    exact = divergence(
        x @ made.matrix.T, tx.detach() @ teacher.matrix.detach().T, torch.ones(50), 1.0
    )
    torch.testing.assert_close(kl, exact, rtol=1e-2, atol=0.0)


def test_tied_matrix_collects_both_gradients() -> None:
    made = head(CONFIG, torch.float64, tied=True)
    ids = targets().clamp(min=0)
    total, _ = made.cross_entropy(F.embedding(ids, made.matrix), ids)
    (got,) = torch.autograd.grad(total, made.matrix)
    reference = F.cross_entropy(F.embedding(ids, made.matrix) @ made.matrix.T, ids, reduction="sum")
    (expected,) = torch.autograd.grad(reference, made.matrix)
    torch.testing.assert_close(got, expected)


def test_extreme_logits_stay_finite() -> None:
    made = head(CONFIG, torch.float32)
    x = (hidden(16, torch.float32) * 1e4).detach().requires_grad_()
    loss, _ = made.cross_entropy(x, targets())
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_nothing_to_learn_from() -> None:
    made, x = head(CONFIG, torch.float32), hidden(16, torch.float32)
    loss, count = made.cross_entropy(x, torch.full((50,), -100))
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert x.grad is not None
    assert not x.grad.any()


def test_a_frozen_head_and_no_grad() -> None:
    made, x = head(CONFIG, torch.float32), hidden(16, torch.float32)
    made.weight.requires_grad_(False)
    loss, _ = made.cross_entropy(x, targets())
    loss.backward()
    assert made.weight.grad is None
    with torch.no_grad():
        assert not made.cross_entropy(x, targets())[0].requires_grad


def test_wrong_arguments() -> None:
    made = head(CONFIG, torch.float32)
    other = head(CONFIG.replace(vocab_size=96), torch.float32)
    x = hidden(16, torch.float32)
    with pytest.raises(ValueError, match="vocabulary of 96, the student of 97"):
        made.distillation(x, x, other)
    with pytest.raises(ValueError, match="temperature must be positive"):
        made.distillation(x, x, made, temperature=0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from Linux")
def test_peak_memory_does_not_hold_every_logit() -> None:
    code = """
import resource, torch
from regrow.model.head import OutputHead
from regrow.model.config import ModelConfig
torch.set_num_threads(1)
config = ModelConfig(layers=1, hidden_size=8, heads=2, vocab_size=30000)
made = OutputHead(config, None)
x, y = torch.randn(4096, 8, requires_grad=True), torch.randint(30000, (4096,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made.cross_entropy(x, y)[0].backward()
made.distillation(x, x, made)[0].backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert resource.getpagesize()
    grown = int(result.stdout) * 1024
    assert grown < 0.25 * 4096 * 30000 * 4
