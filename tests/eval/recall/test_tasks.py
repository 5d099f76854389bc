"""Recall over text: prompts hold their answer once, fill their length, and are scored right."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from regrow.core.errors import ConfigError
from regrow.eval.recall import RECALL_TASKS, RecallTask
from regrow.eval.recall.needle import MultiKeyNeedleTask, NeedleTask
from regrow.eval.recall.phonebook import PhonebookTask, ReversedPhonebookTask
from regrow.eval.recall.recall_task import digit_scores, largest
from regrow.eval.recall.words import FIRST_NAMES, LAST_NAMES, names, numbers
from regrow.eval.task import Completion, Response, TaskSettings
from regrow.io.tokenizer import Tokenizer, train_byte_level

LENGTHS = (300, 700)
CHARACTERS = TaskSettings(lengths=LENGTHS, samples=4)


def _task(name: str) -> RecallTask:
    module, _, attribute = RECALL_TASKS[name].partition(":")
    task: RecallTask = getattr(importlib.import_module(module), attribute)()
    return task


@cache
def _tokenizer() -> Tokenizer:
    texts = [item.prompt for name in RECALL_TASKS for item in _items(name)]
    return train_byte_level(iter(texts), 600)


def _items(name: str, settings: TaskSettings = CHARACTERS) -> list[Completion]:
    return [item for item in _task(name).items(settings) if isinstance(item, Completion)]


@pytest.fixture(params=list(RECALL_TASKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["bytes", "bpe"])
def count(request: pytest.FixtureRequest) -> Callable[[str], int]:
    if request.param == "bytes":
        return lambda text: len(text.encode())
    return lambda text: len(_tokenizer().encode(text))


def test_prompts_fill_their_length(name: str, count: Callable[[str], int]) -> None:
    task = _task(name)
    settings = TaskSettings(lengths=LENGTHS, samples=3, count_tokens=count)
    items = _items(name, settings)
    assert Counter(item.group for item in items) == {"300": 3, "700": 3}
    for item in items:
        whole = f"{item.prompt} {item.references[0]}"
        assert count(whole) == item.extra["tokens"] <= int(item.group)
        # One unit more, from the same stream, would not fit; a unit is a small part of it.
        assert count(whole) > int(item.group) - 90
        assert count(item.references[0]) < item.max_new_tokens
        assert item.extra["units"] >= task.least


def test_equal_seeds_give_equal_items_and_no_two_items_are_equal(name: str) -> None:
    first, again = _items(name), _items(name)
    assert first == again
    assert len({item.prompt for item in first}) == len({item.id for item in first}) == len(first)
    other = _items(name, TaskSettings(lengths=LENGTHS, samples=4, seed=1))
    assert not {item.prompt for item in first} & {item.prompt for item in other}
    longer = _items(name, TaskSettings(lengths=LENGTHS, samples=6))
    assert [item for item in longer if int(item.id.split("-")[1]) < 4] == first


@pytest.mark.parametrize("cls", [PhonebookTask, ReversedPhonebookTask])
def test_the_phonebook_holds_its_answer_once(cls: type[PhonebookTask]) -> None:
    for item in cls().items(CHARACTERS):
        assert isinstance(item, Completion)
        answer, asked = item.references[0], item.extra["name"]
        before, listed, shown = ([""] if not cls.announced else []) + item.prompt.split("\n\n")
        entries = [line.split(": ") for line in listed.split("\n")]
        assert len(entries) == item.extra["units"]
        assert len({entry for entry, _ in entries}) == len({number for _, number in entries})
        assert len(entries) == len({entry for entry, _ in entries})
        assert [number for entry, number in entries if entry == asked] == [answer]
        assert item.prompt.count(answer) == 1
        assert entries[item.extra["position"]] == [asked, answer]
        *examples, question = shown.split("\n")
        assert question == f"{asked}:"
        assert len(examples) == 2
        assert all(line in listed.split("\n") and asked not in line for line in examples)
        assert before == (f"Look up {asked}." if cls.announced else "")


@pytest.mark.parametrize("cls", [NeedleTask, MultiKeyNeedleTask])
def test_the_needle_lies_in_the_haystack_once(cls: type[NeedleTask]) -> None:
    depths = []
    for item in cls().items(TaskSettings(lengths=(2000,), samples=24)):
        assert isinstance(item, Completion)
        needles = re.findall(r"The number of (\w+) is ([0-9]{6})\.", item.prompt)
        assert len(needles) == len({city for city, _ in needles}) == cls.needles
        assert dict(needles)[item.extra["key"]] == item.references[0]
        assert item.prompt.count(item.references[0]) == 1
        assert item.prompt.endswith(f"\nThe number of {item.extra['key']} is")
        assert len(re.findall("[0-9]+", item.prompt)) == cls.needles
        sentences = item.prompt.split("\n")[0].count(".")
        assert sentences == item.extra["units"] + cls.needles
        depths.append(item.extra["depth"])
    assert min(depths) < 0.3
    assert max(depths) > 0.7


def test_text_recall_gives_three_of_four_queries_with_their_value() -> None:
    for item in _items("mqar"):
        listed, shown = item.prompt.split("\n\n")
        pairs = dict(line.split(": ") for line in listed.split("\n"))
        assert len(pairs) == item.extra["units"] == len(listed.split("\n"))
        *given, question = shown.split("\n")
        assert len(given) == 3
        assert all(pairs[key] == value for key, value in (line.split(": ") for line in given))
        assert pairs[question.removesuffix(":")] == item.references[0]
        assert len({line.split(":")[0] for line in [*given, question]}) == 4


def test_text_copying_wants_the_digits_in_order() -> None:
    for item in _items("selective_copying"):
        body, question = item.prompt.split("\n")
        assert question == "Digits:"
        assert body.replace(".", " ").split() == item.references[0].split()
        assert len(item.references[0].split()) == 16
        assert body.count(".") == item.extra["units"]


@pytest.mark.parametrize(
    ("name", "answer", "text", "exact", "share"),
    [
        ("phonebook", "4821", " 4821\nBob", 1.0, 1.0),
        ("phonebook", "4821", " 4827", 0.0, 0.75),
        ("phonebook", "4821", "48210", 0.0, 0.8),
        ("phonebook", "4821", " 48", 0.0, 0.5),
        ("phonebook", "4821", "no idea", 0.0, 0.0),
        ("phonebook", "4821", "", 0.0, 0.0),
        ("phonebook", "0042", " 42", 0.0, 0.0),
        ("needle", "123456", " 123456.", 1.0, 1.0),
        ("mqar", "07", " 07 ", 1.0, 1.0),
        ("selective_copying", "1 2 3 4", " 1 2 3 4", 1.0, 1.0),
        ("selective_copying", "1 2 3 4", "1234\n5", 1.0, 1.0),
        ("selective_copying", "1 2 3 4", " 1 2 4 3", 0.0, 0.5),
    ],
)
def test_scores_by_hand(name: str, answer: str, text: str, exact: float, share: float) -> None:
    item = Completion(
        id="1", extra={"tokens": 9}, prompt="", references=(answer,), max_new_tokens=9
    )
    found = _task(name).metrics(item, Response(text=text))
    assert found == {"exact_match": exact, "digit_accuracy": share, "tokens": 9.0}


def test_the_right_answer_scores_one_and_guesses_score_chance(name: str) -> None:
    task = _task(name)
    items = _items(name)
    figures = [task.metrics(i, Response(text=f" {i.references[0]}\n")) for i in items]
    assert {f["exact_match"] for f in figures} == {f["digit_accuracy"] for f in figures} == {1.0}
    assert task.aggregate(items, figures)["groups"]["300"]["exact_match"] == 1.0
    # A guess is right with the chance that the task states: digits are uniform.
    answers = [re.sub(" ", "", item.references[0]) for item in items]
    assert task.chance == pytest.approx(10.0 ** -len(answers[0]))
    random = np.random.default_rng(0).integers(10, size=(2000, 4))
    shares = [digit_scores("".join(map(str, row)), "4821")[1] for row in random]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)


def test_answers_are_spread_over_all_digits_and_places() -> None:
    items = _items("phonebook", TaskSettings(lengths=(400,), samples=200))
    digits = Counter("".join(item.references[0] for item in items))
    assert set(digits) == set("0123456789")
    assert max(digits.values()) < 2 * min(digits.values())
    quarters = Counter(4 * item.extra["position"] // item.extra["units"] for item in items)
    assert min(quarters.values()) > 25


def test_a_length_below_the_smallest_prompt_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"7 tokens are too few for task {name}"):
        _task(name).items(TaskSettings(lengths=(7,), samples=1))


def test_more_names_than_there_are_is_refused() -> None:
    most = len(FIRST_NAMES) * len(LAST_NAMES)
    assert len(set(names(most, np.random.default_rng(0)))) == most
    with pytest.raises(ConfigError, match="distinct names"):
        names(most + 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="distinct numbers"):
        numbers(101, 2, np.random.default_rng(0))


def test_a_longer_prompt_holds_the_lines_of_a_shorter_one() -> None:
    short, long = (
        PhonebookTask().question(units, np.random.default_rng(3)).prompt.split("\n")
        for units in (5, 9)
    )
    assert short[:5] == long[:5]


@pytest.mark.parametrize("per_unit", [0.3, 1.0, 7.7, 40.0])
@pytest.mark.parametrize("length", [100, 999, 20000])
def test_the_search_finds_the_last_size_that_fits(per_unit: float, length: int) -> None:
    calls = []

    def tokens(units: int) -> int:
        calls.append(units)
        return int(30 + per_unit * units + 3 * np.sin(units / 50))

    units, size = largest(tokens, length, 1, tokens(1))
    assert size == tokens(units) <= length < tokens(units + 1)
    assert len(calls) < 24, "a handful of prompts are tokenised, not one for each size"
