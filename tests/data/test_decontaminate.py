"""Decontamination, as a step and as a verb, with leaks that were planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from regrow.core.errors import ConfigError, InputError
from regrow.core.run import Run
from regrow.data import engine
from regrow.data.config import CurateConfig
from regrow.data.jobs import curate
from regrow.data.jobs import decontaminate as job
from regrow.data.settings.decontaminate import DecontaminateConfig
from regrow.data.steps.decontaminate import Decontaminate

pytest.importorskip("daft")

QUESTION = (
    "Weng earns $12 an hour for babysitting. Yesterday, she just did fifty minutes of babysitting; "
    "how much did she earn?"
)
SHORT = "Which of these nine words is not at home?"
TOO_SHORT = "Who was the first emperor?"
LEAKS = {
    "exact": QUESTION,
    "case": QUESTION.upper(),
    "punctuation": QUESTION.replace(",", " --").replace(" ", "\n").replace("$", "€"),
    "part": " ".join(QUESTION.split()[5:18]),
    "short": "So: WHICH of these nine words is not at -- home",
    "of_mine": "seventeen grey elephants that crossed a wide river by night were never seen again",
}
CLEAN = {
    "fewer": " ".join(QUESTION.split()[:12]),
    "reordered": " ".join(QUESTION.split()[::-1]),
    "other_word": QUESTION.replace("fifty", "sixty").replace("earns", "gets"),
    "part_of_short": "these nine words is not at home",
    "too_short": TOO_SHORT,
    "nothing": "",
}


def filler(seed: int, words: int = 60) -> str:
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 10**9, words))


def planted() -> dict[str, str]:
    """Texts by name: each leak within other words."""
    return {
        name: f"{filler(number)}\n{text} {filler(-number % 999 + 1)}"
        for number, (name, text) in enumerate({**LEAKS, **CLEAN}.items(), 1)
    }


@pytest.fixture
def evaluation(tmp_path: Path) -> list[Any]:
    """Two sets in files: ``gsm`` of records, ``mine`` of paragraphs."""
    records = [
        {"question": QUESTION, "answer": "10", "note": filler(7)},
        {"question": SHORT, "answer": "none"},
        {"question": TOO_SHORT, "answer": "Augustus"},
    ]
    lines = "\n".join(map(json.dumps, records))
    (tmp_path / "gsm.jsonl").write_text(lines + "\n")
    (tmp_path / "mine.txt").write_text(f"{LEAKS['of_mine'].title()}!\n\nAnother paragraph here.\n")
    fields = ["question", "answer"]
    return [
        {"name": "gsm", "path": str(tmp_path / "gsm.jsonl"), "fields": fields},
        str(tmp_path / "mine.txt"),
    ]


def configured(against: list[Any], **settings: Any) -> CurateConfig:
    given = {"steps": ["decontaminate", "split"], "decontaminate": {"against": against, **settings}}
    return CurateConfig.model_validate_json(json.dumps(given))


def scored(config: CurateConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Columns and verdicts by name, and what the card shows."""
    step = Decontaminate(config)
    texts = planted()
    folder.mkdir()
    frame = engine.from_columns({"id": list(texts), "text": list(texts.values())})
    scores = engine.collected(step.score(frame, folder))
    verdicts = {row["id"]: row for row in engine.rows(step.judge(scores, folder))}
    return (
        {row["id"]: row for row in engine.rows(scores)},
        verdicts,
        step.exhibits(scores, folder),
    )


def test_leaks_are_found_and_nothing_else(evaluation: list[Any], tmp_path: Path) -> None:
    scores, verdicts, shown = scored(configured(evaluation), tmp_path / "step")
    assert {name for name, one in verdicts.items() if one["reason"]} == set(LEAKS)
    for name in LEAKS:
        of = "mine" if name == "of_mine" else "gsm"
        assert verdicts[name]["reason"] == f"words of {of}"
        leading = 61 if name == "short" else 60  # "So" is none of its words
        assert verdicts[name]["value"] == leading
        item = {"short": "gsm:2", "of_mine": "mine:1"}.get(name, "gsm:1")
        assert scores[name]["overlap_items"] == item
    words = {"exact": 20, "case": 20, "punctuation": 20, "part": 13, "short": 9, "of_mine": 14}
    assert {name: scores[name]["overlap_words"] for name in LEAKS} == words
    for name in CLEAN:
        assert verdicts[name] == {"id": name, "reason": None, "value": None}
        assert scores[name]["overlap_words"] == 0
        assert scores[name]["overlap_items"] is None
    assert shown[0]["rows"] == [["gsm", 3, 1, 2, 1.0, 5], ["mine", 2, 1, 1, 1.0, 1]]
    assert shown[1]["rows"][0] == ["gsm:1", 4]
    assert sum(shown[2]["counts"]) == len(LEAKS)


def test_short_texts_need_not_be_looked_for(evaluation: list[Any], tmp_path: Path) -> None:
    _, verdicts, shown = scored(configured(evaluation, short_words=13), tmp_path / "step")
    assert {name for name, one in verdicts.items() if one["reason"]} == set(LEAKS) - {"short"}
    assert shown[0]["rows"][0][:3] == ["gsm", 3, 2]
    _, verdicts, _ = scored(configured(evaluation, words=9, short_words=5), tmp_path / "more")
    found = {name for name, one in verdicts.items() if one["reason"]}
    assert found == {*LEAKS, "fewer", "other_word", "too_short"}


def test_scores_depend_on_what_the_sets_say_alone(evaluation: list[Any], tmp_path: Path) -> None:
    key = Decontaminate(configured(evaluation)).key()
    assert Decontaminate(configured(evaluation)).key() == key
    assert Decontaminate(configured(evaluation, words=12)).key() != key
    with (tmp_path / "mine.txt").open("a") as file:
        file.write("\nOne more paragraph of a set that has grown by now, and it is long.\n")
    assert Decontaminate(configured(evaluation)).key() != key


def test_no_set_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"decontaminate\.against: names no evaluation set"):
        Decontaminate(CurateConfig(steps=("decontaminate", "split")))


def test_a_target_that_holds_an_evaluation_set_is_refused(
    evaluation: list[Any], tmp_path: Path
) -> None:
    pool = write_pool(tmp_path / "pool")
    (tmp_path / "good.txt").write_text(f"{filler(3, 300)}\n{QUESTION.lower()}")
    given = {
        "sources": [{"kind": "folder", "name": "pool", "path": str(pool)}],
        "steps": ["select", "decontaminate", "split"],
        "select": {"target": {"files": [str(tmp_path / "good.txt")]}, "keep_fraction": 0.5},
        "decontaminate": {"against": evaluation},
    }

    def read() -> CurateConfig:
        return CurateConfig.model_validate_json(json.dumps(given))

    with pytest.raises(InputError, match="words of 1 items of the sets") as caught:
        curate.plan(read())
    assert caught.value.problems == ("gsm:1",)
    (tmp_path / "good.txt").write_text(filler(3, 300))
    assert not [note for note in curate.plan(read()).notes if "evaluation" in note]
    given["select"] = {"target": {"where": "kind = 'prose'"}, "keep_fraction": 0.5}
    assert "put decontaminate before select" in curate.plan(read()).notes[-1]
    given["steps"] = ["decontaminate", "select", "split"]
    assert not [note for note in curate.plan(read()).notes if "evaluation" in note]


def write_pool(folder: Path) -> Path:
    folder.mkdir()
    lines = [json.dumps({"id": name, "text": text}) for name, text in planted().items()]
    lines += [json.dumps({"id": f"more{i}", "text": filler(500 + i)}) for i in range(60)]
    (folder / "pool.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def gathered(pool: Path, steps: list[str], against: list[Any]) -> CurateConfig:
    given = {
        "sources": [{"kind": "folder", "name": "pool", "path": str(pool)}],
        "steps": steps,
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    if against:
        given["decontaminate"] = {"against": against}
    return CurateConfig.model_validate_json(json.dumps(given))


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_the_step_and_the_verb_drop_the_same(
    evaluation: list[Any], tmp_path: Path, claim: Callable[..., Run]
) -> None:
    pool = write_pool(tmp_path / "pool")
    config = gathered(pool, ["decontaminate", "split"], evaluation)
    stepped = claim("curate", config)
    curate.run(config, stepped)
    config = gathered(pool, ["split"], [])
    plain = claim("plain", config)
    curate.run(config, plain)

    settings = {"documents": str(plain.path), "against": evaluation}
    wanted = DecontaminateConfig.model_validate_json(json.dumps(settings))
    planned = job.plan(wanted).figures
    assert (planned["documents"], planned["items"]) == (72, 5)
    clean = claim("clean", wanted)
    result = job.run(wanted, clean)
    assert result["total_dropped"] == len(LEAKS)
    assert result["total_documents"] == 72 - len(LEAKS)
    assert list(result["sets"]["gsm"].items()) == [
        *(("items", 3), ("too_short", 1), ("found", 2), ("share", 1.0), ("documents", 5))
    ]
    for split in ("train", "validation", "test"):
        before = rows(plain.path / "documents" / f"{split}.parquet")
        after = rows(clean.path / "documents" / f"{split}.parquet")
        by_step = rows(stepped.path / "documents" / f"{split}.parquet")
        assert [row["id"] for row in after] == [row["id"] for row in by_step]
        kept = {row["id"] for row in after}
        assert after == [row for row in before if row["id"] in kept]
        figures = result["documents"][split]
        assert figures["in"] == len(before)
        assert figures["out"] == len(after)
        assert sum(figures["dropped"].values()) == len(before) - len(after)
    card = json.loads((clean.path / "card.json").read_text())
    assert (card["stages"][0]["in"], card["stages"][0]["out"]) == (72, 72 - len(LEAKS))
    assert sum(card["stages"][0]["dropped"].values()) == len(LEAKS)
    examples = card["dropped"]["decontaminate"]["words of gsm"]
    assert len(examples) == 5
    begins = {one["file"].removeprefix("pool#"): one["text"][:25] for one in examples}
    assert begins["exact"] == "weng earns $12 an hour fo"
    assert begins["short"] == "which of these nine words"
    gone = rows(clean.path / "documents" / "dropped.parquet")
    assert gone == [
        row for row in rows(stepped.path / "documents" / "dropped.parquet") if row["reason"]
    ]
    assert {row["file"].removeprefix("pool#") for row in gone} == set(LEAKS)
    # What was made is found again.
    assert job.run(wanted, clean) == result


def test_documents_that_cannot_be_used(
    evaluation: list[Any], tmp_path: Path, claim: Callable[..., Run]
) -> None:
    pool = write_pool(tmp_path / "pool")
    config = gathered(pool, ["split"], [])
    plain = claim("plain", config)
    curate.run(config, plain)
    documents = plain.path / "documents"

    def settings(against: list[Any]) -> DecontaminateConfig:
        given = {"documents": str(documents), "against": against}
        return DecontaminateConfig.model_validate_json(json.dumps(given))

    itself = settings([str(pool / "pool.jsonl")])
    with pytest.raises(InputError, match="are they that set itself"):
        job.run(itself, claim("itself", itself))
    table = pq.read_table(documents / "train.parquet")
    backwards = table.take(list(range(table.num_rows))[::-1])
    pq.write_table(backwards, documents / "train.parquet")
    wanted = settings(evaluation)
    with pytest.raises(InputError, match=r"train\.parquet is not sorted by id"):
        job.run(wanted, claim("unsorted", wanted))
    pq.write_table(table.drop_columns(["file"]), documents / "train.parquet")
    with pytest.raises(InputError, match=r"train\.parquet has no column 'file'"):
        job.plan(wanted)
    with pytest.raises(InputError, match="no such path"):
        job.plan(wanted.model_copy(update={"documents": tmp_path / "nowhere"}))


def test_public_sets_within_real_text(data_folder: Path, tmp_path: Path) -> None:
    """Every question of GSM8K is found in a book, and the book without them has none."""
    book = (data_folder / "tinyshakespeare").glob("*.txt")
    text = max((path.read_text(encoding="utf-8") for path in book), key=len)[:400_000]
    with (data_folder / "eval-gsm8k" / "test.jsonl").open(encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file][:200]
    pieces = [text[at : at + 2000] for at in range(0, len(text), 2000)]
    assert len(pieces) == len(questions)
    leaked = [f"{p}\n\n{q.lower()}\n" for p, q in zip(pieces, questions, strict=True)]
    step = Decontaminate(configured(["gsm8k", "hellaswag", "mmlu"], data=str(data_folder)))
    folder = tmp_path / "step"
    folder.mkdir()
    ids = [f"p{i}" for i in range(200)] + [f"q{i}" for i in range(200)]
    frame = engine.from_columns({"id": ids, "text": [*pieces, *leaked]})
    found = {row["id"]: row for row in engine.rows(step.score(frame, folder))}
    for number in range(200):
        assert found[f"p{number}"]["overlap_set"] is None
        assert f"gsm8k:{number + 1}" in found[f"q{number}"]["overlap_items"].split()
