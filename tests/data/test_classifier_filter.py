"""The step classifier: what it learns, what it keeps, and when it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from regrow.core.errors import ConfigError, InputError, RunError
from regrow.data import engine
from regrow.data.attributes import open_classifier, reopened
from regrow.data.attributes.linear import train
from regrow.data.config import CurateConfig
from regrow.data.steps.classifier import ClassifierFilter, lowest_kept

_GOOD = ("the", "proof", "follows", "from", "lemma", "which", "holds", "for", "every", "number")
_BAD = ("buy", "now", "cheap", "offer", "click", "here", "win", "prize", "free", "deal")


def text(seed: int, words: tuple[str, ...], count: int = 60) -> str:
    return " ".join(np.random.default_rng(seed).choice(words, count).tolist())


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``good.jsonl``, ``bad.jsonl`` and ``same.jsonl``, which is good text as well."""
    root = tmp_path_factory.mktemp("examples")
    for name, words, first in (("good", _GOOD, 0), ("bad", _BAD, 100), ("same", _GOOD, 200)):
        lines = [json.dumps({"text": text(first + i, words)}) for i in range(40)]
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    return root


def configured(**settings: Any) -> CurateConfig:
    """Settings as they come from a file."""
    given = {"steps": ["classifier", "split"], "classifier": settings}
    return CurateConfig.model_validate_json(json.dumps(given, default=str))


def rows(good: int, bad: int, kind: str = "prose") -> list[dict[str, str]]:
    texts = {f"good{i}": text(1000 + i, _GOOD) for i in range(good)}
    texts |= {f"bad{i}": text(2000 + i, _BAD) for i in range(bad)}
    return [{"id": id, "text": content, "kind": kind} for id, content in texts.items()]


def run(table: list[dict[str, str]], folder: Path, **settings: Any) -> Any:
    """Verdict by id, score by id, exhibits, the step."""
    step = ClassifierFilter(configured(**settings))
    columns = {name: [one[name] for one in table] for name in ("id", *step.reads())}
    folder.mkdir()
    scores = engine.collected(step.score(engine.from_columns(columns), folder))
    verdict = {r["id"]: (r["reason"], r["value"]) for r in engine.rows(step.judge(scores, folder))}
    found = {r["id"]: r["classifier_score"] for r in engine.rows(scores)}
    return verdict, found, step.exhibits(scores, folder), step


def test_what_looks_like_the_positive_stays(examples: Path, tmp_path: Path) -> None:
    given = {"positive": [examples / "good.jsonl"], "negative": [examples / "bad.jsonl"]}
    verdict, scores, shown, step = run(rows(8, 12), tmp_path / "a", threshold=0.5, **given)
    assert {id for id, (reason, _) in verdict.items() if reason is None} == {
        f"good{i}" for i in range(8)
    }
    assert verdict["bad0"] == ("classifier_score below 0.5", scores["bad0"])
    assert step.per_document
    assert shown[0]["thresholds"] == [0.5]
    assert sum(shown[0]["counts"]) == 20
    figures = dict(shown[1]["rows"])
    assert figures["positive examples"] == figures["negative examples"] == 40
    assert figures["macro-F1, held out"] == 1.0
    assert figures["held out"] == 16
    # The scores are those of the classifier that lies beside them.
    model = open_classifier(tmp_path / "a")
    expected = model.probabilities([one["text"] for one in rows(8, 12)])[:, 1]
    np.testing.assert_array_equal(list(scores.values()), expected)


def test_a_share_is_kept(examples: Path, tmp_path: Path) -> None:
    given = {"positive": [examples / "good.jsonl"], "negative": [examples / "bad.jsonl"]}
    verdict, scores, shown, _ = run(rows(8, 12), tmp_path / "a", keep=0.25, **given)
    kept = {id for id, (reason, _) in verdict.items() if reason is None}
    assert kept == set(sorted(scores, key=scores.__getitem__)[-5:])
    assert verdict["bad0"][0] == "classifier_score not in the highest 25 %"
    assert shown[0]["thresholds"] == [min(scores[id] for id in kept)]


def test_without_negative_examples_the_documents_serve(examples: Path, tmp_path: Path) -> None:
    given = {"positive": [examples / "good.jsonl"], "keep": 0.1}
    verdict, scores, _, step = run(rows(6, 60), tmp_path / "a", **given)
    assert not step.per_document
    good = [score for id, score in scores.items() if id.startswith("good")]
    assert min(good) > max(score for id, score in scores.items() if id.startswith("bad"))
    assert sum(reason is None for reason, _ in verdict.values()) == 7


def test_code_is_left_alone_unless_asked(examples: Path, tmp_path: Path) -> None:
    given = {"positive": [examples / "good.jsonl"], "negative": [examples / "bad.jsonl"]}
    verdict, scores, _, _ = run(rows(1, 3, "code"), tmp_path / "a", threshold=0.5, **given)
    assert set(verdict.values()) == {(None, None)}
    assert set(scores.values()) == {None}
    verdict, _, _, _ = run(rows(1, 3, "code"), tmp_path / "b", threshold=0.5, code=True, **given)
    assert sum(reason is not None for reason, _ in verdict.values()) == 3


def test_a_model_that_is_there_already(tmp_path: Path) -> None:
    texts = [text(i, words) for words in (_GOOD, _BAD) for i in range(20)]
    model = train(texts, ["High"] * 20 + ["Low"] * 20)
    model.save(tmp_path / "model")
    given = {"model": tmp_path / "model", "threshold": 0.5}
    verdict, scores, shown, _ = run(rows(3, 3), tmp_path / "a", label="Low", **given)
    expected = model.probabilities([one["text"] for one in rows(3, 3)])[:, 1]
    np.testing.assert_allclose(list(scores.values()), expected, atol=1e-12)
    assert {id for id, (reason, _) in verdict.items() if reason} == {"good0", "good1", "good2"}
    assert len(shown) == 1
    with pytest.raises(InputError, match=r"'High ' is no class of .*, did you mean High\?"):
        ClassifierFilter(configured(label="High ", **given))
    name = open_classifier(tmp_path / "model").id
    assert reopened(tmp_path / "model", name) is reopened(tmp_path / "model", name)
    with pytest.raises(RunError, match="changed while it was in use, from linear-0 to linear-"):
        reopened(tmp_path / "model", "linear-0")


def test_a_classifier_that_cannot_tell_is_refused(examples: Path, tmp_path: Path) -> None:
    given = {"positive": [examples / "good.jsonl"], "negative": [examples / "same.jsonl"]}
    with pytest.raises(InputError, match=r"macro-F1 of 0\.\d+ on 16 held-out .*min_macro_f1 0\.99"):
        run(rows(2, 2), tmp_path / "a", threshold=0.5, min_macro_f1=0.99, **given)
    few = tmp_path / "few.txt"
    few.write_text("one")
    with pytest.raises(InputError, match="1 positive and 40 negative examples"):
        run(rows(2, 2), tmp_path / "b", threshold=0.5, **(given | {"positive": [few]}))


def test_a_book_is_many_examples(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(text(5, _GOOD, 6000))
    given = {"positive": [tmp_path / "book.txt"], "negative": [examples / "bad.jsonl"]}
    _, scores, shown, _ = run(rows(3, 3), tmp_path / "a", threshold=0.5, **given)
    assert dict(shown[1]["rows"])["positive examples"] >= 15
    assert min(scores[f"good{i}"] for i in range(3)) > max(scores[f"bad{i}"] for i in range(3))


def test_key_holds_examples_and_no_threshold(examples: Path) -> None:
    def key(**settings: Any) -> Any:
        return ClassifierFilter(configured(**settings)).key()

    given = {"positive": [examples / "good.jsonl"], "negative": [examples / "bad.jsonl"]}
    assert key(**given, keep=0.5) == key(**given, threshold=0.1)
    assert key(**given, keep=0.5) != key(**given | {"negative": []}, keep=0.5)


def test_at_least_the_share_is_kept() -> None:
    values = np.random.default_rng(0).permutation(np.arange(10.0))
    for share, kept in ((0.1, 1), (0.11, 2), (0.5, 5), (0.99, 10)):
        assert np.count_nonzero(values >= lowest_kept(values, share)) == kept
    assert lowest_kept(np.ones(10), 0.1) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.1, "threshold": 0.5}, "set one of them"),
        ({"model": "a", "positive": ["b"], "label": "x"}, "positive: has no effect with model"),
        ({"model": "a"}, "label: say which class"),
        ({"label": "x"}, "has no effect without model"),
        ({"negative": ["b"]}, "set positive as well"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        configured(**settings)
    assert message in str(raised.value)


def test_what_is_missing_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    with pytest.raises(ConfigError, match=r"set classifier\.positive"):
        ClassifierFilter(configured(keep=0.1))
    with pytest.raises(ConfigError, match=r"set keep .* or threshold"):
        ClassifierFilter(configured(positive=[tmp_path / "a.txt"]))
    with pytest.raises(InputError, match=r"classifier\.negative: .*nowhere"):
        ClassifierFilter(
            configured(positive=[tmp_path / "a.txt"], negative=[tmp_path / "nowhere"], keep=0.1)
        )
