"""The chunked scan against the plain recurrence in float64: values, final state, all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.model.ssd import Heads, scan


def recurrence(
    mixed: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    heads: Heads,
    initial: Tensor | None,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One token after the other, head by head, as the definition says."""
    batch, time, _ = mixed.shape
    x, b, c = mixed.split([heads.inner, heads.shared, heads.shared], -1)
    ratio = heads.heads // heads.groups
    x = x.view(batch, time, heads.heads, heads.head_dim)
    b = b.view(batch, time, heads.groups, heads.state).repeat_interleave(ratio, 2)
    c = c.view(batch, time, heads.groups, heads.state).repeat_interleave(ratio, 2)
    state = torch.zeros(batch, heads.heads, heads.state, heads.head_dim, dtype=mixed.dtype)
    if initial is not None:
        split = initial.view(batch, heads.groups, heads.state, ratio, heads.head_dim)
        state = split.transpose(2, 3).flatten(1, 2)
    outputs = []
    for t in range(time):
        if documents is not None and t:
            state = state * (documents[:, t] == documents[:, t - 1])[:, None, None, None]
        decay = (dt[:, t] * A).exp()[..., None, None]
        fed = (dt[:, t, :, None] * b[:, t])[..., None] * x[:, t, :, None, :]
        state = decay * state + fed
        outputs.append((state * c[:, t, ..., None]).sum(2) + D[:, None] * x[:, t])
    last = state.unflatten(1, (heads.groups, ratio)).transpose(2, 3).flatten(3)
    return torch.stack(outputs, 1).flatten(2), last


def inputs(heads: Heads, time: int, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    steps = normal(2, time, heads.heads).exp() * 0.3
    steps[:, time // 3] = 0.0  # nothing decays
    steps[:, time // 2] = 80.0  # everything does
    made = {
        "mixed": normal(2, time, heads.inner + 2 * heads.shared),
        "dt": steps,
        "A": -normal(heads.heads).exp(),
        "D": normal(heads.heads),
        "initial": normal(*heads.state_shape(2)),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in made.items()}


def documents(time: int, cuts: list[int]) -> Tensor:
    numbers = torch.zeros(2, time, dtype=torch.int64)
    for cut in cuts:
        numbers[0, cut % time :] += 1
    numbers[1, time // 2 :] += 1
    return numbers


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    ratio=st.integers(1, 3),
    head_dim=st.integers(1, 4),
    state=st.integers(1, 5),
    time=st.integers(3, 40),
    chunk=st.integers(1, 12),
    cuts=st.none() | st.lists(st.integers(0, 39), max_size=4),
    begun=st.booleans(),
)
def test_scan_equals_the_recurrence(
    groups: int,
    ratio: int,
    head_dim: int,
    state: int,
    time: int,
    chunk: int,
    cuts: list[int] | None,
    begun: bool,
) -> None:
    heads = Heads(groups * ratio, head_dim, groups, state)
    values = inputs(heads, time, time, torch.float64)
    numbers = documents(time, cuts) if cuts is not None else None
    names = [name for name in values if begun or name != "initial"]
    initial = values["initial"] if begun else None
    arguments = (values["mixed"], values["dt"], values["A"], values["D"], heads)
    y, final = scan(*arguments, chunk, initial, numbers)
    expected = recurrence(*arguments, initial, numbers)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in expected]
    tensors = [values[name] for name in names]
    grads = torch.autograd.grad((y * weights[0]).sum() + (final * weights[1]).sum(), tensors)
    loss = (expected[0] * weights[0]).sum() + (expected[1] * weights[1]).sum()
    wanted = torch.autograd.grad(loss, tensors)
    for got, want in zip((y, final, *grads), (*expected, *wanted), strict=True):
        scale = max(1.0, want.abs().max().item())
        torch.testing.assert_close(got / scale, want / scale, atol=1e-11, rtol=1e-9)


def test_gradcheck() -> None:
    heads = Heads(4, 2, 2, 3)
    values = inputs(heads, 9, 1, torch.float64)
    numbers = documents(9, [4, 5])
    assert torch.autograd.gradcheck(
        lambda mixed, dt, A, D, initial: scan(mixed, dt, A, D, heads, 4, initial, numbers),
        tuple(value.detach().clamp(max=3.0).requires_grad_() for value in values.values()),
    )


def test_fp32_stays_near_float64_over_a_long_row() -> None:
    heads = Heads(4, 8, 2, 16)
    exact = inputs(heads, 2048, 3, torch.float64)
    low = {name: value.detach().float().requires_grad_() for name, value in exact.items()}
    grads = []
    outputs = []
    for values in (exact, low):
        y, final = scan(*[values[n] for n in ("mixed", "dt", "A", "D")], heads, 64)
        outputs.append(y.double())
        loss = y.double().square().mean() + final.double().square().mean()
        grads.append(torch.autograd.grad(loss, [values[n] for n in ("mixed", "dt", "A", "D")]))
    assert (outputs[0] - outputs[1]).abs().max() < 1e-4 * outputs[0].abs().max()
    for one, other in zip(*grads, strict=True):
        assert other.isfinite().all()
        assert (one - other).abs().max() < 1e-3 * one.abs().max()


@pytest.mark.parametrize("chunk", [1, 5, 32, 64])
def test_the_chunk_decides_only_the_rounding(chunk: int) -> None:
    heads = Heads(2, 4, 1, 4)
    values = inputs(heads, 61, 5, torch.float64)
    arguments = [values[n] for n in ("mixed", "dt", "A", "D")]
    whole, last = scan(*arguments, heads, 61)
    y, final = scan(*arguments, heads, chunk)
    torch.testing.assert_close(y, whole)
    torch.testing.assert_close(final, last)


def test_extreme_steps_give_neither_nan_nor_infinity() -> None:
    heads = Heads(2, 4, 1, 4)
    values = inputs(heads, 16, 6, torch.float32)
    for step in (0.0, 1e-30, 1e4):
        dt = torch.full((2, 16, 2), step, requires_grad=True)
        y, final = scan(values["mixed"], dt, values["A"], values["D"], heads, 8)
        grads = torch.autograd.grad(y.sum() + final.sum(), [values["mixed"], dt, values["A"]])
        assert all(t.isfinite().all() for t in (y, final, *grads)), step
