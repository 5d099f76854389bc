"""The experiment on attribute classifiers still runs, at a size of seconds, on the real sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.curate import attributes, labelled
from experiments.curate.labelled import Text
from experiments.results import read


def test_weak_labels_spread_over_files(data_folder: Path) -> None:
    texts = labelled.weak(data_folder, {"a": ("Moby-Dick",), "b": ("tweets", "Wikipedia")}, 30)
    assert [sum(t.source == s for t in texts) for s in ("Moby-Dick", "tweets", "Wikipedia")] == [
        30
    ] * 3
    assert len({t.file for t in texts if t.source == "Moby-Dick"}) == 30
    assert {t.label for t in texts if t.source == "tweets"} == {"b"}
    assert not any("<p" in t.text for t in texts)


def test_pieces_are_whole_lines() -> None:
    text = "".join(f"line {i}\n" for i in range(500))
    found = list(labelled.pieces(text, 400))
    assert all(400 <= len(piece) < 420 for piece in found[:-1])
    assert "\n".join(found) == text.strip()
    assert list(labelled.pieces("short", 400)) == []


def test_the_last_origin_of_a_class_is_only_measured() -> None:
    classes = {"a": ("one", "two"), "b": ("three", "four"), "c": ("five",)}
    words = {"one": "x y", "two": "x z", "three": "p q", "four": "p r", "five": "m n"}
    texts = [
        Text(f"{words[origin]} {i}", label, origin, "")
        for label, origins in classes.items()
        for origin in origins
        for i in range(20)
    ]
    found = attributes.by_origin(texts, classes, 0)
    assert (found["trained"], found["texts"], found["classes"]) == (60, 40, 3)
    assert found["macro_f1"] > 0.9


@pytest.mark.slow
def test_arms_run_once_and_noise_is_refused(data_folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    attributes.run(data_folder, results, seeds=1, most=600)
    records = {record["arm"]: record for record in read(results)}
    assert list(records) == list(attributes.arms(data_folder, 60))
    assert records["speech, labels shuffled"]["refused"]
    assert records["toxicity, labels shuffled"]["refused"]
    gold = records["toxicity, tweets"]
    assert not gold["refused"]
    assert gold["macro_f1"] > gold["majority_macro_f1"] + 0.2
    assert records["speech (weak), other files"]["held_out_by"] == "file"
    attributes.run(data_folder, results, seeds=1, most=600)
    assert len(read(results)) == len(records)
    assert attributes.table(read(results)).count("\n") == len(records) + 1
