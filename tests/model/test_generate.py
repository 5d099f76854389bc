"""Decoding against transformers, and the sampling rules against their definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regrow.model.folder import load
from regrow.model.generate import generate, sample, stream
from tests.model.makers import ours, stock, tokens


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
