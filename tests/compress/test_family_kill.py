"""SIGKILL at random moments: the same winners, no trial lost, none doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from regrow.compress.family_config import FamilyConfig
from regrow.compress.family_record import CANDIDATES
from regrow.compress.jobs.family import TRIALS_LOG
from regrow.core import atomic
from regrow.grow.execute import execute
from regrow.search.log import TrialLog
from tests.compress.family_makers import family_config, pretrained, without_times

WEIGHTS = "export/model.safetensors"


def start(config: FamilyConfig, folder: Path) -> int:
    child = os.fork()
    if not child:
        try:
            execute("family", config, folder, quiet=True)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def seen(folder: Path) -> set[str]:
    """Trials whose whole line is in the log, read without touching it."""
    path = folder / TRIALS_LOG
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return {json.loads(line)["trial"] for line in whole.splitlines()}


@pytest.mark.parametrize(
    ("kills", "names"),
    [
        (2, ["half"]),
        pytest.param(
            5, ["half", "third"], marks=[pytest.mark.slow, pytest.mark.timeout(900)], id="slow"
        ),
    ],
)
def test_killed_at_random_it_finds_the_same(
    shards: Path, tmp_path: Path, kills: int, names: list[str]
) -> None:
    base = pretrained(tmp_path / "base", shards)
    config = family_config(base, shards)
    config = config.model_copy(update={"children": {n: config.children[n] for n in names}})
    began = time.monotonic()
    whole = execute("family", config, tmp_path / "whole", quiet=True)
    duration = time.monotonic() - began

    folder, rng = tmp_path / "killed", random.Random(4)
    killed, reached = 0, set[str]()
    for _ in range(200):
        child = start(config, folder)
        wait = duration * rng.uniform(0.1, 0.6) if killed < kills else 600.0
        until = time.monotonic() + wait
        ended = 0
        while not ended and time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed += 1
        now = seen(folder)
        assert reached <= now, "a trial was lost"
        reached = now
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    assert killed >= min(kills, 2)
    result = atomic.read_json(folder / "result.json")
    assert without_times(result, folder) == without_times(whole, tmp_path / "whole")
    ours, theirs = (list(TrialLog(f / TRIALS_LOG)) for f in (folder, tmp_path / "whole"))
    assert dict(ours) == dict(theirs)
    assert len(ours) == len(theirs)
    for name in names:
        sums = {atomic.sha256_file(f / name / WEIGHTS) for f in (folder, tmp_path / "whole")}
        assert len(sums) == 1
    assert _lines(folder) == _lines(tmp_path / "whole")


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / CANDIDATES).read_text().splitlines()]
