"""Mamba-2 blocks and hybrids: heads, head channels and blocks that go."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regrow.compress.depth_config import DepthConfig
from regrow.compress.importance import Statistics, measure, site_widths
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.ranking import choose, choose_random
from regrow.compress.shape_search import count, within
from regrow.compress.slicing import Keep, cut
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import non_embedding_parameters, parameters
from tests.compress.test_importance import Windows
from tests.model.makers import ours, tokens

SHAPE: dict[str, Any] = {
    "pattern": "M-*M",
    "layers": 4,
    "hidden_size": 48,
    "intermediate_size": 64,
    "mamba": MambaConfig(state=6, head_dim=8, heads=8, groups=2, chunk=8),
}


def resized(config: ModelConfig, **sizes: int) -> ModelConfig:
    assert config.mamba is not None
    return config.replace(mamba=config.mamba.replace(**sizes))


def test_keeping_everything_is_the_identity() -> None:
    model = ours(**SHAPE)
    twin = cut(model, Keep.all_of(model.config))
    assert twin.config == model.config
    ids = tokens(model.config, 2, 20)
    assert torch.equal(twin(ids), model(ids))
    assert choose(model.config, model.config, measure(model, [Windows(ids)])) == Keep.all_of(
        model.config
    )


def silence(model: Decoder, block: int, channels: list[int]) -> None:
    """Make the x rows of some inner channels of a Mamba-2 block zero, whatever comes in."""
    mixer, inner = model.blocks[block].mixer, model.config.mamba.inner
    with torch.no_grad():
        mixer.in_proj.weight[inner + torch.tensor(channels)] = 0
        mixer.conv1d.bias[channels] = 0


def widen_norms(child: Decoder, ratio: float) -> None:
    """The mean square is over fewer channels, with the same sum."""
    with torch.no_grad():
        for name, weight in child.named_parameters():
            if name.endswith("mixer.norm.weight"):
                weight.mul_(ratio**0.5)


def test_dead_mamba_heads_go_first_and_nothing_changes() -> None:
    model = ours(**SHAPE, norm_eps=1e-12)
    dead = {0: (1, 6), 3: (3, 4)}  # one of each group of four
    for block, heads in dead.items():
        silence(model, block, [8 * head + c for head in heads for c in range(8)])
    ids = tokens(model.config, 3, 20)
    keep = choose(model.config, resized(model.config, heads=6), measure(model, [Windows(ids)]))
    for block, heads in dead.items():
        assert keep.mamba_heads[block] == tuple(h for h in range(8) if h not in heads)
        assert keep.mamba_channels[block] == tuple(range(8))
    child = cut(model, keep)
    widen_norms(child, 8 / 6)
    with torch.no_grad():
        torch.testing.assert_close(child(ids), model(ids), rtol=1e-4, atol=1e-4)


def test_dead_head_channels_go_first_and_nothing_changes() -> None:
    model = ours(**SHAPE, norm_eps=1e-12)
    dead = {0: (0, 5), 3: (6, 7)}
    for block, channels in dead.items():
        silence(model, block, [8 * head + c for head in range(8) for c in channels])
    ids = tokens(model.config, 3, 20)
    keep = choose(model.config, resized(model.config, head_dim=6), measure(model, [Windows(ids)]))
    for block, channels in dead.items():
        assert keep.mamba_channels[block] == tuple(c for c in range(8) if c not in channels)
    child = cut(model, keep)
    widen_norms(child, 8 / 6)
    with torch.no_grad():
        torch.testing.assert_close(child(ids), model(ids), rtol=1e-4, atol=1e-4)


def test_channels_are_ranked_over_all_heads_and_heads_over_what_stays_of_them() -> None:
    config = ours(**SHAPE).config
    draw = np.random.default_rng(0)
    scores = {site: draw.random((5, width)) for site, width in site_widths(config).items()}
    statistics = Statistics(
        5,
        50,
        {"mean": {site: torch.from_numpy(a.sum(0)) for site, a in scores.items()}},
        {"mean": {site: torch.from_numpy((a**2).sum(0)) for site, a in scores.items()}},
        torch.zeros(5, 5),
    )
    keep = choose(config, resized(config, heads=4, head_dim=3), statistics)
    for block in (0, 3):
        table = np.sqrt((scores[f"blocks.{block}.mixer.in_proj"] ** 2).sum(0)).reshape(8, 8)
        channels = np.argsort(-np.linalg.norm(table, axis=0))[:3]
        assert keep.mamba_channels[block] == tuple(sorted(channels))
        heads = np.linalg.norm(table[:, channels], axis=1)
        expected = [*np.argsort(-heads[:4])[:2], *(4 + np.argsort(-heads[4:])[:2])]
        assert keep.mamba_heads[block] == tuple(sorted(expected))


def scanned(model: Decoder, ids: Tensor) -> dict[int, Tensor]:
    """What the heads of each Mamba-2 block put out, before gate and norm."""
    found: dict[int, Tensor] = {}

    def hook(block: int) -> Any:
        return lambda module, inputs: found.update({block: inputs[0]})

    handles = [
        block.mixer.norm.register_forward_pre_hook(hook(index))
        for index, block in enumerate(model.blocks)
        if block.symbol == "M"
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return found


@cache
def _model() -> Decoder:
    return ours(**SHAPE)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 10**6))
def test_whatever_stays_goes_on_reading_the_state_of_its_own_group(
    each: int, width: int, seed: int
) -> None:
    """The first block sees the same input in parent and child, so its heads must agree."""
    model, ids = _model(), tokens(_model().config, 1, 11)
    keep = choose_random(model.config, resized(model.config, heads=2 * each, head_dim=width), seed)
    heads, channels = keep.mamba_heads[0], keep.mamba_channels[0]
    assert [sum(h // 4 == group for h in heads) for group in (0, 1)] == [each, each]
    whole = scanned(model, ids)[0].unflatten(-1, (8, 8))
    part = scanned(cut(model, keep), ids)[0].unflatten(-1, (2 * each, width))
    expected = whole[..., list(heads), :][..., list(channels)]
    torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=8, max_size=8), st.integers(1, 4))
def test_group_aware_is_the_best_choice_that_keeps_heads_with_their_group(
    strengths: list[int], each: int
) -> None:
    """Against choosing over all heads: never better in sum, often no legal choice at all."""
    config = _model().config
    sites = {site: torch.ones(n, dtype=torch.float64) for site, n in site_widths(config).items()}
    values = torch.tensor(strengths, dtype=torch.float64).repeat_interleave(8)
    for block in (0, 3):
        sites[f"blocks.{block}.mixer.in_proj"] = values
    found = Statistics(1, 1, {"mean": sites}, {"mean": sites}, torch.zeros(5, 5))
    keep = choose(config, resized(config, heads=2 * each), found, "mean")
    ranked = sorted(range(8), key=lambda head: -strengths[head])
    everywhere = tuple(sorted(ranked[: 2 * each]))
    chosen = keep.mamba_heads[0]
    legal = [
        subset
        for subset in combinations(range(8), 2 * each)
        if sum(head < 4 for head in subset) == each
    ]
    best = max(sum(strengths[head] for head in subset) for subset in legal)
    assert sum(strengths[head] for head in chosen) == best
    rewired = Keep(
        keep.layers, keep.hidden, keep.neurons, keep.heads, keep.kv_heads,
        {0: everywhere, 3: everywhere}, keep.mamba_channels,
    )  # fmt: skip
    if everywhere in legal:
        assert rewired.config(config) == keep.config(config)
        assert sum(strengths[head] for head in everywhere) == best
    else:
        with pytest.raises(ValueError, match="mamba_heads of block 0 must be as many in each"):
            rewired.config(config)


def test_records_from_before_mamba_heads_were_cut_keep_them_all() -> None:
    model = ours(**SHAPE)
    record = Keep.all_of(model.config).as_json()
    for name in ("mamba_heads", "mamba_channels", "merged"):
        del record[name]
    keep = Keep.from_json(record)
    assert keep.config(model.config) == model.config
    ids = tokens(model.config, 1, 9)
    assert torch.equal(cut(model, keep)(ids), model(ids))


@pytest.mark.parametrize("rule", ["contiguous", "independent"])
def test_a_block_that_does_nothing_goes_first(rule: str) -> None:
    model = ours(**{**SHAPE, "pattern": "M-*M-*-M", "layers": 8})
    idle = (3, 4)
    with torch.no_grad():
        nn.init.zeros_(model.blocks[3].mixer.out_proj.weight)
        nn.init.zeros_(model.blocks[4].mixer.down_proj.weight)
    ids = tokens(model.config, 2, 12)
    target = model.config.replace(pattern="M" * 6, layers=6)  # only how many counts
    keep = choose(
        model.config, target, measure(model, [Windows(ids)]), depth=DepthConfig(rule=rule)
    )
    assert keep.layers == tuple(block for block in range(8) if block not in idle)
    child = cut(model, keep)
    assert (child.config.pattern, child.config.layers) == ("M-**-M", 6)
    with torch.no_grad():
        torch.testing.assert_close(child(ids), model(ids), rtol=1e-5, atol=1e-5)


def test_the_last_attention_block_stays_and_pairs_are_counted_as_pairs() -> None:
    model = ours(**{**SHAPE, "pattern": "M-*M-", "layers": 5})
    with torch.no_grad():  # attention does nothing, and still may not go
        model.blocks[2].mixer.o_proj.weight.zero_()
    found = measure(model, [Windows(tokens(model.config, 2, 12))])
    config = model.config
    for rule, layers in (("contiguous", 4), ("independent", 3)):
        target = config.replace(pattern="M*-M-"[:layers], layers=layers)
        keep = choose(config, target, found, depth=DepthConfig(rule=rule))
        assert 2 in keep.layers
        assert keep.config(config).pattern.count("*") == 1
    # Without its Mamba-2 blocks what is left is one attention+MLP pair.
    everything = Keep.all_of(config)
    pair = Keep(
        (2, 4), everything.hidden, {4: everything.neurons[4]}, everything.heads,
        everything.kv_heads,
    )  # fmt: skip
    left = pair.config(config)
    assert (left.pattern, left.layers, left.mamba, left.layout) == ("*-", 1, None, "nemotron_h")
    ids = tokens(config, 1, 6)
    assert cut(model, pair)(ids).shape == (1, 6, 61)


def test_counts_of_many_shapes_are_those_of_each() -> None:
    for pattern, heads in (("M-*-M", 4), ("MMM", 0)):
        sizes = MambaConfig(state=6, head_dim=8, heads=4, groups=2, proj_bias=heads == 0)
        source = ModelConfig(
            layers=len(pattern), pattern=pattern, hidden_size=48, heads=heads, kv_heads=heads // 2,
            vocab_size=61, mamba=sizes,
        )  # fmt: skip
        child = source.replace(hidden_size=20, intermediate_size=12 * (heads > 0))
        values = (child.layers, 20, child.intermediate_size, child.heads, child.kv_heads)
        total, inside = count(source, *(np.array([value]) for value in values))
        assert total[0] == parameters(child)
        assert inside[0] == non_embedding_parameters(child)


def test_a_budget_finds_a_shape() -> None:
    source = ours(**{**SHAPE, "hidden_size": 128, "intermediate_size": 256}).config
    budget = BudgetTarget(non_embedding_parameters=0.6, axes=("hidden", "mlp"))
    found = within(source, budget).config(source, 0)
    assert abs(non_embedding_parameters(found) / non_embedding_parameters(source) - 0.6) < 0.04
    assert found.mamba == source.mamba
