"""The public sets: their counts, what a rule without a model scores on them, what is refused."""

from __future__ import annotations

import bz2
import json
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from regrow.core.errors import ConfigError, InputError
from regrow.eval.task import Choice, Completion, Item, Response, Score, TaskSettings, spread
from regrow.eval.tasks import SUITES, TASKS
from regrow.eval.tasks.gsm8k import final_number, last_number
from regrow.eval.tasks.mmlu import SUBJECTS
from regrow.eval.tasks.tatoeba import language_items

PUBLIC = [name for name in TASKS.names() if TASKS.get(name).files]
# Name to options, how often each is the answer, and how often the longest option is: fixed numbers
# of the sets themselves. WinoGrande's longest is of the names.
CHOICES: dict[str, tuple[int, list[int], int]] = {
    "mmlu": (4, [3222, 3462, 3582, 3776], 3222),
    "mmlu_cloze": (4, [3222, 3462, 3582, 3776], 3911),
    "hellaswag": (4, [2515, 2485, 2584, 2458], 2421),
    "piqa": (2, [910, 928], 892),
    "winogrande": (2, [628, 639], 624),
    "openbookqa": (4, [138, 126, 132, 104], 181),
    "copa": (2, [55, 45], 46),
    "tatoeba": (4, [22435, 22077, 22385, 21980], 24155),
}
OTHERS = {"lambada": 5153, "gsm8k": 1319, "udhr": 388}


def items_of(name: str, **settings: Any) -> list[Item]:
    return TASKS.get(name)().items(TaskSettings(**settings))


def longest(item: Choice) -> int:
    """The longest text that differs between the options, the first of equal ones."""
    side = 1 if len({text for _, text in item.options}) > 1 else 0
    sizes = [len(option[side].encode()) for option in item.options]
    return sizes.index(max(sizes))


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_the_public_set(data_folder: Path, name: str) -> None:
    options, answers, by_length = CHOICES[name]
    items = [item for item in items_of(name, data=data_folder) if isinstance(item, Choice)]
    assert len(items) == TASKS.get(name).size == sum(answers)
    assert len({item.id for item in items}) == len(items)
    assert {len(item.options) for item in items} == {options}
    found = Counter(item.answer for item in items)
    assert [found[index] for index in range(options)] == answers
    assert sum(longest(item) == item.answer for item in items) == by_length
    assert TASKS.get(name).chance == 1 / options
    for item in items[:: len(items) // 50]:
        assert len(set(item.options)) == options
        for context, continuation in item.options:
            assert continuation.startswith(" ")
            assert not continuation.startswith("  ")
            assert context
            assert not context.endswith(" ")


@pytest.mark.parametrize("name", OTHERS)
def test_other_sets_have_the_public_size(data_folder: Path, name: str) -> None:
    items = items_of(name, data=data_folder)
    assert len(items) == TASKS.get(name).size == OTHERS[name]
    assert len({item.id for item in items}) == len(items)


@pytest.mark.parametrize(("name", "found", "public"), [("siqa", 2, 3), ("commonsense_qa", 4, 5)])
def test_altered_sets_are_refused(data_folder: Path, name: str, found: int, public: int) -> None:
    with pytest.raises(InputError, match=rf"has {found} options.*public set {public}"):
        items_of(name, data=data_folder)


def test_every_task_is_tested_here() -> None:
    assert set(PUBLIC) == {*CHOICES, *OTHERS, "new_testament", "siqa", "commonsense_qa"}
    for tasks in SUITES.values():
        for task in tasks:
            assert TASKS.get(task).name == task


def test_mmlu_by_subject(data_folder: Path) -> None:
    items = items_of("mmlu", data=data_folder)
    sizes = Counter(item.group for item in items)
    assert set(sizes) == set(SUBJECTS)
    assert len(sizes) == 57
    assert (sizes["professional_law"], sizes["anatomy"]) == (1534, 135)
    (first,) = [item for item in items if item.id == "anatomy/0"]
    assert isinstance(first, Choice)
    prompt = first.options[0][0]
    assert prompt.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "What is the embryological origin of the hyoid bone?\nA. The first pharyngeal arch\n"
    )
    assert prompt.count("\nAnswer:") == 6
    assert prompt.endswith("\nAnswer:")
    bare = items_of("mmlu", data=data_folder, shots=0)
    assert isinstance(bare[0], Choice)
    assert bare[0].options[0][0].count("\nAnswer:") == 1


def test_wrong_translations_are_as_long_and_drawn_by_seed(data_folder: Path) -> None:
    sides = [
        (data_folder / "tatoeba-laser" / f"tatoeba.deu-eng.{side}").read_text().splitlines()
        for side in ("eng", "deu")
    ]
    made = [language_items("deu", *sides, random.Random(seed)) for seed in (0, 0, 1)]
    assert made[0] == made[1]
    assert sum(a != b for a, b in zip(made[0], made[2], strict=True)) > 900
    gaps = []
    for item, right in zip(made[0], sides[1], strict=True):
        assert isinstance(item, Choice)
        texts = [text for _, text in item.options]
        assert texts[item.answer] == f" {right}"
        assert len(set(texts)) == 4
        sizes = [len(text.encode()) for text in texts]
        gaps.append(max(sizes) / min(sizes))
    assert sorted(gaps)[len(gaps) // 2] < 1.1


def test_the_new_testament_is_verses(data_folder: Path) -> None:
    items = items_of("new_testament", data=data_folder)
    assert len(items) == 59_190
    found = {item.id: item for item in items}
    assert found["wolof/MAT.1.1"].text.startswith("Lii mooy cosaanu Yeesu")  # type: ignore[attr-defined]
    assert not any(place.startswith("armenian/GEN") for place in found)


def test_numbers_of_answers() -> None:
    assert final_number("so 3 + 4\n#### 1,234.") == "1234"
    assert final_number("so 7") is None
    assert last_number("it costs $1,200.50 or 7.") == "7"
    assert last_number("she has $18.") == "18"
    assert last_number("none") is None


def test_gsm8k_scores_its_own_answers(data_folder: Path) -> None:
    task, path = TASKS.get("gsm8k")(), data_folder / "eval-gsm8k" / "test.jsonl"
    items = task.items(TaskSettings(data=data_folder))
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    for item, answer in zip(items, answers, strict=True):
        assert task.metrics(item, Response(text=f" {answer}\n\n")) == {
            "exact_match": 1.0,
            "exact_match_any": 1.0,
        }
    shifted = [
        task.metrics(item, Response(text=answer))["exact_match"]
        for item, answer in zip(items, answers[1:], strict=False)
    ]
    assert sum(shifted) < len(items) * 0.05
    assert isinstance(items[0], Completion)
    assert items[0].prompt.count("Question:") == 6
    assert items[0].prompt.endswith("\nAnswer:")


def score(total: float, tokens: int, size: int = 1) -> Score:
    return Score(total, False, tokens, size)


def test_each_normalisation_picks_its_own_option() -> None:
    item = Choice(
        id="0",
        options=(("q", " a"), ("q", " bbbb"), ("q", " ccéé"), ("q", " dd")),
        answer=2,
        unconditional="Answer:",
    )
    sums, tokens = [-1.0, -2.0, -2.0, -3.0], [1, 1, 4, 1]
    response = Response(
        tuple(score(s, t) for s, t in zip(sums, tokens, strict=True)),
        tuple(score(s, 1) for s in (-1.0, -1.0, -1.0, -3.5)),
    )
    task = TASKS.get("openbookqa")()
    # Sums: option 0. Per byte (1, 4, 6, 2 of them): option 2. Per token: option 2. PMI: option 3.
    assert task.metrics(item, response) == {
        "acc": 0.0,
        "acc_norm": 1.0,
        "acc_per_token": 1.0,
        "acc_pmi": 0.0,
    }


def test_means_errors_and_categories() -> None:
    task = TASKS.get("mmlu")()
    groups = ["anatomy", "anatomy", "virology", "anatomy"]
    items: list[Item] = [
        Choice(id=str(i), group=group, options=(("q", " A"),), answer=0)
        for i, group in enumerate(groups)
    ]
    figures = [{"acc": value} for value in (1.0, 0.0, 1.0, 0.0)]
    whole = task.aggregate(items, figures)
    assert whole["acc"] == 0.5
    assert whole["n"] == 4
    assert whole["stderr"] == pytest.approx((1 / 3 / 4) ** 0.5)
    assert whole["groups"]["anatomy"]["acc"] == pytest.approx(1 / 3)
    assert whole["categories"]["stem"]["n"] == 3
    assert whole["categories"]["other"] == {"acc": 1.0, "n": 1, "stderr": None}
    assert whole["subject_mean"] == pytest.approx((1 / 3 + 1) / 2)


def test_bits_per_byte_is_a_ratio_of_sums() -> None:
    task = TASKS.get("udhr")()
    figures = [
        {"nats": 10.0, "tokens": 4.0, "bytes": 5.0},
        {"nats": 2.0, "tokens": 2.0, "bytes": 10.0},
    ]
    found = task.summarise(figures)
    assert found["bits_per_byte"] == pytest.approx(12 / 15 / 0.6931471805599453)
    assert found["loss"] == 2.0
    equal = task.summarise([figures[0]] * 3)
    assert equal["stderr"] == pytest.approx(0.0)


def test_lambadas_perplexity() -> None:
    task = TASKS.get("lambada")()
    found = task.summarise(
        [{"acc": 1.0, "log_likelihood": -1.0}, {"acc": 0.0, "log_likelihood": -3.0}]
    )
    assert found["perplexity"] == pytest.approx(2.718281828459045**2)
    assert task.summarise([{"acc": 0.0, "log_likelihood": -1e4}] * 2)["perplexity"] < float("inf")


def test_a_limit_is_spread_over_all() -> None:
    items: list[Item] = [Item(id=str(i)) for i in range(10)]
    assert [item.id for item in spread(items, 4)] == ["0", "2", "5", "7"]
    assert spread(items, None) == spread(items, 10) == spread(items, 99) == items
    assert len(spread(items, 9)) == len({item.id for item in spread(items, 9)}) == 9


def test_no_data_folder_and_no_file() -> None:
    with pytest.raises(ConfigError, match="REGROW_DATA"):
        items_of("piqa")
    with pytest.raises(InputError, match=r"piqa\.jsonl is missing"):
        items_of("piqa", data=Path("/nowhere"))


ROW = {"query": "Question: How?\n", "choices": ["a", "b"], "gold": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW] * 1837, "1,837 items, the public set 1,838"),
        ([ROW] * 1839, "1,839 items"),
        ([*[ROW] * 1837, ROW | {"choices": ["a"]}], "item 1837 has 1 options"),
        ([*[ROW] * 1837, ROW | {"gold": 2}], "item 1837 has the answer 2 of 2"),
        ([*[ROW] * 1837, ROW | {"choices": ["a", 1]}], "no text"),
        ([ROW | {"gold": "0"}, *[ROW] * 1837], r"piqa\.jsonl:1: 'gold' is missing"),
        ([*[ROW] * 1837, "{"], r"piqa\.jsonl:1838: not JSON"),
    ],
)
def test_another_piqa_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    path = tmp_path / TASKS.get("piqa").files
    path.parent.mkdir(parents=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        items_of("piqa", data=tmp_path)
    path.write_text((json.dumps(ROW) + "\n") * 1838)
    (first, *_) = items_of("piqa", data=tmp_path)
    assert isinstance(first, Choice)
    assert first.options[0] == ("Question: How?\nAnswer:", " a")


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    swag, udhr = (tmp_path / TASKS.get(name).files for name in ("hellaswag", "udhr"))
    for path in (swag, udhr):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not packed")
    for name in ("hellaswag", "udhr"):
        with pytest.raises(InputError, match="cannot be read"):
            items_of(name, data=tmp_path)
    swag.write_bytes(bz2.compress(b"context\n7\na\nb\nc\nd\n" * 10_042))
    with pytest.raises(InputError, match="answer '7'"):
        items_of("hellaswag", data=tmp_path)
    with zipfile.ZipFile(udhr, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("udhr2/eng.txt", b"a" * (5 << 20))
    assert udhr.stat().st_size < 1 << 16
    with pytest.raises(InputError, match="larger than"):
        items_of("udhr", data=tmp_path)


def test_entities_in_xml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bible-nt-8-languages" / "Armenian-PART.xml"
    path.parent.mkdir()
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    with pytest.raises(InputError, match="entities"):
        items_of("new_testament", data=tmp_path)


def test_mmlus_categories_are_lm_evals() -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="the extra [eval] is not installed")
    folder = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    found = {}
    for path in folder.glob("mmlu_*.yaml"):
        words = path.read_text().replace('"', "").split()
        tag = next(word for word in words if word.startswith("mmlu_") and word.endswith("_tasks"))
        found[path.stem.removeprefix("mmlu_")] = tag.removeprefix("mmlu_").removesuffix("_tasks")
    assert found == SUBJECTS
