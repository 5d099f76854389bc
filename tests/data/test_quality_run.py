"""The steps that judge quality, in whole runs of ``curate``."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.data.test_perplexity import scrambled, sentences
from tests.data.test_workers import digest, made

STEPS = "steps=[exact, filter, perplexity, classifier, split]"
WHERE = "perplexity.target.where=words > 150"


def write_pool(folder: Path, files: int, seed: int) -> Path:
    """Good and scrambled records, the same for any number of files and any seed."""
    records = [{"id": f"g{i}", "text": sentences(i, 20 + i % 20)} for i in range(120)]
    records += [{"id": f"s{i}", "text": scrambled(i, 20)} for i in range(20)]
    random.Random(seed).shuffle(records)
    folder.mkdir()
    for number in range(files):
        lines = "\n".join(map(json.dumps, records[number::files]))
        (folder / f"{number}.jsonl").write_text(lines + "\n")
    return folder


@pytest.mark.slow
def test_models_of_the_pool_are_the_same_for_any_files_and_workers(tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text(sentences(999, 2000))
    words = [
        STEPS,
        WHERE,
        f"classifier.positive=[{good}]",
        "classifier.keep=0.5",
        "filter.rules={common_words: null, boilerplate_lines: null, repeated_5gram: null}",
    ]
    one = made(write_pool(tmp_path / "a", 3, 1), tmp_path / "one", *words, "engine.workers=1")
    two = made(write_pool(tmp_path / "b", 7, 2), tmp_path / "two", *words, "engine.workers=2")
    assert one == two == digest(tmp_path / "one")
    steps = json.loads((tmp_path / "one" / "documents" / "manifest.json").read_text())["steps"]
    dropped = {step["step"]: sum(step["dropped"].values()) for step in steps}
    assert all(dropped[name] for name in ("filter", "perplexity", "classifier"))
    assert all(step["in"] == step["out"] + sum(step["dropped"].values()) for step in steps)
    table = pq.read_table(tmp_path / "one" / "documents" / "train.parquet")
    assert {"words", "ppl", "classifier_score"} <= set(table.column_names)
