"""Small corpora, runs and shards for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrow.core.config import Config
from regrow.core.run import Run
from regrow.data.shards import Shard, Vocabulary, write_shard

VOCABULARY = Vocabulary(size=1000, eos_id=0, tokenizer_sha256="f" * 64)


def write_corpus(root: Path, files: int = 30) -> Path:
    """A folder of plain texts and a few records; text 7 stands twice."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        same = 7 if number == 8 else number
        words = " ".join(f"word{same * 13 % 97}-{i * i % 31}" for i in range(40 + same))
        (root / f"text{number:02d}.txt").write_text(f"Text {same}.\n{words}\n", encoding="utf-8")
    return root


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of 30 texts."""
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Claims run folders below the test's own folder, and lets go of them at the end."""
    runs: list[Run] = []

    def make(verb: str, config: Config, name: str | None = None, **options: Any) -> Run:
        run = Run.claim(tmp_path / (name or verb), verb, config, quiet=True, **options)
        runs.append(run)
        return run

    yield make
    for run in runs:
        run.release()


@pytest.fixture
def make_shard(tmp_path: Path) -> Callable[..., Shard]:
    """Writes a shard of given document lengths, whose tokens count upwards."""

    def make(source: str, lengths: list[int], vocabulary: Vocabulary = VOCABULARY) -> Shard:
        documents = []
        at = 0
        for length in lengths:
            ids = (np.arange(at, at + length) % (vocabulary.size - 1) + 1).tolist()
            documents.append((ids, 3 * length))
            at += length
        return write_shard(tmp_path / "shards" / "train", source, documents, vocabulary)

    return make
