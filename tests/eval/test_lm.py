"""Log-likelihoods and continuations against transformers, text by text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import processors

from regrow.core.errors import RunError
from regrow.eval.lm import LanguageModel, opening_ids
from regrow.io.tokenizer import Tokenizer
from regrow.model.folder import load
from tests.compress.makers import save_model

WINDOW = 24
PAIRS = [
    ("the tree grows", " slowly and"),
    ("the tree grows ", "slowly and"),
    ("def ", "x"),
    ("def ", "y"),
    ("a", " tree is tall. it grows"),
    ("", "import self."),
    ("   ", "import"),
    ("return", ""),
]


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "model"
    save_model(folder, tokenizer, max_positions=WINDOW)
    return folder


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def lm(folder: Path, **settings: Any) -> LanguageModel:
    return LanguageModel(load(folder), Tokenizer.load(folder), **settings)


def stock_score(stock: Any, context: list[int], target: list[int]) -> tuple[float, bool]:
    """One text, all logits in fp64."""
    whole = (context + target)[-WINDOW - 1 :]
    with torch.no_grad():
        logs = stock(torch.tensor([whole[:-1]])).logits[0].double().log_softmax(-1)
    kept = whole[len(whole) - min(len(target), len(whole) - 1) :]
    rows = logs[len(logs) - len(kept) :]
    total = sum(float(row[token]) for row, token in zip(rows, kept, strict=True))
    return total, all(int(row.argmax()) == token for row, token in zip(rows, kept, strict=True))


def test_sums_are_transformers_whatever_the_batch(folder: Path, stock: Any) -> None:
    model = lm(folder)
    encode = model.tokenizer.encode
    found = model.log_likelihood(PAIRS)
    for (context, continuation), score in zip(PAIRS, found, strict=True):
        bare = context.rstrip()
        before = encode(bare) if bare else [model.prefix]
        after = encode(context + continuation)[len(before) if bare else 0 :]
        if not context.strip() and continuation:
            assert before == [model.tokenizer.end]
        assert score.tokens == len(after)
        assert score.size == len(continuation.encode())
        if not after:
            assert (score.log_likelihood, score.greedy) == (0.0, True)
            continue
        total, greedy = stock_score(stock, before, after)
        assert score.log_likelihood == pytest.approx(total, abs=1e-4)
        assert score.greedy == greedy
    for other in (lm(folder, batch_tokens=1), lm(folder, batch_tokens=30)):
        for one, two in zip(other.log_likelihood(PAIRS), found, strict=True):
            assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-5)
    assert model.cut == 0
    # A space that ends the context changes nothing.
    assert found[0].log_likelihood == pytest.approx(found[1].log_likelihood, abs=1e-6)


def test_greedy_is_told_from_the_rest(folder: Path, stock: Any) -> None:
    model = lm(folder)
    ids = model.tokenizer.encode("the tree")
    with torch.no_grad():
        best = int(stock(torch.tensor([ids])).logits[0, -1].argmax())
    other = (best + 1) % model.model.config.vocab_size
    (_, yes), (_, no) = model.score_ids([(tuple(ids), (best,)), (tuple(ids), (other,))])
    assert yes
    assert not no


def test_equal_inputs_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lm(folder)
    sizes = []
    hidden = model.model.hidden

    def counted(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(tokens.shape[0])
        return hidden(tokens, *rest)

    monkeypatch.setattr(model.model, "hidden", counted)
    context = tuple(model.tokenizer.encode("the tree"))
    found = model.score_ids([(context, (token,)) for token in range(1, 5)])
    assert sizes == [1]
    assert len({total for total, _ in found}) == 4


def test_what_does_not_fit_is_cut_from_the_left_and_counted(folder: Path, stock: Any) -> None:
    model = lm(folder)
    long = "1" * 40
    pairs = [(long, "1 and"), ("a", long), ("a", " tree")]
    found = model.log_likelihood(pairs)
    assert model.cut == 2
    for (context, continuation), score in zip(pairs, found, strict=True):
        before = model.tokenizer.encode(context)
        after = model.tokenizer.encode(context + continuation)[len(before) :]
        total, _ = stock_score(stock, before, after)
        assert score.log_likelihood == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 3 * WINDOW - 5])
def test_passages_read_every_token_once_with_what_context_fits(
    folder: Path, stock: Any, length: int
) -> None:
    model = lm(folder)
    text = ("1x" * length)[:length]
    ids = model.tokenizer.encode(text)
    whole = [model.prefix, *ids]
    wanted, at = 0.0, 1
    while at < len(whole):
        end = min(at + WINDOW, len(whole))
        begin = max(0, end - WINDOW - 1)
        with torch.no_grad():
            logits = stock(torch.tensor([whole[begin : end - 1]])).logits[0].double()
        logs = logits.log_softmax(-1)
        wanted += sum(float(logs[place - 1 - begin, whole[place]]) for place in range(at, end))
        at = end
    (score,) = model.passages([text])
    assert score.log_likelihood == pytest.approx(wanted, abs=1e-4)
    assert (score.tokens, score.size) == (len(ids), length)


def test_continuations_are_transformers(folder: Path, stock: Any) -> None:
    model = lm(folder)
    prompts = ["the tree", "a tree grows", "def x", "import self.x"]
    made = model.generate(prompts, 8)
    for prompt, text in zip(prompts, made, strict=True):
        ids = model.tokenizer.encode(prompt)
        out = stock.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
        )
        assert text == model.tokenizer.decode(out[0, len(ids) :].tolist())
    assert any(made)
    whole = next(text for text in made if len(text) > 2)
    prompt = prompts[made.index(whole)]
    assert model.generate([prompt], 8, [whole[1:3]]) == [whole[: whole.index(whole[1:3])]]


def test_a_prompt_is_kept_or_cut_as_asked(folder: Path) -> None:
    model = lm(folder)
    prompt = "1 " * (WINDOW // 2 - 2)
    size = model.count_tokens(prompt)
    assert WINDOW - 8 < size < WINDOW
    (kept,) = model.generate([prompt], 8)
    assert model.cut == 0
    (alone,) = model.generate([prompt], WINDOW - size)
    assert kept == alone
    model.generate([prompt], 8, keep_prompt=False)
    assert model.cut == 1


def test_a_tokenizers_own_opening_stands_before_contexts(folder: Path) -> None:
    content = dict(Tokenizer.load(folder).files())["tokenizer.json"]
    inner = tokenizers.Tokenizer.from_buffer(content)
    end = inner.token_to_id("<|endoftext|>")
    inner.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)]
    )
    opened = Tokenizer(inner.to_str().encode(), {"eos_token": "<|endoftext|>"}, None)
    assert opening_ids(opened) == (end,)
    assert opening_ids(Tokenizer.load(folder)) == ()
    model = LanguageModel(load(folder), opened)
    context, target = model.encode_pair("the tree", " is")
    assert context == (end, *opened.encode("the tree"))
    assert target == tuple(opened.encode("the tree is")[len(context) - 1 :])
    assert model.count_tokens("the tree") == len(context)


def test_a_model_that_gives_no_number_is_refused(folder: Path) -> None:
    model = lm(folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(RunError, match="nan"):
        model.log_likelihood([("the", " tree")])
