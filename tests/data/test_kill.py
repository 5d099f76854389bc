"""Killed at any moment, the same command ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import write_corpus
from tests.data.test_tokenizer import TEXTS, documents, train_byte_level

HERE = Path(__file__).parent


def killed(verb: str, settings: dict[str, Any], root: Path, outputs: list[str], every: int) -> Any:
    made = subprocess.run(
        [
            sys.executable,
            str(HERE / "killer.py"),
            verb,
            json.dumps(settings),
            str(root),
            json.dumps(outputs),
            str(every),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_curate(tmp_path: Path) -> None:
    pytest.importorskip("daft")
    write_corpus(tmp_path / "one", 12)
    write_corpus(tmp_path / "two", 9)
    sources = [{"kind": "folder", "name": n, "path": str(tmp_path / n)} for n in ("one", "two")]
    settings = {"sources": sources, "steps": ["exact", "split"]}
    result = killed("curate", settings, tmp_path, ["documents"], every=1)
    assert result["kills"] >= 16
    assert len(result["digests"]) == 1
    assert result["leftovers"] == []


def test_tokenize(tmp_path: Path) -> None:
    train_byte_level(iter(TEXTS), 300).save(tmp_path / "tokenizer")
    settings = {
        "documents": str(documents(tmp_path / "documents")),
        "tokenizer": str(tmp_path / "tokenizer"),
    }
    result = killed("tokenize", settings, tmp_path, ["shards"], every=1)
    assert result["kills"] >= 8
    assert len(result["digests"]) == 1
    assert result["leftovers"] == []


def test_tokenizer(tmp_path: Path) -> None:
    settings = {"documents": str(documents(tmp_path / "documents")), "vocab_size": 300}
    result = killed("tokenizer", settings, tmp_path, ["export"], every=1)
    assert result["kills"] >= 4
    assert len(result["digests"]) == 1
    assert result["leftovers"] == []
