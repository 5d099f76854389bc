"""Every way to compare a student with its teacher, against the formulas written out in float64."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.model.config import ModelConfig
from regrow.model.divergences import DIVERGENCES, Matching
from regrow.model.head import OutputHead


def written_out(p_s: Tensor, p_t: Tensor, name: str, beta: float) -> Tensor:
    """(N, K) probabilities to (N,) nats."""

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)

    if name == "fkl":
        return kl(p_t, p_s)
    if name == "rkl":
        return kl(p_s, p_t)
    m = beta * p_t + (1 - beta) * p_s
    return beta * kl(p_t, m) + (1 - beta) * kl(p_s, m)


def naive(
    student: Tensor, teacher: Tensor, targets: Tensor, counts: Tensor, matching: Matching
) -> tuple[Tensor, Tensor]:
    """Loss, and divergence of each token that counts, of whole logits (N, V)."""
    student, teacher, targets = student[counts], teacher[counts], targets[counts]
    p_s, p_t = ((z / matching.temperature).softmax(-1) for z in (student, teacher))
    if matching.top_k is not None:
        order = p_t.argsort(-1, descending=True)
        p_s, p_t = p_s.gather(1, order), p_t.gather(1, order)
        k = matching.top_k
        p_s, p_t = (torch.cat([p[:, :k], p[:, k:].sum(-1, keepdim=True)], 1) for p in (p_s, p_t))
    each = matching.temperature**2 * written_out(p_s, p_t, matching.divergence, matching.beta)
    entropy = F.cross_entropy(student, targets, reduction="sum")
    return each.sum() + matching.ce_weight * entropy, each


def head(rows: int, width: int, dtype: torch.dtype, generator: torch.Generator) -> OutputHead:
    shape = ModelConfig(layers=1, hidden_size=width, heads=1, head_dim=2, vocab_size=rows)
    made = OutputHead(shape, None)
    with torch.no_grad():
        made.weight.copy_(torch.empty(rows, width).normal_(generator=generator))
    return made.to(dtype)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    vocabulary = draw(st.integers(2, 40))
    return {
        "vocabulary": vocabulary,
        "tokens": draw(st.integers(1, 20)),
        "widths": (draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        "matching": Matching(
            draw(st.sampled_from(DIVERGENCES.names())),
            draw(st.sampled_from([1.0, 0.5, 0.7, 2.0, 4.0])),
            draw(st.none() | st.integers(1, vocabulary)),
            draw(st.sampled_from([0.1, 0.5, 0.9])),
            draw(st.sampled_from([0.0, 0.3, 2.0])),
        ),
        "chunk": draw(st.integers(1, 25)),
        "seed": draw(st.integers(0, 10_000)),
        "masked": draw(st.booleans()),
    }


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_every_option_equals_the_formula(case: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(case["seed"])
    count, vocabulary, matching = case["tokens"], case["vocabulary"], case["matching"]
    student, teacher = (head(vocabulary, w, torch.float64, generator) for w in case["widths"])
    x, goal = (
        torch.empty(count, w, dtype=torch.float64).normal_(generator=generator)
        for w in case["widths"]
    )
    x.requires_grad_()
    targets = torch.randint(vocabulary, (count,), generator=generator)
    targets[torch.rand(count, generator=generator) < 0.2] = -100
    mask = torch.rand(count, generator=generator) < 0.7 if case["masked"] else None
    made = student.match(x, goal, teacher, matching, mask, targets, case["chunk"])
    counts = (targets != -100) & (mask if mask is not None else True)
    expected, each = naive(
        x @ student.weight.T, goal @ teacher.weight.T.detach(), targets, counts, matching
    )
    assert made.tokens == int(counts.sum())
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(made.loss, expected, **close)
    torch.testing.assert_close(made.divergence[counts], each, **close)
    assert not made.divergence[~counts].any()
    inputs = (x, student.weight)
    ours = torch.autograd.grad(made.loss * 0.37, inputs)
    theirs = torch.autograd.grad(expected * 0.37, inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **close)
    assert teacher.weight.grad is None


@pytest.mark.parametrize("name", DIVERGENCES.names())
@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_gradcheck(name: str, top_k: int | None, temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    teacher = head(11, 4, torch.float64, generator)
    student = head(11, 3, torch.float64, generator)
    x = torch.empty(5, 3, dtype=torch.float64).normal_(generator=generator).requires_grad_()
    goal = torch.empty(5, 4, dtype=torch.float64).normal_(generator=generator)
    targets = torch.tensor([1, 10, -100, 4, 0])
    matching = Matching(name, temperature, top_k, 0.3, 0.4)

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return student.match(x, goal, teacher, matching, targets=targets, chunk_tokens=2).loss

    # The head hands its own weight over, which gradcheck changes in place.
    assert torch.autograd.gradcheck(loss, (x, student.weight))


@pytest.mark.parametrize("name", DIVERGENCES.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeping_every_id_is_keeping_all_of_them_apart(name: str, dtype: torch.dtype) -> None:
    """k = V is the whole distribution; so is k = V - 1, whose rest is a single id."""
    generator = torch.Generator().manual_seed(2)
    student, teacher = head(30, 6, dtype, generator), head(30, 8, dtype, generator)
    x = torch.empty(40, 6).normal_(generator=generator).to(dtype).requires_grad_()
    goal = torch.empty(40, 8).normal_(generator=generator).to(dtype)
    inputs = (x, student.weight)
    results = [
        student.match(x, goal, teacher, Matching(name, top_k=k)).loss for k in (None, 30, 100, 29)
    ]
    gradients = [torch.autograd.grad(loss, inputs) for loss in results]
    for loss, pair in zip(results[1:], gradients[1:], strict=True):
        torch.testing.assert_close(loss, results[0])
        for one, other in zip(pair, gradients[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DIVERGENCES.names())
def test_fp32_is_near_to_float64(name: str) -> None:
    """At a vocabulary and at logits of a real size."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = (head(8000, w, torch.float32, generator) for w in (32, 48))
    x = torch.empty(70, 32).normal_(generator=generator).requires_grad_()
    goal = torch.empty(70, 48).normal_(generator=generator)
    wide = (x.detach().double().requires_grad_(), student.weight.detach().double().requires_grad_())
    for matching in (Matching(name), Matching(name, 2.0, 50, ce_weight=0.5)):
        targets = torch.randint(8000, (70,), generator=generator)
        made = student.match(x, goal, teacher, matching, targets=targets, chunk_tokens=32)
        logits = goal.double() @ teacher.weight.detach().double().T
        everything = torch.ones(70, dtype=torch.bool)
        expected, _ = naive(wide[0] @ wide[1].T, logits, targets, everything, matching)
        torch.testing.assert_close(made.loss.double(), expected, rtol=1e-5, atol=0.0)
        ours = torch.autograd.grad(made.loss, (x, student.weight))
        for one, other in zip(ours, torch.autograd.grad(expected, wide), strict=True):
            assert (one.double() - other).norm() < 1e-5 * other.norm()


def test_a_small_tail_is_exact() -> None:
    """The rest of a very sure teacher is far below fp32's distance from one."""
    teacher = torch.tensor([[30.0, 0.0, 0.0, -5.0]])
    student = torch.tensor([[0.0, 10.0, -10.0, 0.0]], dtype=torch.float32, requires_grad=True)
    expected, _ = naive(
        student.double(), teacher.double(), torch.zeros(1, dtype=torch.int64),
        torch.tensor([True]), Matching("rkl", top_k=1),
    )  # fmt: skip
    eye = OutputHead(ModelConfig(layers=1, hidden_size=4, heads=1, vocab_size=4), None)
    with torch.no_grad():
        eye.weight.copy_(torch.eye(4))
    made = eye.match(student, teacher, eye, Matching("rkl", top_k=1))
    assert expected.item() > 29
    torch.testing.assert_close(made.loss.double(), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", DIVERGENCES.names())
def test_extreme_logits_stay_finite(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    student, teacher = (head(50, 8, torch.float32, generator) for _ in range(2))
    x = (torch.empty(9, 8).normal_(generator=generator) * 300).requires_grad_()
    goal = torch.empty(9, 8).normal_(generator=generator) * 300
    for top_k in (None, 4):
        loss = student.match(x, goal, teacher, Matching(name, top_k=top_k)).loss
        gradients = torch.autograd.grad(loss, (x, student.weight))
        assert all(torch.isfinite(value).all() for value in (loss, *gradients))
        assert loss >= 0


@pytest.mark.parametrize("name", DIVERGENCES.names())
def test_equal_distributions_have_nothing_to_learn(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    one = head(50, 8, torch.float64, generator)
    x = torch.empty(9, 8, dtype=torch.float64).normal_(generator=generator).requires_grad_()
    loss = one.match(x, x, one, Matching(name, 1.5)).loss
    assert abs(loss.item()) < 1e-12
    assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-12


def test_padding_rows_are_left_out() -> None:
    generator = torch.Generator().manual_seed(6)
    student, teacher = (head(v, 8, torch.float64, generator) for v in (20, 24))
    x, goal = (
        torch.empty(9, 8, dtype=torch.float64).normal_(generator=generator) for _ in range(2)
    )
    x.requires_grad_()
    made = student.match(x, goal, teacher, Matching(), vocabulary=17)
    expected, _ = naive(
        (x @ student.weight.T)[:, :17], (goal @ teacher.weight.T)[:, :17].detach(),
        torch.zeros(9, dtype=torch.int64), torch.ones(9, dtype=torch.bool), Matching(),
    )  # fmt: skip
    torch.testing.assert_close(made.loss, expected)
    inputs = (x, student.weight)
    ours, theirs = (torch.autograd.grad(loss, inputs) for loss in (made.loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert not ours[1][17:].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"divergence": "kl"}, "'kl' is unknown"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"beta": 1.0}, "beta"),
        ({"ce_weight": -1.0}, "ce_weight"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matching(**wrong)


def test_cross_entropy_needs_targets() -> None:
    one = head(5, 2, torch.float32, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="needs targets"):
        one.match(torch.ones(3, 2), torch.ones(3, 2), one, Matching(ce_weight=1.0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from Linux")
def test_peak_memory_depends_on_a_chunk_and_not_on_tokens() -> None:
    """Three times the tokens take no more; both take far less than the logits of one side."""
    code = """
import torch
from pathlib import Path
from regrow.model.chunked_matching import match
from regrow.model.divergences import Matching
torch.set_num_threads(1)

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(field))

def step(count, vocabulary, top_k):
    hidden, matrix = torch.randn(count, 8), torch.randn(vocabulary, 8)
    targets = torch.zeros(count, dtype=torch.int64)
    leaves = hidden.clone().requires_grad_(), matrix.clone().requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    matching = Matching("jsd", top_k=top_k, ce_weight=0.1)
    float32 = torch.float32
    match(*leaves, hidden, matrix, targets, matching, float32, float32, 128)[0].backward()
    return status("VmHWM") - before

step(8, 100, None)
for top_k in (None, 64):
    print(*(step(count, 30_000, top_k) for count in (512, 1536)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    chunk = 128 * 30_000 * 4
    for line in done.stdout.splitlines():
        few, many = map(int, line.split())
        assert 2 * chunk <= many < 3 * chunk  # the logits of a chunk, student's and teacher's
        assert many < 1.15 * few
