"""Text from a model: streamed, stopped, batched; the same alone and in company."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.io.chat import PromptEncoder
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.folder import save
from regrow.model.generate import generate
from regrow.model.generate_config import check_lengths, trained_length
from regrow.model.writer import Completion, Writer, batches, extra_end_ids, load_encoder
from tests.model.makers import ours

PROMPTS = ("a", "the abc é", "😀 ab abc abc abc abc", "xyz", "a")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_level(iter([f"the {i} é 😀 " + "abc " * i for i in range(30)]), 300)


@pytest.fixture(scope="module")
def writer(tokenizer: Tokenizer) -> Writer:
    """A hybrid that writes all kinds of bytes."""
    model = ours(
        vocab_size=304,  # rounded up, as many models' are
        pattern="M-*-",
        layers=4,
        mamba=MambaConfig(state=8, head_dim=8, chunk=4),
    )
    return Writer(model, PromptEncoder(tokenizer))


def told(writer: Writer, prompts: tuple[str, ...], **how: object) -> list[Completion]:
    """Completions, with a check that what was streamed is what was returned."""
    pieces: dict[int, list[str]] = {place: [] for place in range(len(prompts))}
    ended: list[int] = []

    def on_end(index: int, completion: Completion) -> None:
        assert "".join(pieces[index]) == completion.text
        ended.append(index)

    made = writer.complete(
        prompts,
        on_text=lambda index, text: pieces[index].append(text),
        on_end=on_end,
        **how,  # type: ignore[arg-type]
    )
    assert sorted(ended) == list(range(len(prompts)))
    assert all(piece for found in pieces.values() for piece in found)
    return made


def test_greedy_text_is_the_text_of_the_ids(writer: Writer, tokenizer: Tokenizer) -> None:
    made = told(writer, PROMPTS, max_new_tokens=40, temperature=0)
    for prompt, completion in zip(PROMPTS, made, strict=True):
        ids = tokenizer.encode(prompt)
        assert (writer.model.config.eos_id, tokenizer.eos_id) == (None, 0)
        model = writer.model.eval()
        whole = generate(model, torch.tensor([ids]), 40, eos_id=0)[0, len(ids) :].tolist()
        assert completion.prompt_tokens == len(ids)
        if 0 in whole:
            whole = whole[: whole.index(0)]
            assert (completion.reason, completion.new_tokens) == ("eos", len(whole) + 1)
        else:
            assert (completion.reason, completion.new_tokens) == ("length", 40)
        assert completion.text == tokenizer.decode(whole)


def test_a_text_does_not_depend_on_its_company(writer: Writer) -> None:
    how = {"max_new_tokens": 30, "temperature": 1.5, "top_p": 0.99, "seed": 3}
    together = told(writer, PROMPTS, **how)
    assert together[:4] == [told(writer, (p,), **how)[0] for p in PROMPTS[:4]]
    for budget in (1, 60, 90):
        assert told(writer, PROMPTS, batch_tokens=budget, **how) == together
    assert together[0].text != together[4].text  # the second of two equal prompts goes its own way
    assert told(writer, PROMPTS, **{**how, "seed": 4}) != together
    assert {completion.reason for completion in together} <= {"length", "eos"}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_stop_strings_end_a_text_wherever_they_begin(writer: Writer, size: int) -> None:
    how = {"max_new_tokens": 60, "temperature": 1.2}
    free = told(writer, PROMPTS, **how)
    stops = [completion.text[9 : 9 + size] for completion in free[:3]]
    assert all(len(stop) == size for stop in stops)
    stopped = told(writer, PROMPTS, stop=stops, **how)
    for before, after in zip(free, stopped, strict=True):
        ends = [(before.text.find(stop) + len(stop), stop) for stop in stops if stop in before.text]
        if ends:
            end = min(ends)[0]
            cut = max(len(stop) for at, stop in ends if at == end)
            assert after.text == before.text[: end - cut]
            assert after.reason == "stop"
            assert after.new_tokens <= before.new_tokens
        else:
            assert after == before
    assert [completion.reason for completion in stopped[:3]] == ["stop"] * 3


def test_what_only_began_like_a_stop_string_is_given(writer: Writer) -> None:
    how = {"max_new_tokens": 20, "temperature": 1.2}
    free = told(writer, PROMPTS, **how)
    never = [completion.text[-2:] + "\x00" for completion in free]
    assert told(writer, PROMPTS, stop=never, **how) == free


def test_an_end_token_of_any_origin_ends_a_text(tokenizer: Tokenizer) -> None:
    model = ours(vocab_size=304)
    plain = Writer(model, PromptEncoder(tokenizer))
    ids = tokenizer.encode("the abc")
    new = generate(model.eval(), torch.tensor([ids]), 12)[0, len(ids) :].tolist()
    token = next(i for i in new if i not in ids and i)
    by_config = ours(vocab_size=304, eos_id=303, extra_eos_ids=(token,))
    for writer in (
        Writer(model, PromptEncoder(tokenizer), [token, 9999]),
        Writer(by_config, PromptEncoder(tokenizer)),
    ):
        made = writer.complete(["the abc"], 12, 0.0)[0]
        assert made.reason == "eos"
        assert made.new_tokens == new.index(token) + 1
        assert made.text == tokenizer.decode(new[: new.index(token)])
    assert plain.complete(["the abc"], 12, 0.0)[0].new_tokens > made.new_tokens


def test_the_model_keeps_its_mode(writer: Writer) -> None:
    writer.model.train()
    writer.complete(["a"], 2)
    assert writer.model.training


def test_prompts_that_cannot_be_read(writer: Writer) -> None:
    with pytest.raises(InputError, match="prompt 2 is empty"):
        writer.complete(["a", ""])
    with pytest.raises(InputError, match="token 304, but the model's vocabulary is 304"):
        writer.complete([[3, 304]])


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 40), st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_batches_keep_to_the_budget(lengths: list[int], new: int, budget: int) -> None:
    made = batches(lengths, new, budget)
    assert sorted(itertools.chain(*made)) == list(range(len(lengths)))
    for batch in made:
        tokens = len(batch) * (max(lengths[index] for index in batch) + new)
        assert tokens <= budget or len(batch) == 1
    if budget >= 30 * 90:
        assert len(made) <= 1


def test_lengths() -> None:
    shape = ModelConfig(layers=1, hidden_size=16, heads=2, vocab_size=50, max_positions=100)
    assert check_lengths(shape, [60, 40], 40) is None
    assert "101 tokens, but the model has max_positions 100" in str(check_lengths(shape, [61], 40))
    warning = str(check_lengths(shape, [20], 20, trained=32))
    assert "40 tokens, but the model was trained on sequences of 32" in warning
    assert check_lengths(shape, [12], 20, trained=32) is None
    with pytest.raises(InputError) as failure:
        check_lengths(shape, [101, 5, 1000], 1)
    assert [p.split(";")[0] for p in failure.value.problems] == [
        "prompt 1 has 101 tokens",
        "prompt 3 has 1,000 tokens",
    ]
    recurrent = ModelConfig(
        layers=1, hidden_size=16, vocab_size=50, pattern="M", max_positions=100,
        mamba=MambaConfig(state=8, head_dim=8),
    )  # fmt: skip
    assert check_lengths(recurrent, [1000], 40) is None
    assert "sequences of 32" in str(check_lengths(recurrent, [1000], 40, trained=32))


def test_what_a_folder_says(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(ours(vocab_size=300), tmp_path / "run" / "export")
    with pytest.raises(InputError, match=r"export: has no tokenizer.json"):
        load_encoder(folder)
    tokenizer.save(folder)
    assert load_encoder(folder).encode("a") == tokenizer.encode("a")
    for value, expected in ((7, (7,)), ([7, 8], (7, 8)), (None, ()), ([True, -1, "x"], ())):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert extra_end_ids(folder) == expected
    assert trained_length(folder) is None
    (tmp_path / "run" / "config.yaml").write_text("data: {sequence: 128}\n")
    assert trained_length(folder) == trained_length(tmp_path / "run") == 128
    for broken in ("data: {sequence: many}", "data: 3", "3", "{", "verb: prune"):
        (tmp_path / "run" / "config.yaml").write_text(broken)
        assert trained_length(folder) is None
