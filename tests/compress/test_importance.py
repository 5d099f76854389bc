"""Statistics against a forward pass written out block by block."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from regrow.compress.importance import Observer, Statistics, measure, site_widths
from regrow.compress.ranking import block_influence
from regrow.compress.depth import layer_blocks
from regrow.core.errors import InputError
from regrow.model.decoder import Decoder
from tests.model.makers import ours, tokens


class Windows(NamedTuple):
    tokens: Tensor
    documents: Tensor | None = None


def written_out(model: Decoder, ids: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
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
        mixer = block.mixer
        # The projection's input, by replacing the projection with the identity.
        name = "o_proj" if block.symbol == "*" else "down_proj"
        projection = getattr(mixer, name)
        setattr(mixer, name, torch.nn.Identity())
        found[f"blocks.{index}.mixer.{name}"] = mixer(normed, context, None)
        setattr(mixer, name, projection)
        x = x + projection(found[f"blocks.{index}.mixer.{name}"])
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


@torch.no_grad()
def test_sums_are_those_of_the_formula(model: Decoder) -> None:
    ids = tokens(model.config, 5, 12)
    found = measure(model, [Windows(ids)])
    assert found.sites == site_widths(model.config)
    sums = {site: torch.zeros(n, dtype=torch.float64) for site, n in found.sites.items()}
    squares = {site: torch.zeros(n, dtype=torch.float64) for site, n in found.sites.items()}
    cosines = torch.zeros(4, 4, dtype=torch.float64)
    for row in ids:
        sites, streams = written_out(model, row[None])
        for site, x in sites.items():
            mean = x[0].abs().mean(0)
            sums[site] += mean
            squares[site] += mean**2
        for i, a in enumerate(streams):
            for j, b in enumerate(streams):
                cosines[i, j] += torch.cosine_similarity(a, b, dim=-1).sum()
    assert_close(found, Statistics(5, 60, {"mean": sums}, {"mean": squares}, cosines))
    for length in (1, 2):
        for first in range(3 - length + 1):
            expected = 1 - cosines[first, first + length] / 60
            assert block_influence(found, length)[first] == pytest.approx(float(expected), abs=1e-5)


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
