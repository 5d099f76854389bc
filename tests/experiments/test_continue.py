"""The continuation experiment still runs, at a size of seconds, and reads its results rightly."""

from __future__ import annotations

import importlib
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.core.config import load_config
from regrow.data.shards import ShardSet
from regrow.io.tokenizer import Tokenizer
from regrow.model.folder import load
from regrow.train.config import ContinueConfig

# "continue" is a keyword: no import statement can name the folder.
arms: Any = importlib.import_module("experiments.continue.arms")
prepare: Any = importlib.import_module("experiments.continue.prepare")
questions: Any = importlib.import_module("experiments.continue.questions")
report: Any = importlib.import_module("experiments.continue.report")
run: Any = importlib.import_module("experiments.continue.run")
score: Any = importlib.import_module("experiments.continue.score")
text: Any = importlib.import_module("experiments.continue.text")

PAGE = """<html xmlns="http://www.w3.org/1999/xhtml"><body><h2>{0}</h2>
<p>It was the <em>{0}</em>\tof times.</p>
<blockquote><p>Call me {0}.</p></blockquote></body></html>"""
TESTAMENT = """<cesDoc><text><div id="b.MAT" type="book">{}</div></text></cesDoc>"""
CHAPTER = """<div id="b.MAT.{0}" type="chapter"><seg type="verse">Verse {0} one</seg>
<seg type="verse">Verse {0}
 two</seg></div>"""


def _data(folder: Path) -> Path:
    """A data folder of the public layout, with a few items written for this test."""
    book = folder / "books-standard-ebooks" / "a-book"
    book.mkdir(parents=True)
    for number in range(12):
        (book / f"chapter-{number}.xhtml").write_text(PAGE.format(f"chapter {number}"))
    (book / "colophon.xhtml").write_text(PAGE.format("nothing to read"))
    (folder / "nltk-public-domain").mkdir()
    for corpus in ("genesis", "inaugural", "state_union"):
        path = folder / "nltk-public-domain" / f"{corpus}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("german", "english-kjv") if corpus == "genesis" else ("a", "b", "c", "d"):
                lines = "\n".join(f"{corpus} {name} line {i}, für alle" for i in range(200))
                raw = lines.encode("latin-1" if name == "a" else "utf-8")
                archive.writestr(f"{corpus}/{name}.txt", raw)
    (folder / "bible-nt-8-languages").mkdir()
    chapters = "".join(CHAPTER.format(i) for i in range(1, 9))
    (folder / "bible-nt-8-languages/Zulu-NT.xml").write_text(TESTAMENT.format(chapters))
    (folder / "tatoeba-laser").mkdir()
    for language in ("deu", "eng"):
        lines = "".join(f"{language} sentence {i}\n" for i in range(120))
        (folder / f"tatoeba-laser/tatoeba.deu-eng.{language}").write_text(lines)
    return folder


SIZE = prepare.Size(
    vocab=400,
    hidden=32,
    layers=1,
    sequence=16,
    base_batch=64,
    batch=32,
    ladder=(1024, 2048),
    continued=0.5,
    score_tokens=128,
    max_bytes={"code": 400_000, "packages": 60_000, "reference": 30_000},
)


def test_text_is_cut_so_that_every_language_is_on_every_side(tmp_path: Path) -> None:
    counts = text.write_sources(_data(tmp_path / "data"), tmp_path / "text")
    assert counts == {"books": 12, "speeches": 8, "languages": 5 + 8 + 3}
    chapter = (tmp_path / "text/books/a-book-chapter-3.txt").read_text()
    assert chapter == "chapter 3\nIt was the chapter 3 of times.\nCall me chapter 3.\n"
    verses = (tmp_path / "text/languages/testament-zulu-mat-4.txt").read_text()
    assert verses == "Verse 4 one\nVerse 4 two\n"
    assert "für" in (tmp_path / "text/speeches/inaugural-a.txt").read_text()
    assert not list((tmp_path / "text/languages").glob("*eng*"))


CODE = '''
def shout(words, *, loud=True):
    """Return the words in capitals. Then more.

    And more still."""

class Bell:
    """A bell that rings when it is hit"""
    def ring(self): "Ring the bell once."
    def __len__(self): "Length of the bell in metres."
    def stop(self): "Stop."
'''


def test_pairs_are_names_with_signatures_and_first_sentences() -> None:
    found = [(p.question, p.answer) for p in questions.pairs("hall.bells", CODE)]
    assert found == [
        (
            "Question: what does hall.bells.shout(words, *, loud=True) do?\nAnswer:",
            "Return the words in capitals.",
        ),
        (
            "Question: what is the class hall.bells.Bell?\nAnswer:",
            "A bell that rings when it is hit",
        ),
        ("Question: what does hall.bells.Bell.ring(self) do?\nAnswer:", "Ring the bell once."),
    ]
    assert list(questions.pairs("broken", "def f(:")) == []


def test_an_answer_is_never_on_two_sides() -> None:
    pair = questions.Pair
    by_split = {
        "test": [pair("c", "q4", "Return  it."), pair("c", "q5", "New here.")],
        "train": [pair("a", "q1", "Return it."), pair("b", "q2", "return it")],
        "validation": [pair("b", "q1", "Another one.")],
    }
    kept = questions.unique(by_split)
    assert [[p.question for p in kept[s]] for s in questions.SPLITS] == [["q1"], [], ["q5"]]


def test_choices_hold_the_answer_once_among_others_of_its_kind() -> None:
    found = [
        questions.Pair("m", f"Question: what {kind} x{i}\nAnswer:", f"{kind} answer {i}")
        for i in range(9)
        for kind in ("does", "is")
    ]
    made = questions.choices(found, 0)
    assert len(made) == 18
    assert made == questions.choices(found, 0)
    for pair, choice in zip(found, made, strict=True):
        assert choice.options[choice.right] == pair.answer
        assert len(set(choice.options)) == 4
        assert all(o.split()[0] == pair.answer.split()[0] for o in choice.options)
    assert len({choice.right for choice in made}) == 4


def test_arms_differ_in_what_they_are_about_and_in_nothing_else(tmp_path: Path) -> None:
    from regrow.core import atomic

    (tmp_path / "base").mkdir()
    record = {"min_lr": 3e-4, "lr": 3e-3, "tokens": 10_240_000}
    atomic.write_json(tmp_path / "base/training_schedule.json", record)
    size = prepare.Size()
    configs = {
        name: load_config(
            ContinueConfig, base=arms.settings(name, 1, tmp_path / "base", tmp_path, size)
        )
        for name in arms.KINDS
    }
    assert {name for group in arms.ORDER for name in group} == set(configs)
    first = configs["b"]
    assert first.train.tokens == 2_048_000
    assert first.optim.min_ratio == 0.01
    until = {n: c.data.phases[0].until for n, c in configs.items()}
    assert {n: u.lr_fraction for n, u in until.items() if u} == {
        "b": 0.2, "d": 0.2, "e2": 0.5, "e10": 0.1, "e50": 0.02,
    }  # fmt: skip
    for config in configs.values():
        assert (config.train, config.seed) == (first.train, 1)
        assert config.data.replace(phases=()) == first.data.replace(phases=())
        assert all(sum(p.weights.values()) == pytest.approx(100) for p in config.data.phases)
    assert configs["d"].optim.start == 3e-3
    assert {c.optim.start for n, c in configs.items() if n != "d"} == {"pretrain_min"}
    assert configs["c"].data.phases[0].weights["questions"] == 25
    assert "questions" not in configs["a2"].data.phases[0].weights
    assert configs["a"].optim.schedule == "constant"
    assert arms.due({("a2", 0)}, ["a2", "b", "c"], 2) == [
        ("b", 0), ("a2", 1), ("b", 1), ("c", 0), ("c", 1),
    ]  # fmt: skip


def _result(arm: str, seed: int, **figures: float) -> dict[str, Any]:
    scores = dict.fromkeys(report.FIGURES, 1.0) | figures
    base = {"tokens": 5, "last_quarter_gain": 0.01, "saturated": True}
    return {
        "arm": arm,
        "seed": seed,
        "base": base,
        "scores": {"test": scores, "validation": scores},
    }


def test_a_bound_that_does_not_hold_is_said_in_the_first_line() -> None:
    assert report.verdict([]).startswith("**Not measured yet:**")
    good = [
        _result(arm, seed, qa_text=qa + seed, mean=m)
        for seed in range(3)
        for arm, qa, m in (("a2", 2.0, 1.0), ("b", 1.7, 0.9))
    ]
    assert report.verdict(good).startswith("**The required bounds hold** over 3 seeds")
    assert report.interval(report.apart(good, "b", "a2", "qa_text")) == pytest.approx(0, abs=1e-9)
    worse = [
        _result(r["arm"], r["seed"], **r["scores"]["test"] | {"code": 1 + 0.1 * (r["arm"] == "b")})
        for r in good
    ]
    assert "do not hold (code)** over 3 seeds" in report.verdict(worse)
    reverse = [*good, _result("base", 0, mean=1.1), *(_result("c", s, mean=0.5) for s in range(3))]
    assert "differs from the paper's: c is better than b" in report.verdict(reverse)
    assert "the last quarter" in report.verdict(reverse)
    worse = [*good, _result("base", 0, mean=0.95)]
    assert "training longer on blend A made the base worse" in report.verdict(worse)
    longer = [r | {"base": r["base"] | {"tokens": 6}} for r in good]
    assert report.of_one_base([*good, *longer]) == longer
    assert report.of_one_base([*good, longer[0]]) == good, "a base without its recipe yet"
    # Student's t for two degrees of freedom.
    assert report.interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))


def test_the_whole_experiment_at_its_smallest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    given = (tmp_path / "work", _data(tmp_path / "data"), results, ["a2", "b", "c"], 1, SIZE)
    run.run(*given)
    lines = results.read_text().splitlines()
    # A kill in the middle of a line costs that line's scoring, not its training.
    results.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])
    run.run(*given)
    found = run.read(results)
    assert [(r["arm"], r["seed"]) for r in found] == [("base", 0), ("a2", 0), ("b", 0), ("c", 0)]
    assert found[-1] == json.loads(lines[-1])
    capsys.readouterr()
    run.run(*given)
    assert "a2" not in capsys.readouterr().out, "nothing is done twice"
    steps = {r["arm"]: (r["steps"], r["question_steps"]) for r in found[1:]}
    assert len({whole for whole, _ in steps.values()}) == 1
    assert steps["a2"][1] == 0 < steps["b"][1] < steps["c"][1] == steps["c"][0]
    report.write(found, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n| ") > 10
    _scores_are_those_of_a_plain_computation(tmp_path / "work", found)


def _scores_are_those_of_a_plain_computation(work: Path, found: list[dict[str, Any]]) -> None:
    base = next(work.glob(f"base-{found[0]['base']['tokens']}"))
    model, tokenizer = load(base / "export"), Tokenizer.load(work / "data/tokenizer")
    asked = prepare.questions(work)
    trained = ShardSet.open(work / "data", "train")["questions"]
    assert trained.num_documents == len(asked["train"])
    assert tokenizer.decode(trained.tokens[:].tolist()).startswith(asked["train"][0].text)
    whole = answers = count = answered = 0.0
    for pair in asked["test"]:
        ids = [tokenizer.end, *tokenizer.encode(pair.text)]
        start = len(tokenizer.encode(pair.question))
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([ids[:-1]]))[0].double(), -1)
        nats = -logs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        whole, count = whole + float(nats.sum()), count + len(nats)
        answers, answered = answers + float(nats[start:-1].sum()), answered + len(nats) - start - 1
    scores = found[0]["scores"]["test"]
    assert scores["qa_text"] == pytest.approx(whole / count, rel=1e-5)
    assert scores["qa_answer"] == pytest.approx(answers / answered, rel=1e-5)
    four = [scores[k] for k in ("en", "languages", "code", "qa_text")]
    assert scores["mean"] == pytest.approx(sum(four) / 4)
    assert 0 <= scores["choice"] <= 1
