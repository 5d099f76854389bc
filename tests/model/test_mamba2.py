"""The Mamba-2 block: one function, whether trained, prefilled, stepped, packed or padded."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.conv import causal_conv
from regrow.model.decoder import Decoder
from regrow.model.gated_norm import GatedNorm
from regrow.model.mamba2 import Mamba2, MambaState
from regrow.model.shapes import kv_bytes_per_token, state_bytes
from tests.model.makers import HYBRIDS as SHAPES
from tests.model.makers import ours, tokens


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Decoder:
    return ours(**SHAPES[request.param]).eval()


def padded(ids: Tensor, gaps: list[list[tuple[int, int]]], length: int) -> tuple[Tensor, Tensor]:
    """Rows with junk put in at the gaps (start, size), which lie in the final row."""
    valid = torch.ones(len(gaps), length, dtype=torch.bool)
    for row, places in enumerate(gaps):
        for start, size in places:
            valid[row, start : start + size] = False
    out = torch.full((len(gaps), length), 3)
    out[valid] = ids.flatten()
    return out, valid


@torch.no_grad()
@pytest.mark.parametrize(
    "gaps",
    [
        [[(0, 7)], [(0, 7)]],  # left
        [[(14, 7)], [(14, 7)]],  # right
        [[(0, 3), (17, 4)], [(5, 7)]],  # anywhere
    ],
)
@pytest.mark.parametrize("pieces", [[21], [5, 1, 15], [9, 12]])
def test_padding_changes_nothing(
    model: Decoder, gaps: list[list[tuple[int, int]]], pieces: list[int]
) -> None:
    ids = tokens(model.config, 2, 14)
    further = tokens(model.config, 2, 3, seed=1)
    cache = model.new_cache(2, 17)
    whole = torch.cat([model(part, cache=cache) for part in (ids, further)], 1)
    rows, valid = padded(ids, gaps, 21)
    torch.testing.assert_close(
        model(rows, valid=valid)[valid], whole[:, :14].flatten(0, 1), atol=3e-6, rtol=1e-5
    )
    cache = model.new_cache(2, 24)
    parts = [
        model(part, cache=cache, valid=mask)
        for part, mask in zip(rows.split(pieces, 1), valid.split(pieces, 1), strict=True)
    ]
    torch.testing.assert_close(
        torch.cat(parts, 1)[valid], whole[:, :14].flatten(0, 1), atol=3e-6, rtol=1e-5
    )
    # Without a mask of their own, further tokens still must not see the padding behind them.
    after = torch.cat([model(one, cache=cache) for one in further.split(1, 1)], 1)
    torch.testing.assert_close(after, whole[:, 14:], atol=3e-6, rtol=1e-5)


def test_padding_reaches_no_gradient(model: Decoder) -> None:
    ids = tokens(model.config, 2, 14)
    rows, valid = padded(ids, [[(0, 3), (17, 4)], [(5, 7)]], 21)
    weights = torch.randn(28, model.config.vocab_size, generator=torch.Generator().manual_seed(2))
    parameters = list(model.parameters())
    loss = (model(rows, valid=valid)[valid] * weights).sum()
    got = torch.autograd.grad(loss, parameters)
    want = torch.autograd.grad((model(ids).flatten(0, 1) * weights).sum(), parameters)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


def test_the_cache_takes_the_bytes_of_the_plan(model: Decoder) -> None:
    config = model.config
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        cache = model.new_cache(3, 50, dtype)
        planned = state_bytes(config, size) + 50 * kv_bytes_per_token(config, size)
        assert cache.nbytes == 3 * planned
    states = [s for s in cache.states if isinstance(s, MambaState)]
    assert states
    assert all(s.state.dtype == torch.float32 for s in states)


def test_decays_stay_in_fp32_when_the_model_does_not(model: Decoder) -> None:
    low = copy.deepcopy(model).to(torch.bfloat16)
    for name, parameter in low.named_parameters():
        kept = ".dynamics." in name
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
    mixers = [block.mixer for block in low.blocks if isinstance(block.mixer, Mamba2)]
    originals = [block.mixer for block in model.blocks if isinstance(block.mixer, Mamba2)]
    for mixer, original in zip(mixers, originals, strict=True):
        assert torch.equal(mixer.dynamics.A_log, original.dynamics.A_log)
    assert copy.deepcopy(model).double().embed.weight.dtype == torch.float64


@torch.no_grad()
def test_bf16_drift_is_bounded() -> None:
    """Over 512 tokens the logits of bf16 weights stay within 4 % of the spread of the logits, in
    one pass and step by step; stated in docs/models.md.
    """
    model = ours(hidden_size=64, **SHAPES["hybrid"]).eval()
    low = copy.deepcopy(model).to(torch.bfloat16)
    ids = tokens(model.config, 1, 512)
    exact = model(ids)
    cache = low.new_cache(1, 512)
    stepped = torch.cat([low(one, cache=cache) for one in ids.split([384] + [1] * 128, 1)], 1)
    for drifted in (low(ids), stepped):
        error = (drifted.float() - exact).square().mean().sqrt()
        assert error < 0.04 * exact.std()


def test_autocast_stays_near_fp32(model: Decoder) -> None:
    ids = tokens(model.config, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(ids)
        low.float().square().mean().backward()
    torch.testing.assert_close(low.float(), model(ids), atol=0.1, rtol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("time", [1, 3, 700])
def test_convolution_equals_torch(taps: int, bias: bool, time: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, time, 300, dtype=torch.float64)[..., 10:290].requires_grad_()
    weight = torch.randn(280, taps, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(280, dtype=torch.float64, requires_grad=True) if bias else None
    window = torch.randn(2, taps - 1, 280, dtype=torch.float64)
    got = causal_conv(x, weight, shift, window)
    whole = torch.cat([window, x], 1).transpose(1, 2)
    want = F.silu(F.conv1d(whole, weight[:, None], shift, groups=280)).transpose(1, 2)
    torch.testing.assert_close(got, want)
    leaves = [x, weight] + ([shift] if shift is not None else [])
    up = torch.randn_like(got)
    for one, other in zip(
        torch.autograd.grad(got, leaves, up), torch.autograd.grad(want, leaves, up), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_gated_norm_equals_its_formula() -> None:
    torch.manual_seed(0)
    norm = GatedNorm(12, 3, 1e-5).double()
    torch.nn.init.normal_(norm.weight)
    y, z = (torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True) for _ in range(2))
    gated = (y * F.silu(z)).view(2, 5, 3, 4)
    want = F.rms_norm(gated, (4,), eps=1e-5).flatten(-2) * norm.weight
    torch.testing.assert_close(norm(y, z), want)
    assert torch.autograd.gradcheck(norm, (y, z))
    leaves = [norm.weight]
    torch.testing.assert_close(
        torch.autograd.grad(norm(y, z).square().sum(), leaves),
        torch.autograd.grad(want.square().sum(), leaves),
    )


def test_initial_values_follow_their_rule() -> None:
    sizes = MambaConfig(state=8, head_dim=2, heads=2000, groups=8, conv=4)
    config = ModelConfig(
        layers=4, pattern="MMMM", hidden_size=32, vocab_size=11, mamba=sizes, init_std=0.03
    )
    made = []
    for _ in range(2):
        model = Decoder(config)
        state = torch.get_rng_state()
        model.initialise(torch.Generator().manual_seed(3))
        assert torch.equal(torch.get_rng_state(), state)
        made.append(model.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, Mamba2)
    rates = mixer.dynamics.A_log.exp()
    assert 1 <= rates.min() < 1.2
    assert 15.8 < rates.max() <= 16
    assert rates.mean().item() == pytest.approx(8.5, rel=0.05)
    steps = F.softplus(mixer.dynamics.dt_bias)
    assert steps.min() >= 1e-3 * 0.99
    assert steps.max() <= 0.1 * 1.01
    assert steps.log().mean().item() == pytest.approx(-4.605, abs=0.1)
    assert (mixer.dynamics.D == 1).all()
    assert mixer.conv1d.weight.abs().max() <= 0.5
    assert mixer.conv1d.weight.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.02)
    assert mixer.in_proj.weight.std().item() == pytest.approx(0.03, rel=0.02)
    assert mixer.out_proj.weight.std().item() == pytest.approx(0.03 / 2, rel=0.02)
