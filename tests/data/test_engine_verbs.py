"""Each verb of the engine's seam gives the same, natively, in processes, and on Ray."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("daft")

from tests.data.engine_verbs import GROUPS, IDS, TEXTS, VERBS

NAMES = [verb.__name__ for verb in VERBS]


def ran(runner: str, workers: int, folder: Path) -> dict[str, Any]:
    words = ["-m", "tests.data.engine_verbs", runner, str(workers), str(folder)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return ran("native", 1, tmp_path_factory.mktemp("alone"))


def test_every_verb_gives_what_plain_python_gives(alone: dict[str, Any]) -> None:
    rows = list(zip(IDS, TEXTS, GROUPS, strict=True))
    fourth = {i: t for i, t, g in rows if g == 4}
    first = {}
    for i, _, g in sorted(rows):
        first.setdefault(str(g), [i, GROUPS.count(g)])
    expected = {
        "map_batches": {i: len(t) for i, t, _ in rows},
        "map_batches_here": {i: [len(t), g] for i, t, g in rows},
        "when": {i: "low" if g < 3 else None for i, _, g in rows},
        "literal": ["x"],
        "all_kept": [[None, None]] * len(rows),
        "collected": fourth,
        "stored": fourth,
        "stored_empty": [[], ["id", "text", "part"]],
        "from_columns": {i: {1: "one", 2: "two"}[g] for i, _, g in rows if g in (1, 2)},
        "from_arrow": [sorted(IDS[:9]), len(rows) - 9],
        "groups": first,
        "distinct": len(set(TEXTS)),
        "concat": 2 * len(rows),
        "batches": [i for _, i in sorted((g, i) for i, _, g in rows)],
        "fan_out": [n**3 + 1 for n in range(20)],
    }
    for name, value in expected.items():
        assert alone[name] == value, name
    assert alone["write_sorted"][0] == len(rows)
    words = {i: [t.count("word"), len(t.encode())] for i, t, _ in rows}
    assert {i: found[2:] for i, found in alone["expressions"].items()} == words
    hashes = {i: found[0] for i, found in alone["expressions"].items()}
    plain = {i: " ".join(t.split()) for i, t, _ in rows}
    assert len(set(hashes.values())) == len(set(plain.values()))
    assert {*expected, "write_sorted", "expressions"} == set(NAMES)
    assert not alone["apart"]


def test_processes_change_nothing(alone: dict[str, Any], tmp_path: Path) -> None:
    several = ran("native", 3, tmp_path)
    assert several["apart"]
    for name in NAMES:
        assert several[name] == alone[name], name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [cluster]: no ray")
def test_a_ray_cluster_changes_nothing(alone: dict[str, Any], tmp_path: Path) -> None:
    cluster = ran("ray", 2, tmp_path)
    for name in NAMES:
        assert cluster[name] == alone[name], name
