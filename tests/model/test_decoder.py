"""What the decoder's function must satisfy, whatever its weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.norm import RMSNorm
from tests.model.makers import HYBRIDS, ours, tokens

SHAPES = {
    "llama": {},
    "tied": {"tie_embeddings": True, "qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "nemotron": {"layout": "nemotron", "head_dim": 8},
    "uneven": {"pattern": "-**--", "layers": 5, "activation": "gelu", "qk_norm": True},
    "no position": {"rotary_fraction": 0.0},
    "near": {"sliding_window": 4},
    **HYBRIDS,
}


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Decoder:
    return ours(**SHAPES[request.param]).eval()


@torch.no_grad()
def test_no_token_sees_a_later_one(model: Decoder) -> None:
    ids = tokens(model.config, 1, 20)
    before = model(ids)
    for place in range(20):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % model.config.vocab_size
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place:], before[:, place:])


def test_packed_documents_equal_each_alone(model: Decoder) -> None:
    ids = tokens(model.config, 2, 21)
    lengths = [[5, 1, 15], [21]]
    documents = torch.stack(
        [
            torch.repeat_interleave(torch.tensor([7, 3, 7][: len(r)]), torch.tensor(r))
            for r in lengths
        ]
    )

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(model.parameters())))

    packed = model(ids, documents=documents)
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1))
    together = gradients((packed * weights).sum())
    alone = [torch.zeros_like(g) for g in together]
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            single = model(ids[row : row + 1, part])
            torch.testing.assert_close(single[0], packed[row, part], atol=2e-6, rtol=1e-5)
            for total, one in zip(
                alone, gradients((single * weights[row, part]).sum()), strict=True
            ):
                total += one
            start += size
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 19, [19], [7, 1, 1, 10], [2, 17]])
def test_cached_decoding_equals_one_pass(model: Decoder, chunks: list[int]) -> None:
    ids = tokens(model.config, 2, 19)
    whole = model(ids)
    cache = model.new_cache(2, 19)
    parts = [model(part, cache=cache) for part in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-6, rtol=1e-5)
    assert cache.length == 19
    with pytest.raises(ValueError, match="room for 19 tokens, not 20"):
        model(ids[:, :1], cache=cache)
    with pytest.raises(ValueError, match="documents cannot be decoded"):
        model(ids, documents=ids, cache=model.new_cache(2, 19))


def test_a_model_moves_and_copies_whole(model: Decoder) -> None:
    ids = tokens(model.config, 1, 8)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids), model(ids))
    with torch.no_grad():
        twin.embed.weight.add_(1.0)
    if model.config.tie_embeddings:
        assert twin.head.matrix is twin.embed.weight
        assert "head.weight" not in twin.state_dict()
    low = copy.deepcopy(model).to(torch.bfloat16)
    torch.testing.assert_close(low(ids).float(), model(ids), atol=0.15, rtol=0.15)


def test_autocast_stays_near_fp32(model: Decoder) -> None:
    ids = tokens(model.config, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(ids)
    torch.testing.assert_close(low.float(), model(ids), atol=0.1, rtol=0.1)


def test_rms_norm_equals_torch() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(12, 1e-5).double()
    with torch.no_grad():
        norm.weight.normal_()
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (12,), norm.weight, 1e-5))
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(norm, {"weight": w}, x), norm.weight
    )


def test_initialisation_follows_its_rule() -> None:
    config = ModelConfig(layers=4, hidden_size=192, heads=4, vocab_size=500, init_std=0.03)
    model = Decoder(config)
    assert not model.embed.weight.any()
    state = torch.get_rng_state()
    model.initialise(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all()
            continue
        scale = 8**-0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        assert parameter.std().item() == pytest.approx(0.03 * scale, rel=0.03), name
        assert abs(parameter.mean().item()) < 0.001
    nemotron = Decoder(config.replace(layout="nemotron", norm="layernorm1p"))
    nemotron.initialise(torch.Generator().manual_seed(3))
    written = dict(nemotron.named_parameters())["blocks.0.mixer.o_proj.weight"]
    assert written.std().item() == pytest.approx(0.03, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_seed_gives_the_same_bytes_on_any_number_of_threads(dtype: torch.dtype) -> None:
    config = ModelConfig(layers=2, hidden_size=256, heads=4, vocab_size=1000)
    made = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            model = Decoder(config).to(dtype)
            model.initialise(torch.Generator().manual_seed(9))
            made.append(model.state_dict())
    finally:
        torch.set_num_threads(threads)
    for name, first in made[0].items():
        assert all(torch.equal(first, other[name]) for other in made[1:])


def test_recomputed_blocks_have_the_same_gradients(model: Decoder) -> None:
    ids = tokens(model.config, 2, 16)
    grads = []
    for recompute in (False, True):
        for block in model.blocks:
            block.recompute = recompute
        loss, _ = model.head.cross_entropy(model.hidden(ids), ids)
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_recomputing_keeps_less() -> None:
    model = ours(layers=4, hidden_size=64, intermediate_size=256)
    ids = tokens(model.config, 2, 64)
    kept = []
    for recompute in (False, True):
        for block in model.blocks:
            block.recompute = recompute
        sizes: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.nbytes), t)[1], lambda t: t
        )
        with hooks:
            model.hidden(ids).sum()
        kept.append(sum(sizes))
    assert kept[1] < 0.3 * kept[0]
