"""The same documents, byte for byte, whatever works on them and however often it is killed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("daft")

STEPS = "steps=[language, exact, fuzzy, filter, split]"


def write_pool(folder: Path, files: int, seed: int, documents: int = 400) -> Path:
    """Records with ids and dates, a quarter of them edited copies of others; the same ones for any
    number of files and any seed."""
    draw = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(800)]
    words += ["the", "be", "to", "of", "and", "that", "have", "with"] * 60
    records: list[dict[str, Any]] = []
    for number in range(documents):
        if number % 4:
            text = draw.choices(words, k=draw.randint(20, 200))
        else:
            text = (records[draw.randrange(number)]["text"].split() if number else ["one"]) * 1
            text[draw.randrange(len(text))] = draw.choice(words)
        record = {"id": f"r{number}", "text": " ".join(text) + ".", "date": f"20{10 + number % 9}"}
        records.append(record)
    random.Random(seed).shuffle(records)
    folder.mkdir(parents=True)
    for number in range(files):
        lines = "\n".join(map(json.dumps, records[number::files]))
        (folder / f"{number}.jsonl").write_text(lines + "\n")
    return folder


def command(pool: Path, run: Path, *words: str) -> list[str]:
    source = f"{{kind: folder, name: pool, path: {pool}, fields: {{id: id, date: date}}}}"
    fixed = [f"sources=[{source}]", STEPS, "filter.no_list=skip", "--run", str(run), "--quiet"]
    return [sys.executable, "-m", "regrow", "curate", "run", *fixed, *words]


def made(pool: Path, run: Path, *words: str) -> str:
    done = subprocess.run(command(pool, run, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return digest(run)


def digest(run: Path) -> str:
    total = hashlib.sha256()
    for path in sorted((run / "documents").iterdir()):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def test_workers_and_files_change_nothing(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", files=6, seed=1)
    other = write_pool(tmp_path / "other", files=3, seed=2)
    one = made(pool, tmp_path / "one", "engine.workers=1")
    counts = json.loads((tmp_path / "one" / "documents" / "manifest.json").read_text())["steps"]
    assert [step["step"] for step in counts if step["dropped"]] == ["fuzzy", "filter"]
    assert made(other, tmp_path / "two", "engine.workers=2") == one


@pytest.mark.slow
def test_more_workers_change_nothing(tmp_path: Path) -> None:
    # Enough text for several parts, so that reading is shared too.
    pool = write_pool(tmp_path / "pool", files=9, seed=1, documents=20_000)
    found = {made(pool, tmp_path / str(n), f"engine.workers={n}") for n in (1, 2, 4)}
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [cluster]: no ray")
def test_a_ray_cluster_changes_nothing(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", files=9, seed=1, documents=20_000)
    native = made(pool, tmp_path / "native", "engine.workers=1")
    ray = ["engine.runner=ray", "engine.address=local", "engine.workers=2"]
    assert made(pool, tmp_path / "ray", *ray) == native


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [cluster]: no ray")
def test_no_cluster_there(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", files=1, seed=1, documents=8)
    words = command(pool, tmp_path / "run", "engine.runner=ray", "engine.address=127.0.0.1:1")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "engine.address: no Ray cluster at 127.0.0.1:1" in done.stderr


@pytest.mark.slow
def test_fifteen_kills_change_nothing(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", files=9, seed=1, documents=3000)
    whole = made(pool, tmp_path / "whole", "engine.workers=2")
    began = time.monotonic()
    made(pool, tmp_path / "timed", "engine.workers=2")
    seconds = time.monotonic() - began
    draw = random.Random(0)
    kills, number = 0, 0
    while kills < 15:
        words = command(pool, tmp_path / f"killed{number}", "engine.workers=2")
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(draw.uniform(0.2, 0.9) * seconds)
            number += 1  # it came to its end
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    for folder in sorted(tmp_path.glob("killed*")):
        assert made(pool, folder, "engine.workers=2") == whole
        assert not list(folder.rglob(".tmp-*"))
