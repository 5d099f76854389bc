"""Hundreds of broken and hostile folders: each loads what its files hold, or is one InputError."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.model.makers import FAMILIES, stock
from tests.model.mutants import CHANGES

pytest.importorskip("transformers")

MIB = 1 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small folders of every family, in one file and in several."""
    root = tmp_path_factory.mktemp("good")
    for family in FAMILIES:
        model = stock(family, 1)
        model.save_pretrained(root / family)
        model.save_pretrained(root / f"{family}-sharded", max_shard_size="20KB")
    return root


def _run(good: Path, scratch: Path, numbers: range) -> list[dict[str, Any]]:
    """What came of each case, in a process of its own: not even a crash there ends this one."""
    command = [sys.executable, "-m", "tests.model.mutants", str(good), str(scratch)]
    done = subprocess.run(
        [*command, *map(str, numbers)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
        check=False,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {records[-1:]}: {done.stderr[-3000:]}"
    return records


def _check(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert record["outcome"] in ("loaded", "refused"), record
        assert record["seconds"] < 2.0, record
        assert record["grown"] < 200 * MIB, record
        assert not record["touched"], record
        if record["outcome"] == "loaded":
            assert record["compared"].startswith("equal weights"), record


def test_sixty_hostile_folders(good: Path, tmp_path: Path) -> None:
    records = _run(good, tmp_path / "scratch", range(60))
    assert len(records) == 60
    _check(records)


@pytest.mark.slow
def test_three_hundred_hostile_folders(good: Path, tmp_path: Path) -> None:
    records = _run(good, tmp_path / "scratch", range(300))
    assert len(records) == 300
    _check(records)
    outcomes = Counter(record["outcome"] for record in records)
    assert outcomes["refused"] > 150
    assert outcomes["loaded"] > 30  # what was changed did not matter, or mattered equally to both
    compared = Counter(record.get("compared") for record in records)
    assert compared["equal weights and logits"] > 20
    assert {record["what"].split()[1] for record in records} == {c.__name__ for c in CHANGES}
    assert {record["what"].split()[0].split("-")[0] for record in records} == set(FAMILIES)
