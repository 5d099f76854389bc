"""Tasks over models: what is written, what a killed run keeps, `evaluate` with tasks and suites."""

from __future__ import annotations

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from regrow.cli.main import main
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.eval import harness
from regrow.eval.config import EvaluateConfig
from regrow.eval.harness import respond, run_task
from regrow.eval.lm import LanguageModel
from regrow.eval.task import Choice, Cloze, Completion, Item, Passage, TaskSettings
from regrow.eval.tasks import SUITES, TASKS
from regrow.eval.tasks.piqa import Piqa
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.io.jsonl import read_jsonl
from regrow.io.tokenizer import Tokenizer
from regrow.model.folder import load
from tests.compress.makers import save_model
from tests.report.reading import Page

WORDS = ["tree", "grows", "slowly", "tall", "and", "it", "is", "the"]


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    save_model(folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def lm(model: Path) -> LanguageModel:
    return LanguageModel(load(model), Tokenizer.load(model))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of PIQA's form and size, and one of COPA's."""
    rows = {
        "piqa": [
            {
                "query": f"Question: how {WORDS[i % 8]} {WORDS[i // 8 % 8]}\n",
                "choices": [f"{WORDS[i % 7]} {k}" for k in ("x", "tree")],
                "gold": i % 2,
            }
            for i in range(1838)
        ],
        "copa": [
            {
                "query": f"the {WORDS[i % 8]} {WORDS[i // 8 % 8]}, therefore",
                "choices": [f"it is {WORDS[i % 7]}.", "it grows."],
                "gold": i % 2,
            }
            for i in range(100)
        ],
    }
    folder = tmp_path / "data"
    for name, made in rows.items():
        path = folder / TASKS.get(name).files
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return folder


def settings(models: Any, **changes: Any) -> EvaluateConfig:
    return load_config(EvaluateConfig, base={"models": models, **changes})


def lines(path: Path) -> list[dict[str, Any]]:
    found = list(read_jsonl(path))
    assert all(line.value is not None for line in found)
    return [line.value for line in found if line.value is not None]


def test_items_of_all_kinds_are_answered_in_their_order(lm: LanguageModel) -> None:
    items: list[Item] = [
        Completion(id="0", prompt="the tree", references=("x",), max_new_tokens=4),
        Choice(id="1", options=(("the", " tree"), ("a", " tree")), answer=0, unconditional="it"),
        Passage(id="2", text="the tree grows"),
        Cloze(id="3", context="the tree", target=" grows"),
        Completion(id="4", prompt="def", references=("x",), max_new_tokens=6, stop=("\n",)),
        Choice(id="5", options=(("def", " x"), ("def", " y"), ("def", " (")), answer=0),
        Completion(id="6", prompt="a tree", references=("x",), max_new_tokens=4),
    ]
    found = respond(lm, items)
    assert [r.text for r in found] == [
        lm.generate(["the tree"], 4)[0],
        "",
        "",
        "",
        lm.generate(["def"], 6, ["\n"])[0],
        "",
        lm.generate(["a tree"], 4)[0],
    ]
    pairs = [("the", " tree"), ("a", " tree"), ("it", " tree"), ("the tree", " grows")]
    scores = [score.log_likelihood for score in lm.log_likelihood(pairs)]
    assert [s.log_likelihood for s in found[1].scores] == pytest.approx(scores[:2], abs=1e-5)
    alone = [s.log_likelihood for s in found[1].unconditional]
    assert alone == pytest.approx([scores[2]] * 2, abs=1e-5)
    assert found[3].scores[0].log_likelihood == pytest.approx(scores[3], abs=1e-5)
    assert found[2].scores == tuple(lm.passages(["the tree grows"]))
    assert len(found[5].scores) == 3
    assert found[5].unconditional == ()


def test_lines_hold_what_the_figures_are_made_of(
    lm: LanguageModel, data: Path, tmp_path: Path
) -> None:
    figures = run_task(lm, Piqa(), TaskSettings(data=data, limit=40), tmp_path / "m")
    records = lines(tmp_path / "m" / "piqa.jsonl")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["piqa.json", "piqa.jsonl"]
    assert json.loads((tmp_path / "m" / "piqa.json").read_text()) == figures
    assert [record["id"] for record in records] == [str(i * 1838 // 40) for i in range(40)]
    right, right_pmi = 0, 0
    for record in records:
        sums = [score["log_likelihood"] for score in record["scores"]]
        right += sums[record["answer"]] > sums[1 - record["answer"]]
        gains = [s - base for s, base in zip(sums, record["unconditional"], strict=True)]
        right_pmi += gains[record["answer"]] > gains[1 - record["answer"]]
        assert all(math.isfinite(s) and s < 0 for s in sums)
    assert figures["acc"] == pytest.approx(right / 40)
    assert figures["acc_pmi"] == pytest.approx(right_pmi / 40)
    assert (figures["n"], figures["cut"]) == (40, 0)
    share = figures["acc_norm"]
    assert 0 < share < 1
    assert figures["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 39))


class Stopped(Exception):
    """The run is killed here."""


@pytest.mark.parametrize("torn", [b"", b'{"id": "9', b'{"id": "x"}\n'])
def test_a_killed_run_goes_on_behind_what_it_asked(
    lm: LanguageModel,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    torn: bytes,
) -> None:
    monkeypatch.setattr(harness, "BLOCK", 8)
    how = TaskSettings(data=data, limit=30)
    whole = run_task(lm, Piqa(), how, tmp_path / "whole")

    def between(done: int, total: int) -> None:
        assert total == 30
        if done >= 16:
            raise Stopped

    with pytest.raises(Stopped):
        run_task(lm, Piqa(), how, tmp_path / "killed", between)
    partial = tmp_path / "killed" / "piqa.partial.jsonl"
    assert len(lines(partial)) == 16
    with partial.open("ab") as file:
        file.write(torn)
    asked: list[str] = []

    def counted(model: LanguageModel, items: list[Item]) -> Any:
        asked.extend(item.id for item in items)
        return respond(model, items)

    monkeypatch.setattr(harness, "respond", counted)
    again = run_task(lm, Piqa(), how, tmp_path / "killed")
    assert len(asked) == 14
    assert again == whole
    written = [(tmp_path / name / "piqa.jsonl").read_bytes() for name in ("whole", "killed")]
    assert written[0] == written[1]
    assert not partial.exists()


def test_texts_that_were_cut_are_counted_over_attempts(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "BLOCK", 8)
    lm = LanguageModel(load(model), Tokenizer.load(model))
    lm.window = 4
    how = TaskSettings(data=data, limit=20)

    def between(done: int, total: int) -> None:
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        run_task(lm, Piqa(), how, tmp_path / "m", between)
    lm.cut = 0
    figures = run_task(lm, Piqa(), how, tmp_path / "m")
    # Every pair of a question; those after "Answer:" alone only where they are long.
    assert figures["cut"] >= 40
    assert not any("cut" in record for record in lines(tmp_path / "m" / "piqa.jsonl"))


def test_evaluate_with_tasks_and_the_recall_suite(
    model: Path, data: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "other", tokenizer, layers=1)
    config = settings(
        {"one": str(model), "two": str(tmp_path / "other")},
        tasks=["piqa", "copa"],
        suite="recall",
        data=str(data),
        limit=16,
        lengths=[200, 240],
        samples_per_length=2,
    )
    told: list[str] = []
    result = execute(
        "evaluate", config, tmp_path / "run", quiet=True, announce=lambda text, _: told.append(text)
    )
    names = [*SUITES["recall"], "piqa", "copa"]
    assert list(result["tasks"]) == ["one", "two"]
    for found in result["tasks"].values():
        assert list(found) == names
        assert found["piqa"]["n"] == 16
        assert found["needle"]["n"] == 4
        assert set(found["needle"]["groups"]) == {"200", "240"}
        assert found["needle"]["cut"] == 0
    assert result["tasks"]["one"]["piqa"] != result["tasks"]["two"]["piqa"]
    assert list(result["about_tasks"]) == names
    assert result["about_tasks"]["piqa"]["chance"] == 0.5
    assert result["models"]["one"]["parameters"] > result["models"]["two"]["parameters"]
    assert "loss" not in result["models"]["one"]
    table = told[-1].splitlines()
    assert table[0].split() == ["task", "metric", "chance", "n", "one", "two"]
    assert [row.split()[0] for row in table[1:]] == names
    row = next(row.split() for row in table if row.startswith("piqa"))
    share = result["tasks"]["one"]["piqa"]["acc_norm"]
    assert row[1:5] == ["acc_norm", "0.5", "16", f"{share:.3f}"]
    page = Page.read(tmp_path / "run" / "report.html")
    checked = 0
    for value, title, _ in page.figures:
        match = re.search(r"· result\.json: ((?:about_)?tasks\.[\w.]+)$", title)
        if match:
            entry: Any = result
            for key in match[1].split("."):
                entry = entry[key]
            assert float(value) == entry, title
            checked += 1
    assert checked > 100
    for record in json.loads((tmp_path / "run" / "inputs.json").read_text()):
        assert record["role"] in ("model", "data")
    again = execute("evaluate", config, tmp_path / "run", quiet=True)
    assert again["tasks"] == result["tasks"]


def test_shards_and_tasks_together(
    model: Path, shards: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGROW_DATA", str(data))
    config = settings(
        str(model),
        shards=str(shards),
        sequence=32,
        tasks=["copa"],
        decode={"repeats": 0},
        samples={"prompts": []},
    )
    result = execute("evaluate", config, tmp_path / "run", quiet=True)
    assert result["models"]["base"]["loss"] > 0
    assert result["baselines"]["bigram"]["loss"] > 0
    assert result["tasks"]["base"]["copa"]["n"] == 100


def test_an_interrupted_run_keeps_its_items(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    config = settings(str(model), tasks=["copa", "piqa"], data=str(data), limit=30)
    monkeypatch.setattr(harness, "BLOCK", 10)
    asked: list[int] = []

    def counted(model: LanguageModel, items: list[Item]) -> Any:
        asked.append(len(items))
        if len(asked) == 5:
            signal.raise_signal(signal.SIGINT)
        return respond(model, items)

    monkeypatch.setattr(harness, "respond", counted)
    with pytest.raises(Interrupted, match="stopped in piqa of base after 20 of 30 items"):
        execute("evaluate", config, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "eval" / "base" / "copa.json").is_file()
    asked.clear()
    result = execute("evaluate", config, tmp_path / "run", quiet=True)
    assert asked == [10]
    assert result["tasks"]["base"]["piqa"]["n"] == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing to measure"),
        ({"tasks": ["piqqa"]}, "did you mean piqa"),
        ({"suite": "recal"}, "suite: 'recal' is none of"),
        ({"tasks": ["gsm8k"], "shots": 9}, "gsm8k has 8 solved examples, not 9"),
        ({"shards": "x", "limit": 3}, "limit has no effect"),
        ({"shards": "x", "data": "y"}, "data has no effect"),
        ({"suite": "recall", "lengths": []}, "lengths"),
        ({"tasks": ["piqa"], "limit": 0}, "limit"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings("runs/base", **changes)
    assert message in str(caught.value)


def test_all_that_is_wrong_with_tasks_is_told_at_once(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "mute", None)
    path = data / TASKS.get("copa").files
    path.write_text(path.read_text().split("\n", 1)[1])
    models = {"base": str(model), "mute": str(tmp_path / "mute")}
    config = settings(
        models, tasks=["copa", "lambada", "piqa"], suite="recall", data=str(data), lengths=[64, 512]
    )
    with pytest.raises(InputError) as caught:
        get_verb("evaluate").plan(config)
    told = "\n".join(caught.value.problems)
    for words in (
        "copa.jsonl has 99 items, the public set 100",
        "lambada_openai.jsonl is missing",
        "models.mute: ",
        "no tokenizer.json",
        "models.base: lengths: 512 tokens are more than its max_positions 256",
    ):
        assert words in told
    assert "piqa" not in told.replace(str(tmp_path), "")
    monkeypatch.delenv("REGROW_DATA", raising=False)
    with pytest.raises(InputError, match="set REGROW_DATA"):
        get_verb("evaluate").plan(settings(models, tasks=["piqa"]))


def test_the_listing_has_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--list"])
    table = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in table[1:] if not row.startswith("suite")] == TASKS.names()
    assert any(row.split()[:4] == ["hellaswag", "acc_norm", "10,042", "0.25"] for row in table)
    with pytest.raises(SystemExit):
        main(["evaluate", "--list", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["tasks"]["gsm8k"]["shots"] == 5
    assert found["suites"]["recall"] == list(SUITES["recall"])
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--list"])
    assert ended.value.code == 2
