"""Decoding against transformers, and the sampling rules against their definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regrow.model.config import MambaConfig
from regrow.model.decoder import Decoder
from regrow.model.folder import load
from regrow.model.generate import generate, pad_left, sample, stream
from tests.model.makers import ours, stock, tokens

PATTERNS = ("*-*-", "M-*-", "MM")


@pytest.mark.parametrize("family", ["llama", "nemotron"])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_greedy_equals_transformers(family: str, seed: int, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    theirs = stock(family, seed)
    with torch.no_grad():
        theirs.lm_head.weight.mul_(4.0)  # sets the two best logits well apart
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    prompt = tokens(model.config, 3, 7, seed)
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.no_grad():
        best = model(expected)[:, 6:-1].topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 1e-4
    assert torch.equal(generate(model, prompt, 24), expected)


def test_rows_end_and_are_filled_up() -> None:
    model = ours()
    prompt = tokens(model.config, 4, 5)
    free = generate(model, prompt, 20)
    eos = int(free[0, 9])
    ended = generate(model, prompt, 20, eos_id=eos)
    for row, whole in zip(ended[:, 5:], free[:, 5:], strict=True):
        places = (whole == eos).nonzero()
        end = int(places[0]) + 1 if len(places) else 20
        assert torch.equal(row[:end], whole[:end][: len(row)])
        assert (row[end:] == eos).all()
    single = generate(model, prompt[:1], 20, eos_id=eos)
    assert single.shape[1] <= 10
    assert single[0, -1] == eos
    ids = [int(i) for i in stream(model, prompt[:1], 20, eos_id=eos)]
    assert ids == single[0, 5:].tolist()


def test_generation_leaves_gradients_on() -> None:
    model = ours()
    prompt = tokens(model.config, 1, 5)
    steps = stream(model, prompt, 3)
    next(steps)
    assert torch.is_grad_enabled()
    loss = model(generate(model, prompt, 3)).sum()
    loss.backward()
    assert model.embed.weight.grad is not None


def test_sampling_follows_its_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]])
    generator = torch.Generator().manual_seed(0)
    many = logits.expand(40_000, -1)

    def shares(**settings: float) -> torch.Tensor:
        ids = sample(many, generator=generator, **settings)  # type: ignore[arg-type]
        return torch.bincount(ids, minlength=5) / len(many)

    close = {"atol": 0.01, "rtol": 0.0}
    torch.testing.assert_close(shares(temperature=1.0), logits[0].softmax(-1), **close)
    torch.testing.assert_close(shares(temperature=2.0), (logits[0] / 2).softmax(-1), **close)
    two = torch.tensor([*logits[0, :2].softmax(-1).tolist(), 0.0, 0.0, 0.0])
    torch.testing.assert_close(shares(temperature=1.0, top_k=2), two, **close)
    # The first holds 0.64 of the mass, the first two 0.88.
    torch.testing.assert_close(shares(temperature=1.0, top_p=0.8), two, **close)
    assert shares(temperature=1.0, top_p=0.01)[0] == 1.0
    assert (sample(many, 0.0) == 0).all()


def test_a_seed_repeats_itself() -> None:
    model = ours()
    prompt = tokens(model.config, 2, 3)
    runs = [
        generate(model, prompt, 12, temperature=1.0, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_impossible_settings(settings: dict[str, float], message: str) -> None:
    model = ours()
    with pytest.raises(ValueError, match=message):
        stream(model, tokens(model.config, 1, 2), 3, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompt"):
        stream(model, torch.zeros(1, 0, dtype=torch.int64), 3)


def patterned(pattern: str, seed: int = 0) -> Decoder:
    """A model of a pattern whose two best logits lie well apart."""
    settings: dict[str, object] = {"pattern": pattern, "layers": len(pattern)}
    if pattern == "*-*-":
        settings["layers"] = 2
    if "M" in pattern:
        settings["mamba"] = MambaConfig(state=8, head_dim=8, chunk=4)
    model = ours(seed, **settings)
    with torch.no_grad():
        model.head.matrix.mul_(4.0)
    return model.eval()


def ragged(model: Decoder) -> list[torch.Tensor]:
    """Prompts of different lengths, both shorter and longer than a chunk and a convolution."""
    return [tokens(model.config, 1, length, length)[0] for length in (3, 11, 1, 7, 11)]


def test_padding_on_the_left() -> None:
    padded, valid = pad_left([[4, 5, 6], torch.tensor([7]), []], pad_id=9)
    assert padded.tolist() == [[4, 5, 6], [9, 9, 7], [9, 9, 9]]
    assert valid.tolist() == [[True, True, True], [False, False, True], [False, False, False]]
    with pytest.raises(ValueError, match="at least one"):
        pad_left([])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_of_a_ragged_batch_is_the_row_alone(pattern: str) -> None:
    model = patterned(pattern)
    rows = ragged(model)
    for pad_id in (0, 7):
        padded, valid = pad_left(rows, pad_id)
        together = generate(model, padded, 24, valid=valid)[:, padded.shape[1] :]
        alone = [generate(model, row[None], 24)[0, len(row) :] for row in rows]
        assert torch.equal(together, torch.stack(alone))
    # Not because padding were without effect: seen as text, it changes what follows.
    assert not torch.equal(generate(model, padded, 24)[:, padded.shape[1] :], together)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_draws_what_it_draws_alone(pattern: str) -> None:
    model = patterned(pattern)
    rows = ragged(model)
    padded, valid = pad_left(rows)
    settings = {"temperature": 4.0, "top_k": 20, "top_p": 0.95}

    def generators(seeds: range) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = generate(model, padded, 24, valid=valid, generator=generators(range(5)), **settings)[
        :, padded.shape[1] :
    ]
    for place, row in enumerate(rows):
        chosen = generators(range(place, place + 1))
        alone = generate(model, row[None], 24, generator=chosen, **settings)
        assert torch.equal(together[place], alone[0, len(row) :])
    again = generate(model, rows[1][None], 24, generator=generators(range(9, 10)), **settings)
    assert not torch.equal(again[0, 11:], together[1])


def test_ragged_greedy_equals_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    theirs = stock("llama", 3)
    with torch.no_grad():
        theirs.lm_head.weight.mul_(4.0)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path).eval()
    padded, valid = pad_left(ragged(model))
    expected = theirs.generate(
        padded,
        attention_mask=valid.long(),
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(generate(model, padded, 16, valid=valid), expected)


def test_any_of_several_ends_ends_a_row() -> None:
    model = ours()
    prompt = tokens(model.config, 4, 5)
    free = generate(model, prompt, 20)[:, 5:]
    ends = (int(free[0, 2]), int(free[1, 2]))
    ended = generate(model, prompt, 20, eos_id=ends)[:, 5:]
    seen = set()
    for row, whole in zip(ended, free, strict=True):
        places = torch.isin(whole, torch.tensor(ends)).nonzero()
        if len(places):
            end = int(places[0])
            assert torch.equal(row[: end + 1], whole[: end + 1])
            assert (row[end:] == whole[end]).all()
            seen.add(int(whole[end]))
        else:
            assert torch.equal(row, whole[: len(row)])
    assert seen == set(ends)


def test_drawing_with_a_generator_a_row_follows_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]])
    many = logits.expand(40_000, -1)
    one = [torch.Generator().manual_seed(0)] * 40_000
    shares = torch.bincount(sample(many, 1.0, generator=one), minlength=5) / 40_000
    torch.testing.assert_close(shares, logits[0].softmax(-1), atol=0.01, rtol=0.0)
    shares = torch.bincount(sample(many, 1.0, 2, generator=one), minlength=5) / 40_000
    two = torch.tensor([*logits[0, :2].softmax(-1).tolist(), 0.0, 0.0, 0.0])
    torch.testing.assert_close(shares, two, atol=0.01, rtol=0.0)


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_distribution_have_mass(
    uniform: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the smallest nor the largest random number draws an id without probability."""
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([uniform]).double())
    logits = torch.tensor([[float("-inf"), 0.3, 0.1, 0.7, float("-inf")]])
    assert sample(logits, 1.0, generator=[torch.Generator()]).tolist() == [expected]


def test_impossible_batches() -> None:
    model = ours()
    prompt = tokens(model.config, 2, 3)
    right = torch.tensor([[True, True, True], [True, True, False]])
    with pytest.raises(ValueError, match="on the left"):
        stream(model, prompt, 3, valid=right)
    with pytest.raises(ValueError, match="shape"):
        stream(model, prompt, 3, valid=right[:, :2])
    with pytest.raises(ValueError, match="2 rows need as many generators, not 1"):
        stream(model, prompt, 3, generator=[torch.Generator()])
