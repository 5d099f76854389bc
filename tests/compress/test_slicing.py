"""The cut against transformers models cut by hand, and against parts that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.compress.depth_config import DepthConfig
from regrow.compress.importance import measure
from regrow.compress.ranking import choose, choose_random
from regrow.compress.slicing import CUTS, Keep, cut
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from tests.compress.makers import FAMILIES, cut_by_hand, halves, small, stock
from tests.compress.test_importance import Windows
from tests.model.makers import ours, perturb, tokens


@pytest.mark.parametrize(
    ("family", "tied"), [*((family, False) for family in FAMILIES), ("llama", True)]
)
def test_cut_on_every_axis_equals_the_cut_by_hand(family: str, tied: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = stock(family, tied)
    model.save_pretrained(tmp_path / "source")
    source = regrow.load(tmp_path / "source")
    same = cut(source, Keep.all_of(source.config))
    assert same.config == source.config
    assert all(torch.equal(a, b) for a, b in pairs_of(same, source))
    keep = halves(source.config)
    child = cut(source, keep)
    assert child.config.tie_embeddings is tied
    regrow.save(child, tmp_path / "child")
    assert regrow.load(tmp_path / "child").config == child.config
    ids = tokens(child.config, 2, 20)
    with torch.no_grad():
        logits = cut_by_hand(model, keep)(ids, use_cache=False).logits
        torch.testing.assert_close(child(ids), logits, rtol=1e-5, atol=1e-5)
        stored = AutoModelForCausalLM.from_pretrained(tmp_path / "child").eval()
        torch.testing.assert_close(
            stored(ids, use_cache=False).logits, logits, rtol=1e-5, atol=1e-5
        )


def pairs_of(one: Decoder, other: Decoder) -> list[tuple[torch.Tensor, torch.Tensor]]:
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    return [(first[name], second[name]) for name in first]


def test_whole_groups_go_with_their_key_value_head() -> None:
    model = Decoder(small(qk_norm=True, layers=1))
    perturb(model)
    keep = Keep.all_of(model.config)
    keep = Keep(keep.layers, keep.hidden, keep.neurons, {0: (4, 6)}, {0: (1,)})
    child = cut(model, keep)
    assert (child.config.heads, child.config.kv_heads, child.config.head_dim) == (2, 1, 6)
    state, whole = child.state_dict(), model.state_dict()
    rows = [*range(24, 30), *range(36, 42)]
    assert torch.equal(
        state["blocks.0.mixer.q_proj.weight"], whole["blocks.0.mixer.q_proj.weight"][rows]
    )
    assert torch.equal(
        state["blocks.0.mixer.v_proj.weight"], whole["blocks.0.mixer.v_proj.weight"][6:12]
    )
    assert torch.equal(state["blocks.0.mixer.q_norm.weight"], whole["blocks.0.mixer.q_norm.weight"])


@pytest.mark.parametrize(
    "settings", [{}, {"tie_embeddings": True}, {"norm": "layernorm1p", "activation": "gelu"}]
)
def test_keeping_everything_is_the_identity(settings: dict[str, Any]) -> None:
    model = ours(qkv_bias=True, **settings)
    child = cut(model, Keep.all_of(model.config))
    assert child.config == model.config
    for (name, a), (other, b) in zip(
        model.state_dict().items(), child.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    found = measure(model, [Windows(tokens(model.config, 2, 8))])
    assert choose(model.config, model.config, found) == Keep.all_of(model.config)


def test_dead_neurons_go_first_and_nothing_changes() -> None:
    model = ours(layers=2, intermediate_size=12)
    dead = {1: {2, 5, 7}, 3: {0, 10, 11}}
    with torch.no_grad():
        for block, neurons in dead.items():
            model.blocks[block].mixer.gate_proj.weight[list(neurons)] = 0
    ids = tokens(model.config, 3, 16)
    target = model.config.replace(intermediate_size=9)
    keep = choose(model.config, target, measure(model, [Windows(ids)]))
    for block, neurons in dead.items():
        assert set(keep.neurons[block]) == set(range(12)) - neurons
    with torch.no_grad():
        torch.testing.assert_close(cut(model, keep)(ids), model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_dead_heads_go_first_and_nothing_changes(kv_heads: int) -> None:
    model = ours(layers=2, heads=4, kv_heads=kv_heads)
    with torch.no_grad():
        for block, dead in ((0, 1), (2, 0)):
            model.blocks[block].mixer.v_proj.weight.view(kv_heads, -1, 24)[dead] = 0
    ids = tokens(model.config, 3, 16)
    target = model.config.replace(heads=4 - 4 // kv_heads, kv_heads=kv_heads - 1)
    keep = choose(model.config, target, measure(model, [Windows(ids)]))
    assert keep.kv_heads[0] == tuple(k for k in range(kv_heads) if k != 1)
    assert keep.kv_heads[2] == tuple(range(1, kv_heads))
    with torch.no_grad():
        torch.testing.assert_close(cut(model, keep)(ids), model(ids), rtol=1e-5, atol=1e-5)


def test_dead_hidden_channels_go_first_and_only_the_norms_notice() -> None:
    model = ours(layers=2, hidden_size=24, norm_eps=1e-12)
    dead = [3, 4, 17, 20]
    with torch.no_grad():
        model.embed.weight[:, dead] = 0
        for index, block in enumerate(model.blocks):
            name = "down_proj" if index % 2 else "o_proj"
            getattr(block.mixer, name).weight[dead] = 0
    ids = tokens(model.config, 3, 16)
    target = model.config.replace(hidden_size=20)
    keep = choose(model.config, target, measure(model, [Windows(ids)]))
    assert set(keep.hidden) == set(range(24)) - set(dead)
    child = cut(model, keep)
    # The mean square is now over 20 channels instead of 24, with the same sum.
    with torch.no_grad():
        for name, weight in child.named_parameters():
            if name.endswith("norm.weight"):
                weight.mul_((24 / 20) ** 0.5)
        torch.testing.assert_close(child(ids), model(ids), rtol=1e-4, atol=1e-4)


def test_a_layer_that_does_nothing_goes_first() -> None:
    model = ours(layers=5)
    with torch.no_grad():
        for block in (4, 5):
            name = "o_proj" if block == 4 else "down_proj"
            getattr(model.blocks[block].mixer, name).weight.zero_()
    ids = tokens(model.config, 2, 12)
    target = model.config.replace(layers=4)
    for rule in ("contiguous", "independent"):
        depth = DepthConfig(rule=rule)
        keep = choose(model.config, target, measure(model, [Windows(ids)]), depth=depth)
        assert keep.layers == (0, 1, 3, 4)
        with torch.no_grad():
            torch.testing.assert_close(cut(model, keep)(ids), model(ids), rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4),
    st.integers(1, 32),
    st.integers(1, 48),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(0, 10**6),
)
def test_any_random_choice_gives_its_shape(
    layers: int, hidden: int, inner: int, each: int, kv_heads: int, seed: int
) -> None:
    source = small()
    target = source.replace(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        heads=each * kv_heads,
        kv_heads=kv_heads,
    )
    keep = choose_random(source, target, seed)
    assert keep.config(source) == target
    assert keep == Keep.from_json(keep.as_json()) == choose_random(source, target, seed)
    assert {keep.layers[0], keep.layers[-1]} == {0, 3}
    for block, heads in keep.heads.items():
        assert {head // 4 for head in heads} == set(keep.kv_heads[block])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (1, 0)}, "hidden: indices must be ascending"),
        ({"hidden": (0, 0)}, "each once"),
        ({"hidden": ()}, "at least one"),
        ({"hidden": (0, 32)}, r"0 \.\. 31"),
        ({"layers": (0, 4)}, r"layers: indices must lie in 0 \.\. 3"),
        ({"neurons": {1: (0,), 3: (0, 1)}}, "as many in every block"),
        ({"neurons": {1: (0,)}}, "must name the - blocks"),
        ({"heads": {0: (0, 1), 2: (0, 4)}}, "each group"),
        ({"heads": {0: (0, 4), 2: (0, 4)}, "kv_heads": {0: (0,), 2: (0,)}}, "each group"),
    ],
)
def test_lists_that_are_wrong_are_refused(change: dict[str, Any], message: str) -> None:
    source = small()
    base = {
        "layers": (0, 1),
        "hidden": (0, 1),
        "neurons": {1: (0, 1), 3: (0, 1)},
        "heads": {0: (0, 4), 2: (1, 5)},
        "kv_heads": {0: (0, 1), 2: (0, 1)},
    }
    assert Keep(**base).config(source).heads == 2
    with pytest.raises(ValueError, match=message):
        Keep(**{**base, **change}).config(source)


def test_every_kind_of_block_is_in_the_table() -> None:
    from regrow.compress.importance import SITES
    from regrow.model.blocks import BLOCKS
    from regrow.model.shapes import tensor_shapes

    assert set(CUTS) == set(SITES) == set(BLOCKS.names())
    full = ModelConfig(
        layers=1, hidden_size=8, heads=2, vocab_size=9,
        qkv_bias=True, output_bias=True, mlp_bias=True, qk_norm=True,
    )  # fmt: skip
    for name in tensor_shapes(full):
        if ".mixer." in name:
            _, block, _, rest = name.split(".", 3)
            assert rest in CUTS[full.pattern[int(block)]]
