"""Attention in tiles against float64, and no less exact than torch's own in bf16."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regrow.model import tiled
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder


def exact(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, upstream: Tensor
) -> list[Tensor]:
    """Output and gradients in float64, written out."""
    q, k, v = (x.detach().double().requires_grad_() for x in (queries, keys, values))
    group = q.shape[2] // k.shape[2]
    wide_k, wide_v = (x.repeat_interleave(group, 2) for x in (k, v))
    scores = torch.einsum("bthc,bshc->bhts", q, wide_k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    out = torch.einsum("bhts,bshc->bthc", weights, wide_v)
    (out * upstream.double()).sum().backward()
    return [out.detach(), *(x.grad for x in (q, k, v) if x.grad is not None)]


def error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


def documents(batch: int, time: int, generator: torch.Generator) -> Tensor:
    number = (torch.rand(batch, time, generator=generator) < 0.04).cumsum(1)
    same = number[:, :, None] == number[:, None, :]
    return (same & torch.ones(time, time, dtype=torch.bool).tril())[:, None]


@pytest.mark.parametrize("kind", ["causal", "documents", "window", "both ways"])
@pytest.mark.parametrize(
    ("batch", "time", "heads", "kv_heads", "width"),
    [(3, 150, 6, 3, 24), (2, 300, 4, 4, 16), (1, 21, 4, 1, 8), (2, 129, 8, 2, 32)],
)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_against_float64(
    kind: str, batch: int, time: int, heads: int, kv_heads: int, width: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(time)
    shapes = ((heads, scale), (kv_heads, scale), (kv_heads, 1.0))
    inputs = [torch.randn(batch, time, h, width, generator=generator) * f for h, f in shapes]
    upstream = torch.randn(batch, time, heads, width, generator=generator)
    causal = torch.ones(time, time, dtype=torch.bool).tril()
    mask = {
        "causal": causal[None, None],
        "documents": documents(batch, time, generator),
        "window": (causal & causal.T.tril(20).T)[None, None],
        "both ways": torch.ones(1, 1, time, time, dtype=torch.bool),
    }[kind]
    expected = exact(*inputs, mask, upstream)
    ours = [x.clone().requires_grad_() for x in inputs]
    out = tiled.attend(*ours, None if kind == "causal" else mask)  # type: ignore[arg-type,misc]
    assert out.dtype == torch.bfloat16
    (out.float() * upstream).sum().backward()
    torchs = [x.bfloat16().requires_grad_() for x in inputs]
    theirs = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in torchs),
        attn_mask=mask,
        enable_gqa=True,  # type: ignore[misc]
    ).transpose(1, 2)
    (theirs.float() * upstream).sum().backward()
    found = [out, *(x.grad for x in ours)]
    peer = [theirs, *(x.grad for x in torchs)]
    for name, mine, other, right in zip("oqkv", found, peer, expected, strict=True):
        assert mine is not None
        assert other is not None
        assert error(mine, right) < max(0.01 * scale, 1.5 * error(other, right)), name


def test_a_large_common_score_costs_no_precision() -> None:
    """Scores around 60 that differ by 1: rounded to bf16 as they are, half would be equal."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 40, 2, 16, generator=generator) * 0.5
    keys = torch.randn(1, 40, 2, 16, generator=generator) * 0.5
    queries[..., 0], keys[..., 0] = 16.0, 16.0
    values = torch.randn(1, 40, 2, 16, generator=generator)
    mask = torch.ones(40, 40, dtype=torch.bool).tril()[None, None]
    expected = exact(queries, keys, values, mask, torch.ones(1, 40, 2, 16))[0]
    assert error(tiled.attend(queries, keys, values, None), expected) < 0.006


def test_huge_scores_are_finite_and_choose_the_largest() -> None:
    """Scores up to 10^5, at which a bf16 is rounded by up to 256: as in float64, one key wins."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((3, 300.0), (3, 300.0), (3, 1.0))
    inputs = [torch.randn(2, 65, h, 5, generator=generator) * f for h, f in shapes]
    q, k, v = (x.bfloat16().float().requires_grad_() for x in inputs)
    mask = torch.ones(65, 65, dtype=torch.bool).tril()[None, None]
    expected = exact(q, k, v, mask, torch.ones(2, 65, 3, 5))[0]
    out = tiled.attend(q, k, v, None)
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
    same = ((out.double() - expected).abs() < 0.02).all(-1)
    assert same.float().mean() > 0.97


def test_what_is_not_seen_has_no_influence() -> None:
    """To the bit: hidden keys may be anything, short of what is no number."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 200, 2, 8, generator=generator) for _ in range(3))
    before = tiled.attend(q, k, v, None)
    k[:, 120:] *= 1e3
    v[:, 120:] = -7.0
    assert torch.equal(tiled.attend(q, k, v, None)[:, :120], before[:, :120])
    assert not torch.equal(tiled.attend(q, k, v, None), before)


def test_torch_finds_the_operators_sound() -> None:
    q = torch.randn(1, 9, 4, 8, requires_grad=True)
    k, v = (torch.randn(1, 9, 2, 8, requires_grad=True) for _ in range(2))
    for mask in (None, torch.ones(1, 1, 9, 9, dtype=torch.bool)):
        torch.library.opcheck(
            tiled._forward,
            (q, k, v, mask),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


@pytest.mark.parametrize("layout", ["llama", "nemotron"])
def test_a_decoder_in_bf16_is_near_the_one_in_fp32(layout: str) -> None:
    config = ModelConfig(
        layout=layout, layers=2, hidden_size=32, heads=4, kv_heads=2, vocab_size=50,
        intermediate_size=64, init_std=0.2,
    )  # fmt: skip
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    tokens = torch.randint(50, (2, 70), generator=torch.Generator().manual_seed(1))
    number = torch.arange(70).expand(2, 70) // 30
    for packed in (None, number):
        with torch.no_grad():
            wide = model(tokens, packed)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                narrow = model(tokens, packed)
        assert error(narrow, wide.double()) < 0.02
