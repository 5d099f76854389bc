"""The step ``attributes``: its columns, its tables, and what it refuses."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.data import engine
from regrow.data.attributes.kinds import ATTRIBUTES, probability_column
from regrow.data.attributes.linear import LinearClassifier, train
from regrow.data.config import CurateConfig
from regrow.data.settings.attributes import columns_without_classifier
from regrow.data.steps import STEPS
from regrow.data.steps.attributes import Attributes, _Tell

CLASSES = {
    "quality": {"High": "lucid proof", "Low": "spam casino"},
    "domain": {"Science": "atom cell", "Sports": "goal team"},
    "toxicity": {"not toxic": "kind thanks", "toxic": "idiot hate"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, classes in CLASSES.items():
        pairs = [(f"{words} {i}", label) for label, words in classes.items() for i in range(8)]
        folder = tmp_path_factory.mktemp(name) / "export"
        train([t for t, _ in pairs], [x for _, x in pairs], order=tuple(classes)).save(folder)
        made[name] = folder.parent
    return made


def step(**attributes: Any) -> Attributes:
    given = {
        name: value if isinstance(value, dict) else str(value) for name, value in attributes.items()
    }
    settings = {"steps": ["attributes", "split"], "attributes": given}
    config = load_config(CurateConfig, base=settings)
    return Attributes(config)


TEXTS = [
    "lucid proof atom cell kind",
    "spam casino goal idiot hate",
    "lucid team thanks",
    "",
    "hate",
]


def frame(texts: list[str] = TEXTS) -> engine.Frame:
    return engine.from_columns({"id": [f"d{i}" for i in range(len(texts))], "text": texts})


def test_columns_are_what_the_classifiers_say(folders: dict[str, Path], tmp_path: Path) -> None:
    made = step(**folders)
    scores = engine.collected(made.score(frame(), tmp_path))
    rows = {row["id"]: row for row in engine.rows(scores)}
    assert sorted(rows) == [f"d{i}" for i in range(len(TEXTS))]
    loaded = {name: LinearClassifier.load(path / "export") for name, path in folders.items()}
    for number, text in enumerate(TEXTS):
        row = rows[f"d{number}"]
        for name in ("quality", "domain"):
            expected = loaded[name].probabilities([text])[0]
            for label, value in zip(loaded[name].labels, expected, strict=True):
                assert row[probability_column(name, label)] == np.float32(value)
            assert row[name] == loaded[name].labels[int(expected.argmax())]
            assert row[f"{name}_classifier"] == loaded[name].id
        toxic = loaded["toxicity"].probabilities([text])[0, 1]
        assert row["toxicity"] == np.float32(toxic)
        assert row["toxicity_label"] == ("toxic" if toxic >= 0.5 else "not toxic")
        assert row["toxicity_bin"] == (
            "low" if toxic < 0.3 else "medium" if toxic < 0.6 else "high"
        )
    assert rows["d1"]["quality"] == "Low"
    assert rows["d1"]["toxicity_bin"] == "high"
    verdicts = engine.rows(made.judge(scores, tmp_path))
    assert len(verdicts) == len(TEXTS)
    assert all(v["reason"] is None and v["value"] is None for v in verdicts)


def test_scores_do_not_depend_on_the_company(folders: dict[str, Path], tmp_path: Path) -> None:
    made = step(**folders)
    together = {r["id"]: r for r in engine.rows(made.score(frame(TEXTS * 150), tmp_path))}
    alone = {r["id"]: r for r in engine.rows(made.score(frame(), tmp_path))}
    for name, row in alone.items():
        assert together[name] == row


def test_other_processes_tell_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    made = step(**folders)
    sent = pickle.dumps(_Tell(made.told))
    assert len(sent) < 20_000  # paths and names, no weights
    batch = pa.RecordBatch.from_pydict({"text": TEXTS})
    code = (
        "import pickle, sys, pyarrow as pa\n"
        "tell, texts = pickle.load(sys.stdin.buffer)\n"
        "found = tell(pa.RecordBatch.from_pydict({'text': texts}))\n"
        "plain = {k: [getattr(x, 'item', lambda x=x: x)() for x in v] for k, v in found.items()}\n"
        "sys.stdout.buffer.write(pickle.dumps(plain))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((_Tell(made.told), TEXTS)),
        capture_output=True,
        check=True,
    )
    here = {name: list(values) for name, values in _Tell(made.told)(batch).items()}
    assert pickle.loads(done.stdout) == here


def test_tables_count_every_document(folders: dict[str, Path], tmp_path: Path) -> None:
    made = step(**folders)
    scores = engine.collected(made.score(frame(), tmp_path))
    shown = {one["title"]: one for one in made.exhibits(scores, tmp_path)}
    rows = engine.rows(scores)
    counts = shown["quality by domain: documents"]
    assert counts["columns"] == ["quality", "Science", "Sports"]
    for row in counts["rows"]:
        for head, found in zip(counts["columns"][1:], row[1:], strict=True):
            assert found == sum(r["quality"] == row[0] and r["domain"] == head for r in rows)
    shares = shown["quality by domain: shares of a row"]
    for row, numbers in zip(shares["rows"], counts["rows"], strict=True):
        assert sum(row[1:]) == pytest.approx(1 if sum(numbers[1:]) else 0)
    for title in ("toxicity by domain", "toxicity by quality"):
        table = shown[f"{title}: documents"]["rows"]
        assert [row[0] for row in table] == ["low", "medium", "high"]
        assert sum(sum(row[1:]) for row in table) == len(TEXTS)
    assert not any("speech" in title for title in shown)
    toxic = shown["toxicity: probability"]
    assert sum(toxic["counts"]) == len(TEXTS)
    assert toxic["thresholds"] == [0.3, 0.6]


def test_the_key_changes_with_the_classifier_alone(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    copied = shutil.copytree(folders["quality"], tmp_path / "moved")
    assert step(quality=folders["quality"]).key() == step(quality=copied).key()
    pairs = [("a b", "High"), ("a c", "High"), ("d e", "Low"), ("d f", "Low")]
    other = train([t for t, _ in pairs], [x for _, x in pairs]).save(tmp_path / "other")
    assert step(quality=folders["quality"]).key() != step(quality=other).key()


def test_labels_may_be_named(folders: dict[str, Path], tmp_path: Path) -> None:
    pairs = [(f"good {i}", "LABEL_1") for i in range(5)] + [
        (f"bad {i}", "LABEL_0") for i in range(5)
    ]
    folder = train([t for t, _ in pairs], [x for _, x in pairs]).save(tmp_path / "named")
    with pytest.raises(InputError, match=r"attributes.quality: .*'LABEL_0' is none of"):
        step(quality=folder)
    made = step(quality={"path": str(folder), "labels": {"LABEL_0": "Low", "LABEL_1": "High"}})
    (row, *_) = engine.rows(made.score(frame(["good"]), tmp_path))
    assert row["quality"] == "High"
    with pytest.raises(InputError, match=r"'LABEL_0' is none of the attribute's"):
        step(toxicity=folder)
    own = step(tone=folder)  # an attribute of one's own has its classifier's classes
    (row, *_) = engine.rows(own.score(frame(["good"]), tmp_path))
    assert (row["tone"], row["tone_probability_label_1"] > 0.5) == ("LABEL_1", True)


def test_what_is_refused(tmp_path: Path) -> None:
    assert "attributes" in STEPS
    with pytest.raises(InputError, match="no such path"):
        step(quality=tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"unknown attribute 'qualiti', did you mean quality"):
        step(qualiti=tmp_path)
    with pytest.raises(ConfigError, match="names no classifier"):
        step()
    problems = columns_without_classifier(
        ["quality", "toxicity_bin", "source", "domain"], ["domain"]
    )
    assert len(problems) == 2
    assert "set attributes.toxicity" in problems[1]


def test_classes_are_those_of_the_paper() -> None:
    assert [len(found.classes) for found in ATTRIBUTES.values()] == [3, 26, 11, 2]
    columns = [probability_column("speech", label) for label in ATTRIBUTES["speech"].classes]
    assert len(set(columns)) == 11
    assert columns[0] == "speech_probability_product_company_organization_personal_websites"
