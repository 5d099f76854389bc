"""Statistics against a forward pass written out block by block, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.compress.depth import layer_blocks
from regrow.compress.importance import Observer, Statistics, measure, site_widths
from regrow.compress.ranking import block_influence
from regrow.core.errors import InputError
from regrow.model.decoder import Decoder
from tests.model.makers import HYBRIDS, ours, tokens


class Windows(NamedTuple):
    tokens: Tensor
    documents: Tensor | None = None


#: The definitions, for one window (T, C).
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.abs().mean(0),
    "l2": lambda x: (x**2).sum(0).sqrt(),
    "var": lambda x: x.var(0, correction=0),
}


def written_out(
    model: Decoder, ids: Tensor, neuron_site: str = "post_act"
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Every site's activations of one window in float64, and the residual stream by layer."""
    model = model.double().eval()
    context = model._context(ids, None, None)
    x = model.embed(ids)
    found, streams = {}, []
    starts = {blocks[0] for blocks in layer_blocks(model.config)}
    for index, block in enumerate(model.blocks):
        if index in starts:
            streams.append(x)
        normed = block.norm(x)
        found[f"blocks.{index}.norm"] = normed
        site, mixer = f"blocks.{index}.mixer", block.mixer
        if block.symbol == "M":
            inner = model.config.mamba.inner
            projected = F.linear(normed, mixer.in_proj.weight, mixer.in_proj.bias)
            found[f"{site}.in_proj"] = projected[..., inner : 2 * inner]
        elif block.symbol == "-" and neuron_site == "pre_act":
            name = "gate_proj" if model.config.gated else "up_proj"
            found[f"{site}.{name}"] = getattr(mixer, name)(normed)
        else:
            # The projection's input, by replacing the projection with the identity.
            name = "o_proj" if block.symbol == "*" else "down_proj"
            projection = getattr(mixer, name)
            setattr(mixer, name, torch.nn.Identity())
            found[f"{site}.{name}"] = mixer(normed, context, None)
            setattr(mixer, name, projection)
        x = x + mixer(normed, context, None)
    streams.append(x)
    found["norm"] = model.norm(x)
    return found, streams


@pytest.fixture
def model() -> Decoder:
    return ours(layers=3, heads=4, kv_heads=2, head_dim=8)


def assert_close(a: Statistics, b: Statistics) -> None:
    assert (a.samples, a.tokens) == (b.samples, b.tokens)
    assert a.sums.keys() == a.squares.keys() == b.sums.keys()
    for name in a.sums:
        for site in a.sums[name]:
            for mine, other in ((a.sums, b.sums), (a.squares, b.squares)):
                torch.testing.assert_close(
                    mine[name][site], other[name][site], rtol=1e-5, atol=1e-6
                )
    torch.testing.assert_close(a.cosines, b.cosines, rtol=1e-5, atol=1e-4)


MODELS = {
    "transformer": {"layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 8},
    "no gate": {"layers": 3, "layout": "nemotron", "head_dim": 8},
    "hybrid": {**HYBRIDS["hybrid"], "layout": "nemotron_h"},
    "mamba2": {**HYBRIDS["pure"], "heads": 0, "kv_heads": 0, "intermediate_size": 0},
}


@torch.no_grad()
@pytest.mark.parametrize("neuron_site", ["post_act", "pre_act"])
@pytest.mark.parametrize("name", list(MODELS))
def test_sums_are_those_of_the_formulas(name: str, neuron_site: str) -> None:
    model = ours(**MODELS[name])
    ids, layers = tokens(model.config, 5, 12), len(layer_blocks(model.config))
    found = measure(model, [Windows(ids)], ("mean", "l2", "var"), neuron_site)
    assert found.sites == site_widths(model.config, neuron_site)
    sums = {
        kind: {site: torch.zeros(n, dtype=torch.float64) for site, n in found.sites.items()}
        for kind in FORMULAS
    }
    squares = {kind: {site: v.clone() for site, v in of.items()} for kind, of in sums.items()}
    cosines = torch.zeros(layers + 1, layers + 1, dtype=torch.float64)
    for row in ids:
        sites, streams = written_out(model, row[None], neuron_site)
        assert sites.keys() == found.sites.keys()
        for kind, formula in FORMULAS.items():
            for site, x in sites.items():
                value = formula(x[0])
                sums[kind][site] += value
                squares[kind][site] += value**2
        for i, a in enumerate(streams):
            for j, b in enumerate(streams):
                cosines[i, j] += torch.cosine_similarity(a, b, dim=-1).sum()
    assert_close(found, Statistics(5, 60, sums, squares, cosines))
    for length in (1, 2):
        for first in range(layers - length + 1):
            expected = 1 - cosines[first, first + length] / 60
            assert block_influence(found, length)[first] == pytest.approx(float(expected), abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["transformer", "hybrid"]),
    st.lists(st.integers(0, 9), min_size=2, max_size=6),
    st.integers(1, 4),
    st.booleans(),
)
def test_windows_count_the_same_however_they_are_put_together(
    name: str, lengths: list[int], at_once: int, left: bool
) -> None:
    """Micro-batches of padded rows, on either side, added up, against one row at a time."""
    model = ours(**MODELS[name])
    kinds = ("mean", "l2", "var")
    ids, place = tokens(model.config, len(lengths), 9), torch.arange(9)
    wanted = torch.tensor(lengths)[:, None]
    mask = place >= 9 - wanted if left else place < wanted
    total = None
    for rows, used in zip(ids.split(at_once), mask.split(at_once), strict=True):
        observer = Observer(model, kinds)
        with observer.attached():
            observer.observe(Windows(rows), used)
        part = observer.statistics()
        total = part if total is None else total + part
    alone = [Windows(row[used][None]) for row, used in zip(ids, mask, strict=True) if used.any()]
    assert total is not None
    if not alone:
        assert (total.samples, total.tokens) == (0, 0)
    else:
        assert_close(total, measure(model, alone, kinds))


def test_micro_batches_do_not_matter_and_halves_add_up(model: Decoder) -> None:
    ids = tokens(model.config, 9, 10)
    whole = measure(model, [Windows(ids)])
    assert_close(measure(model, [Windows(row) for row in ids.split(2)]), whole)
    halves = measure(model, [Windows(ids[:4])]) + measure(model, [Windows(ids[4:])])
    assert_close(halves, whole)


def test_padding_does_not_count(model: Decoder) -> None:
    ids = tokens(model.config, 4, 16)
    lengths = [16, 7, 11, 1]
    mask = torch.arange(16)[None] < torch.tensor(lengths)[:, None]
    observer = Observer(model)
    with observer.attached():
        observer.observe(Windows(ids), mask)
        # A row of nothing but padding is no window.
        observer.observe(Windows(ids[:1]), torch.zeros(1, 16, dtype=torch.bool))
    rows = [Windows(ids[i : i + 1, :n]) for i, n in enumerate(lengths)]
    assert_close(observer.statistics(), measure(model, rows))


def test_the_model_is_left_as_it_was(model: Decoder) -> None:
    model.train()
    measure(model, [Windows(tokens(model.config, 1, 4))])
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_documents_of_a_window_are_kept_apart(model: Decoder) -> None:
    ids = tokens(model.config, 1, 8)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    apart = measure(model, [Windows(ids, documents)])
    together = measure(model, [Windows(ids)])
    assert not torch.allclose(apart.sums["mean"]["norm"], together.sums["mean"]["norm"], rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_their_site(model: Decoder, value: float) -> None:
    with torch.no_grad():
        model.blocks[3].mixer.up_proj.weight[5] = value
    with pytest.raises(InputError, match=r"blocks\.3\.mixer\.down_proj"):
        measure(model, [Windows(tokens(model.config, 2, 8))])


def test_statistics_of_different_models_do_not_add(model: Decoder) -> None:
    one = measure(model, [Windows(tokens(model.config, 1, 4))])
    other = measure(ours(layers=2), [Windows(tokens(model.config, 1, 4))])
    with pytest.raises(ValueError, match="different sites"):
        one + other
    windows = [Windows(tokens(model.config, 1, 4))]
    with pytest.raises(ValueError, match="different sequence aggregations"):
        one + measure(model, windows, ("mean", "var"))
    with pytest.raises(ValueError, match="different sites"):
        one + measure(model, windows, neuron_site="pre_act")
