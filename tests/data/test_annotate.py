"""``curate annotate`` through execute: labels from a file, an endpoint that misbehaves, a model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, Interrupted, RunError
from regrow.data.attributes import open_classifier
from regrow.data.attributes.examples import even_shares, sample
from regrow.data.attributes.kinds import ATTRIBUTES, get_attribute
from regrow.data.attributes.linear import LinearClassifier
from regrow.data.attributes.prompt import Prompt
from regrow.data.jobs import annotate
from regrow.data.settings.annotate import AnnotateConfig
from regrow.grow.execute import execute
from regrow.io.endpoint import BudgetError, RefusedError
from regrow.io.jsonl import write_jsonl
from regrow.io.parquet import TableWriter
from tests.io.chat_server import Answer, completion, serving

GOOD = "careful lucid argument evidence conclusion"
BAD = "click buy cheap casino winner"
VERB = "curate annotate"
COLUMNS = pa.schema([(name, pa.string()) for name in ("id", "file", "text", "source")])


def text_of(number: int) -> tuple[str, str]:
    random = np.random.Generator(np.random.PCG64(number))
    label = "High" if number % 2 else "Low"
    words = (GOOD if label == "High" else BAD).split()
    return " ".join([*random.choice(words, 6), f"n{number}"]), label


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """160 documents of two sources in the training split, and one in test that must not be used."""
    folder = tmp_path / "corpus" / "documents"
    folder.mkdir(parents=True)
    rows = [
        {
            "id": f"{number:04d}",
            "file": f"f{number // 4}",
            "text": text_of(number)[0],
            "source": "web" if number < 150 else "rare",
        }
        for number in range(160)
    ]
    for name, part in (("train", rows), ("test", [{**rows[0], "id": "held"}])):
        with TableWriter(folder / f"{name}.parquet", COLUMNS) as writer:
            writer.write_rows(part)
    return tmp_path / "corpus"


def settings(**values: Any) -> AnnotateConfig:
    return load_config(AnnotateConfig, base={"attribute": "quality", "buckets": 4096, **values})


def judge(body: dict[str, Any]) -> str:
    """What a sensible model would reply."""
    text = body["messages"][1]["content"]
    return json.dumps({"label": "High" if any(w in text for w in GOOD.split()) else "Low"})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    pairs = [text_of(number) for number in range(120)]
    write_jsonl(file, ({"text": t, "label": x.lower()} for t, x in pairs))
    result = execute(VERB, settings(labels=str(file)), tmp_path / "run", quiet=True)
    assert result["labels"] == {"High": 60, "Low": 60}
    assert result["held_out"]["texts"] == 24
    assert result["trained_documents"] == 96
    assert result["held_out"]["macro_f1"] == 1
    assert result["held_out"]["majority"]["macro_f1"] < 0.4
    assert result["held_out_by"] == "text"
    made = open_classifier(tmp_path / "run")
    assert made.id == result["classifier"]
    assert made.probabilities([GOOD, BAD]).argmax(axis=1).tolist() == [0, 1]
    assert isinstance(made, LinearClassifier)
    assert made.facts["held_out"]["macro_f1"] == 1
    titles = [one["title"] for one in result["exhibits"]]
    assert any("taken for" in title for title in titles)
    again = execute(VERB, settings(labels=str(file)), tmp_path / "other", quiet=True)
    assert {k: v for k, v in again.items() if k not in ("run", "seconds")} == {
        k: v for k, v in result.items() if k not in ("run", "seconds")
    }


def test_labels_by_id_and_of_an_earlier_run(documents: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": f"{n:04d}", "label": text_of(n)[1], "by": "someone"} for n in range(100)
    ]
    rows.append({"id": "0101", "label": None, "error": "no reply"})
    write_jsonl(file, rows)
    result = execute(
        VERB, settings(labels=str(file), documents=str(documents)), tmp_path / "run", quiet=True
    )
    assert sum(result["labels"].values()) == 100
    assert result["held_out_by"] == "file"  # 25 files, each with both classes
    assert result["trained_documents"] % 4 == 0


def test_lines_that_cannot_be_used_are_all_told(tmp_path: Path, documents: Path) -> None:
    file = tmp_path / "labels.jsonl"
    good = json.dumps({"text": "a", "label": "High"})
    other = json.dumps({"text": "a", "label": "Low"})
    file.write_text(f'{good}\n{{"text": "b"}}\n{{"label": 1, "id": "x"}}\nnonsense\n{other}\n')
    with pytest.raises(InputError) as caught:
        annotate.plan(settings(labels=str(file)))
    message = str(caught.value)
    for line, said in ((2, "holds 'label'"), (3, "texts"), (4, "not JSON"), (5, "earlier line")):
        assert re.search(rf"labels.jsonl:{line}: .*{said}", message)
    file.write_text(json.dumps({"id": "nobody", "label": "High"}) + "\n")
    with pytest.raises(InputError, match=r"1 of 1 ids are no document .*'nobody'"):
        annotate.plan(settings(labels=str(file), documents=str(documents)))
    with pytest.raises(InputError, match="set documents"):
        annotate.plan(settings(labels=str(file)))
    file.write_text(json.dumps({"text": "a", "label": "Hihg"}) + "\n")
    with pytest.raises(InputError, match=r"'Hihg' is none of the attribute's, did you mean High"):
        annotate.plan(settings(labels=str(file)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "set exactly one (none is set)"),
        ({"labels": "x", "model": "y", "documents": "z"}, "labels and model is set"),
        ({"model": "y"}, "documents: model labels documents"),
        ({"labels": "x", "prompt": "p"}, "prompt: has no effect with labels"),
        ({"labels": "x", "buckets": 5000}, "set 4096 or 8192"),
        ({"labels": "x", "attribute": "qualty"}, "did you mean quality"),
        ({"labels": "x", "attribute": "My Kind"}, "lower-case"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert said in str(caught.value)


def test_an_endpoint_labels_and_a_killed_run_asks_nothing_twice(
    documents: Path, tmp_path: Path
) -> None:
    stop = 60

    def answer(number: int, body: dict[str, Any]) -> Answer:
        if number == 3:
            return Answer(b"", 500)
        if number == 5:
            return Answer(completion("I think it is high."))  # asked once more
        return Answer(b"gone", 404) if number == stop else Answer(completion(judge(body)))

    with serving(answer) as server:
        values = settings(
            documents=str(documents),
            sample=100,
            endpoint={"base_url": server.url, "model": "tiny", "concurrency": 3},
        )
        with pytest.raises(RefusedError, match="check base_url and model"):
            execute(VERB, values, tmp_path / "run", quiet=True)
        kept = (tmp_path / "run" / "labels.jsonl").read_bytes()
        assert 50 <= kept.count(b"\n") <= stop
        # Killed in the middle of a line: it counts as unlabelled, its reply is still on disk.
        (tmp_path / "run" / "labels.jsonl").write_bytes(kept[:-5])
        result = execute(VERB, values, tmp_path / "run", quiet=True)
        asked = len(server.requests)
    rows = lines(tmp_path / "run" / "replies.jsonl")
    assert len({row["request"] for row in rows}) == len(rows) == 101
    assert asked == 101 + 2  # 100 documents, one asked again, one 500, one 404
    labelled = {row["id"]: row for row in lines(tmp_path / "run" / "labels.jsonl")}
    assert len(labelled) == 100
    assert "held" not in labelled
    assert {record["by"] for record in labelled.values()} == {"endpoint tiny"}
    for name, record in labelled.items():
        assert record["label"] == text_of(int(name))[1]
    assert sum(int(name) >= 150 for name in labelled) == 10  # all of the rare source
    assert result["held_out"]["macro_f1"] > 0.9
    assert result["endpoint"]["cached"] >= 1
    system = server.requests[0]["messages"][0]["content"]
    assert all(meaning in system for meaning in ATTRIBUTES["quality"].definitions.values())
    assert server.requests[0]["temperature"] == 0


def test_a_budget_ends_the_run_and_the_same_command_goes_on(
    documents: Path, tmp_path: Path
) -> None:
    with serving(lambda n, body: Answer(completion(judge(body)))) as server:
        values = settings(
            documents=str(documents),
            sample=50,
            endpoint={"base_url": server.url, "model": "tiny", "max_requests": 30},
        )
        with pytest.raises(BudgetError, match="the same command goes on"):
            execute(VERB, values, tmp_path / "run", quiet=True)
        result = execute(VERB, values, tmp_path / "run", quiet=True)
        assert len(server.requests) == 50
    assert sum(result["labels"].values()) == 50


CHILD = """
import pathlib, sys
from regrow.core.config import load_config
from regrow.core.run import Run
from regrow.data.jobs import annotate
from regrow.data.settings.annotate import AnnotateConfig
values = load_config(AnnotateConfig, overrides=sys.argv[2:])
folder = pathlib.Path(sys.argv[1])
annotate.run(values, Run.claim(folder, "curate annotate", values, quiet=True))
"""


def test_a_kill_loses_at_most_what_is_under_way(documents: Path, tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return Answer(completion(judge(body)), before=lambda: time.sleep(0.01))

    with serving(answer) as server:
        values = {
            "documents": str(documents),
            "sample": 120,
            "endpoint": {"base_url": server.url, "model": "tiny", "concurrency": 2},
        }
        words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        words += ["attribute=quality", "buckets=4096"]
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "run"), *words])
        while len(server.requests) < 40:
            assert child.poll() is None
            time.sleep(0.005)
        child.kill()
        child.wait()
        result = execute(VERB, settings(**values), tmp_path / "run", quiet=True)
        sent = [body["messages"][1]["content"] for body in server.requests]
    assert sum(result["labels"].values()) == 120
    assert len(set(sent)) == 120
    assert len(sent) - 120 <= 2  # those that were under way
    whole = execute(
        VERB,
        settings(
            **{
                **values,
                "endpoint": None,
                "labels": str(tmp_path / "run" / "labels.jsonl"),
                "sample": None,
            }
        ),
        tmp_path / "other",
        quiet=True,
    )
    assert whole["held_out"] == result["held_out"]


def test_too_many_useless_replies_fail(documents: Path, tmp_path: Path) -> None:
    with serving(lambda n, body: Answer(completion("no"))) as server:
        values = settings(
            documents=str(documents),
            sample=50,
            endpoint={"base_url": server.url, "model": "tiny", "concurrency": 1},
        )
        with pytest.raises(RunError, match=r"6 of 50 documents got no label") as caught:
            execute(VERB, values, tmp_path / "run", quiet=True)
        assert len(server.requests) <= 2 * 9
    assert caught.value.exit_code == 3
    assert all(row["label"] is None for row in lines(tmp_path / "run" / "labels.jsonl"))


def test_ctrl_c_keeps_what_is_labelled(documents: Path, tmp_path: Path) -> None:
    from regrow.core.run import Run

    with serving(lambda n, body: Answer(completion(judge(body)))) as server:
        values = settings(
            documents=str(documents), sample=50, endpoint={"base_url": server.url, "model": "t"}
        )
        run = Run.claim(tmp_path / "run", VERB, values, quiet=True)
        run.stop_requested = True
        with pytest.raises(Interrupted, match=r"stopped with \d+ of 50"):
            annotate.run(values, run)
        run.release()
        assert 1 <= len(lines(tmp_path / "run" / "labels.jsonl")) < 50


def test_a_classifier_below_the_floor_is_not_exported(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    random = np.random.Generator(np.random.PCG64(0))
    labels = random.choice(["High", "Low"], 200).tolist()
    write_jsonl(file, ({"text": text_of(n)[0], "label": labels[n]} for n in range(200)))
    values = settings(labels=str(file), min_macro_f1=0.75)
    with pytest.raises(
        RunError, match=r"not exported: its macro-F1 .* below min_macro_f1 0.75"
    ) as caught:
        execute(VERB, values, tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run" / "export").exists()
    assert not (tmp_path / "run" / "result.json").exists()
    with pytest.raises(InputError, match="exported no classifier"):
        open_classifier(tmp_path / "run")


def test_rare_classes_are_left_out_and_one_class_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [{"text": text_of(n)[0], "label": text_of(n)[1]} for n in range(60)]
    rows += [{"text": f"between {n}", "label": "Medium"} for n in range(4)]
    write_jsonl(file, rows)
    result = execute(VERB, settings(labels=str(file)), tmp_path / "run", quiet=True)
    assert result["left_out"] == {"Medium": 4}
    assert result["classes"] == ["High", "Low"]
    write_jsonl(file, ({**row, "label": "High"} for row in rows))
    with pytest.raises(RunError, match="needs two classes"):
        execute(VERB, settings(labels=str(file)), tmp_path / "one", quiet=True)


def test_a_model_labels(documents: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [{"text": text_of(n)[0], "label": text_of(n)[1]} for n in range(1000, 1060)]
    write_jsonl(file, rows)
    execute(VERB, settings(labels=str(file)), tmp_path / "teacher", quiet=True)
    values = settings(documents=str(documents), model=str(tmp_path / "teacher"), sample=60)
    result = execute(VERB, values, tmp_path / "run", quiet=True)
    assert result["by"] == open_classifier(tmp_path / "teacher").id
    for row in lines(tmp_path / "run" / "labels.jsonl"):
        assert row["label"] == text_of(int(row["id"]))[1]
    with pytest.raises(InputError, match="no such path"):
        annotate.plan(settings(documents=str(documents), model=str(tmp_path / "none")))
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("classes: {High: a, Low: b}\n")
    with pytest.raises(ConfigError, match="prompt: has no effect"):
        annotate.plan(values.replace(prompt=str(prompt)))


def test_prompt_files(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("question: Which?\nclasses:\n  low: poor\n  High: fine\n")
    found = Prompt.read(file, get_attribute("quality"))
    assert found.classes == ("Low", "High")
    assert "Which?" in found.messages("text")[0]["content"]
    assert found.reply_schema()(label="Low").model_dump() == {"label": "Low"}
    with pytest.raises(ValueError, match="label"):
        found.reply_schema()(label="Medium")
    for text, said in (
        ("classes: {High: x}", "two or more"),
        ("classes: {High: x, Low: 3}", "two or more"),
        ("classes: {High: x, Best: y}", "'Best' is none"),
        ("- a", "a prompt file holds"),
        ("classes: {High: x, Low: y}\nvotes: 3", "nothing else"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            Prompt.read(file, get_attribute("quality"))
    with pytest.raises(InputError, match="name a prompt file"):
        Prompt.of(get_attribute("tone"))


def test_samples_are_even_over_sources_and_depend_on_ids_alone(documents: Path) -> None:
    assert even_shares({"a": 100, "b": 3, "c": 50}, 60) == {"b": 3, "c": 28, "a": 29}
    assert even_shares({"a": 2, "b": 3}, 60) == {"a": 2, "b": 3}
    folder = documents / "documents"
    first = sample(folder, 40, 0)
    assert sum(example.source == "rare" for example in first) == 10
    assert [e.id for e in first] == sorted(e.id for e in first)
    assert {e.id for e in sample(folder, 40, 1)} != {e.id for e in first}
    # The same rows in another order and with other rows of another source: the same sample.
    rows = [
        {
            "id": f"{n:04d}",
            "file": "f",
            "text": text_of(n)[0],
            "source": "web" if n < 150 else "rare",
        }
        for n in reversed(range(160))
    ]
    with TableWriter(folder / "train.parquet", COLUMNS) as writer:
        writer.write_rows(rows)
    assert [e.id for e in sample(folder, 40, 0)] == [e.id for e in first]
