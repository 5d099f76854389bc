"""Broken inputs through the verb: none stops it, none is lost, memory stays bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from regrow.core.config import load_config
from regrow.core.run import Run
from regrow.data.config import CurateConfig
from regrow.data.document import SPLITS
from regrow.data.jobs import curate
from tests.data import malformed

pytest.importorskip("daft")
pytest.importorskip("fastwarc")


def settings(path: Path) -> dict[str, Any]:
    source = {"kind": "folder", "name": "bad", "path": str(path), "content": "web"}
    return {"sources": [source], "steps": ["exact", "split"], "max_bad": 1}


def check(run: Path, result: dict[str, Any], made: list[malformed.Made]) -> None:
    """Conservation, and that every input is somewhere."""
    for step in result["steps"]:
        lost = sum(step["dropped"].values()) + sum(step["quarantined"].values())
        assert step["in"] == step["out"] + lost, step
    documents = run / "documents"
    kept = [row for s in SPLITS for row in pq.read_table(documents / f"{s}.parquet").to_pylist()]
    dropped = pq.read_table(documents / "dropped.parquet").to_pylist()
    quarantined = [json.loads(x) for x in (documents / "quarantine.jsonl").read_text().splitlines()]
    assert len(kept) + len(dropped) + len(quarantined) == result["steps"][0]["in"]
    by_file = Counter(r["file"] for r in (*kept, *dropped, *quarantined) if "#" not in r["file"])
    texts = {row["text"] for row in kept}
    for one in made:
        assert set(one.whole) <= texts, one.name
        # Records with an id of their own (of archives, and one of the broken lines) name no file.
        found = by_file[f"bad/{one.name}"]
        if one.records is not None:
            assert one.records - 1 <= found <= one.records, one.name
            assert found or one.records == 1, one.name
        elif ".warc" not in one.name:
            assert found, one.name
    for row in kept:
        assert row["text"].encode().decode() == row["text"]
        assert row["text"].strip()
    for row in quarantined:
        assert row["reason"]
        assert len(row["reason"]) < 80, row


def test_samples_of_real_archives(
    data_folder: Path, tmp_path: Path, claim: Callable[..., Run]
) -> None:
    samples = data_folder / "warc-samples"
    run = claim("curate", load_config(CurateConfig, base=settings(samples)))
    result = curate.run(run.config, run)
    files = [path for path in samples.rglob("*") if path.is_file()]
    made = [malformed.Made(str(path.relative_to(samples))) for path in files]
    check(run.path, result, [one for one in made if ".warc" not in one.name])
    gathered = result["steps"][0]
    assert gathered["quarantined"]["ARC is not read"] == 4
    assert gathered["out"] >= 8
    rows = [
        row
        for split in SPLITS
        for row in pq.read_table(run.path / "documents" / f"{split}.parquet").to_pylist()
    ]
    assert {row["extractor"] for row in rows} == {"resiliparse", None}
    assert all(row["date"] for row in rows if "#" in row["file"])


def test_all_malformed_inputs_in_bounded_memory(tmp_path: Path) -> None:
    """All 200 through the command, in a process of its own."""
    made = malformed.write(tmp_path / "in")
    assert len(made) == malformed.COUNT
    (tmp_path / "config.yaml").write_text(json.dumps(settings(tmp_path / "in")))
    script = (
        "import resource, sys\n"
        "from regrow.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, "curate", "run", "--quiet", "--json"]
    command += ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1")
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    check(tmp_path / "run", result, made)
    megabytes = int(done.stderr.split()[-1]) / 1024
    assert megabytes < 1600, megabytes
