"""The linear classifier against scikit-learn, on disk against damage, and on labelled text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments.curate import labelled
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from sklearn.utils.class_weight import compute_sample_weight

from regrow.core.errors import InputError
from regrow.data.attributes import match_labels, open_classifier
from regrow.data.attributes.features import Hashing
from regrow.data.attributes.linear import LinearClassifier, drawn_from_each, train
from regrow.data.attributes.measures import (
    Calibration,
    calibration_error,
    evaluate,
    fit_calibration,
    negative_log_likelihood,
    softmax,
)
from regrow.data.attributes.windows import in_windows

WORDS = {
    "plant": "leaf root stem flower seed tree moss",
    "stone": "rock granite slate basalt pebble cliff ore",
    "water": "river lake rain wave sea drop ice",
}


def made_up(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of eight words, six of their class and two of any."""
    random = np.random.Generator(np.random.PCG64(seed))
    every = " ".join(WORDS.values()).split()
    labels = [list(WORDS)[i % 3] for i in range(count)]
    texts = [
        " ".join([*random.choice(WORDS[label].split(), 6), *random.choice(every, 2)])
        for label in labels
    ]
    return texts, labels


@pytest.fixture(scope="module")
def classifier() -> LinearClassifier:
    return train(*made_up(120), hashing=Hashing(1 << 12))


def test_weights_are_those_of_scikit_learn(classifier: LinearClassifier) -> None:
    texts, labels = made_up(120)
    matrix = Hashing(1 << 12).matrix(texts)
    model = LogisticRegression(C=30.0, max_iter=500).fit(matrix, labels)
    new, _ = made_up(40, seed=9)
    expected = model.decision_function(Hashing(1 << 12).matrix(new))
    np.testing.assert_allclose(classifier.logits(new), expected, atol=2e-3)
    assert classifier.labels == tuple(model.classes_)


def test_rare_classes_and_long_texts_weigh_as_others() -> None:
    texts, labels = made_up(120)
    keep = [i for i, label in enumerate(labels) if label != "stone" or i % 15 == 1]
    texts, labels = [texts[i] for i in keep], [labels[i] for i in keep]
    texts[0] = "leaf root tree " * 900  # several windows
    hashing = Hashing(1 << 12)
    pieces, counts = in_windows(texts)
    assert counts[0] == 3
    owner = np.repeat(np.arange(len(texts)), counts)
    balance = compute_sample_weight("balanced", labels)
    model = LogisticRegression(C=30.0, max_iter=500).fit(
        hashing.matrix(pieces),
        np.array(labels)[owner],
        sample_weight=(balance / counts)[owner],
    )
    new, _ = made_up(40, seed=9)
    expected = model.decision_function(hashing.matrix(new))
    plain = LogisticRegression(C=30.0, max_iter=500).fit(hashing.matrix(texts), labels)
    found = train(texts, labels, hashing=hashing).logits(new)
    np.testing.assert_allclose(found, expected, atol=3e-3)
    assert np.abs(plain.decision_function(hashing.matrix(new)) - found).max() > 0.1


def test_two_classes_are_symmetric() -> None:
    texts, labels = made_up(60)
    labels = ["stone" if label == "stone" else "other" for label in labels]
    two = train(texts, labels, hashing=Hashing(1 << 12), order=("stone", "other"))
    np.testing.assert_allclose(two.weights[:, 0], -two.weights[:, 1])
    found = two.probabilities(["slate basalt granite", "leaf rain"])
    assert found[0, 0] > 0.9 > 0.1 > found[1, 0]
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_equal_arguments_give_equal_files(tmp_path: Path, classifier: LinearClassifier) -> None:
    again = train(*made_up(120), hashing=Hashing(1 << 12))
    for name, one in (("a", classifier), ("b", again)):
        one.save(tmp_path / name)
    for file in ("classifier.json", "classifier.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = LinearClassifier.load(tmp_path / "a")
    texts, _ = made_up(30, seed=3)
    np.testing.assert_array_equal(loaded.probabilities(texts), classifier.probabilities(texts))
    assert loaded.id == LinearClassifier.load(tmp_path / "b").id
    assert loaded.id.startswith("linear-")
    other = train(*made_up(120, seed=1), hashing=Hashing(1 << 12)).save(tmp_path / "c")
    assert LinearClassifier.load(other).id != loaded.id


def test_a_row_depends_on_its_text_alone(classifier: LinearClassifier) -> None:
    texts = [*made_up(20, seed=4)[0], "leaf rock " * 2000, "", "unknown"]
    together = classifier.probabilities(texts)
    alone = np.concatenate([classifier.probabilities([text]) for text in texts])
    np.testing.assert_array_equal(together, alone)
    assert np.isfinite(together).all()


def test_a_long_text_has_the_mean_of_its_windows(classifier: LinearClassifier) -> None:
    parts = [("leaf root " * 300)[:2048], ("rock slate " * 300)[:2047], ("river sea " * 300)[:2048]]
    text = "".join(parts)
    expected = classifier.logits([text[:2048], text[2048:4095], text[-2048:]]).mean(axis=0)
    np.testing.assert_allclose(classifier.logits([text])[0], expected, atol=0.05)


def tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = load_file(folder / "classifier.safetensors")
        change(found)
        save_file(found, folder / "classifier.safetensors")

    return damage


def record(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = json.loads((folder / "classifier.json").read_text())
        change(found)
        (folder / "classifier.json").write_text(json.dumps(found))

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (
        lambda f: (
            (f / "classifier.safetensors").write_bytes(
                (f / "classifier.safetensors").read_bytes()[:-5]
            )
            and None
        ),
        "truncated or broken",
    ),
    "no weights": (lambda f: (f / "classifier.safetensors").unlink(), "cannot be read"),
    "header of a petabyte": (
        lambda f: (
            (f / "classifier.safetensors").write_bytes(b"\xff" * 7 + b"\x00" + b"{}") and None
        ),
        "truncated or broken",
    ),
    "pickle": (
        lambda f: (f / "classifier.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.") and None,
        "truncated or broken",
    ),
    "other shape": (tensors(lambda t: t.update(bias=np.zeros(9, np.float32))), "holds"),
    "other dtype": (tensors(lambda t: t.update(bias=np.zeros(3))), "holds"),
    "extra tensor": (tensors(lambda t: t.update(extra=np.zeros(3))), "holds"),
    "not rising": (tensors(lambda t: t["buckets"].__setitem__(0, 4000)), "rising"),
    "bucket outside": (tensors(lambda t: t["buckets"].__setitem__(-1, 1 << 20)), "rising"),
    "not finite": (tensors(lambda t: t["weights"].__setitem__((0, 0), np.nan)), "not finite"),
    "no JSON": (lambda f: (f / "classifier.json").write_text("{") and None, "not valid JSON"),
    "other format": (record(lambda r: r.update(format="x")), "this regrow reads"),
    "newer": (record(lambda r: r.update(version=99)), "version 99"),
    "no labels": (record(lambda r: r.pop("labels")), "not a classifier's record"),
    "labels of numbers": (record(lambda r: r.update(labels=[1, 2, 3])), "labels that are no text"),
    "label twice": (record(lambda r: r.update(labels=["a", "a", "b"])), "stands twice"),
    "a billion buckets": (record(lambda r: r["hashing"].update(buckets=1 << 40)), "buckets"),
    "odd buckets": (record(lambda r: r["hashing"].update(buckets=1000)), "1000 buckets"),
    "long runs": (record(lambda r: r["hashing"].update(words=[10**9])), "runs of"),
    "infinite scale": (record(lambda r: r["calibration"].update(scale=1e300)), "calibration"),
    "many in use": (record(lambda r: r.update(buckets_in_use=1 << 60)), "in use"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_before_anything_large_is_read(
    kind: str, tmp_path: Path, classifier: LinearClassifier
) -> None:
    folder = classifier.save(tmp_path / "c")
    damage, said = DAMAGE[kind]
    damage(folder)
    with pytest.raises(InputError) as caught:
        LinearClassifier.load(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such path"):
        open_classifier(tmp_path / "none")
    with pytest.raises(InputError, match=r"no classifier there"):
        open_classifier(tmp_path)
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(InputError, match="exported no classifier"):
        open_classifier(tmp_path)


def test_a_runs_export_is_found(tmp_path: Path, classifier: LinearClassifier) -> None:
    classifier.save(tmp_path / "run" / "export")
    shutil.copytree(tmp_path / "run" / "export", tmp_path / "other")
    assert open_classifier(tmp_path / "run").id == open_classifier(tmp_path / "other").id


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"two classes.*there is 3 of a"):
        train(["x", "y", "z"], ["a"] * 3)
    with pytest.raises(InputError, match=r"1 of b"):
        train(["x", "y", "z"], ["a", "a", "b"])


def test_whole_groups_are_left_out() -> None:
    truth = np.array([0] * 50 + [1] * 50)
    names = [f"file {i // 5}" for i in range(100)]
    left = drawn_from_each(truth, 0.2, 3, names)
    assert left[:50].sum() == left[50:].sum() == 10
    by_group = {
        name: {bool(x) for n, x in zip(names, left, strict=True) if n == name} for name in names
    }
    assert all(len(found) == 1 for found in by_group.values())
    assert (left != drawn_from_each(truth, 0.2, 4, names)).any()
    lone = drawn_from_each(np.array([0, 0, 1, 1]), 0.2, 0)
    assert (lone[:2].sum(), lone[2:].sum()) == (1, 1)
    one_group = drawn_from_each(np.zeros(9, np.int64), 0.2, 0, ["same"] * 9)
    assert not one_group.any()


def test_figures_are_scikit_learns() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    probabilities = softmax(random.normal(size=(300, 4)))
    truth = random.integers(0, 3, 300)  # the fourth class never occurs
    found = evaluate(probabilities, truth, ["a", "b", "c", "d"])
    said = probabilities.argmax(axis=1)
    assert found["accuracy"] == accuracy_score(truth, said)
    assert found["confusion"] == confusion_matrix(truth, said, labels=range(4)).tolist()
    assert found["macro_f1"] == pytest.approx(
        f1_score(truth, said, labels=[0, 1, 2], average="macro")
    )
    assert list(found["f1"].values()) == pytest.approx(
        f1_score(truth, said, labels=range(4), average=None, zero_division=0)
    )
    low, high = found["macro_f1_interval"]
    assert low < found["macro_f1"] < high
    # Wider by about two where there are a quarter of the texts.
    fewer = evaluate(probabilities[:75], truth[:75], ["a", "b", "c", "d"])["macro_f1_interval"]
    assert 1.5 < (fewer[1] - fewer[0]) / (high - low) < 2.7
    assert found["log_loss"] == pytest.approx(log_loss(truth, probabilities, labels=range(4)))


def test_calibration_error_in_closed_form() -> None:
    # 80 % sure and right 6 times of 10, 60 % sure and right 6 of 10: the mean of 0.2 and 0.
    probabilities = np.array([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 10)
    truth = np.array(([0] * 6 + [1] * 4) * 2)
    error, rows = calibration_error(probabilities, truth, 10)
    assert error == pytest.approx(0.1)
    assert [row["accuracy"] for row in rows] == [0.6, 0.6]
    assert calibration_error(np.eye(2)[truth], truth)[0] == 0


def test_calibration_finds_the_temperature_that_was_taken_away() -> None:
    random = np.random.Generator(np.random.PCG64(5))
    logits = random.normal(size=(20_000, 5)) * 2
    drawn = (softmax(logits).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    found = fit_calibration(logits * 4, drawn)
    assert found.scale == pytest.approx(0.25, rel=0.05)
    assert found.shift == ()
    pair = logits[:, :2]
    biased = pair * 3 + np.array([1.5, -1.5])
    drawn = (random.random(20_000) > softmax(pair)[:, 0]).astype(np.int64)
    found = fit_calibration(biased, drawn)
    assert found.scale == pytest.approx(1 / 3, rel=0.06)
    np.testing.assert_allclose(
        found(biased)[:, 1] - found(biased)[:, 0], pair[:, 1] - pair[:, 0], atol=0.3
    )
    # A grid finds nothing better.
    best = negative_log_likelihood(found(biased), drawn)
    for scale in np.linspace(0.1, 0.8, 15):
        for shift in np.linspace(-1, 1, 9):
            other = Calibration(float(scale), (float(-shift), float(shift)))
            assert negative_log_likelihood(other(biased), drawn) >= best - 1e-6


def test_labels_are_matched_by_their_words() -> None:
    assert match_labels(["high", "LOW"], ["High", "Low"], {}, "x") == ["High", "Low"]
    assert match_labels(["online-comments"], ["Online Comments"], {}, "x") == ["Online Comments"]
    assert match_labels(["LABEL_1"], ["toxic"], {"LABEL_1": "toxic"}, "x") == ["toxic"]
    with pytest.raises(InputError, match=r"'LABEL_0' is none of the attribute's classes \(a, b\)"):
        match_labels(["LABEL_0"], ["a", "b"], {}, "x")
    with pytest.raises(InputError, match=r"names 'c', which is none of the classifier's"):
        match_labels(["a"], ["a"], {"c": "a"}, "x")
    with pytest.raises(InputError, match=r"two of its labels"):
        match_labels(["a", "b"], ["a"], {"b": "a"}, "x")


def test_toxicity_of_tweets(data_folder: Path) -> None:
    rows = labelled.davidson(data_folder)[:1800]
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    found = train(texts[:1400], labels[:1400], order=("not toxic", "toxic"))
    truth = np.array([found.labels.index(label) for label in labels[1400:]])
    figures = evaluate(found.probabilities(texts[1400:]), truth, found.labels)
    assert figures["macro_f1"] > 0.8 > 0.5 > figures["majority"]["macro_f1"]
    assert figures["ece"] < 0.06


def test_domain_of_questions(data_folder: Path) -> None:
    questions = labelled.clinc(data_folder)
    rows = [row for row in questions if row.source == "val"][::2]
    test = [row for row in questions if row.source == "test"][::5]
    found = train([row.text for row in rows], [row.label for row in rows])
    assert len(found.labels) == 10
    truth = np.array([found.labels.index(row.label) for row in test])
    figures = evaluate(found.probabilities([row.text for row in test]), truth, found.labels)
    assert figures["macro_f1"] > 0.8
    assert figures["ece"] < 0.08
