"""SIGKILL at random moments, then the same command: the result is that of a quiet run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrow.core.atomic import sha256_file
from regrow.core.metrics_log import MetricsLog
from regrow.train.checkpoint import latest, steps_in
from tests.train.fakes import without_times
from tests.train.fork_server import STEPS

ROOT = Path(__file__).parents[2]
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.train.fork_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def request(folder: Path, kill_after: float | None, save: bool = False) -> str:
        assert server.stdin is not None
        assert server.stdout is not None
        asked = {"folder": str(folder), "kill_after": kill_after, "save": save}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        return server.stdout.readline().strip()

    yield request
    server.stdin.close()
    server.wait(10)
    server.stdout.close()


@pytest.mark.parametrize(
    ("least", "inside"),
    [(24, 6), pytest.param(40, 3, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_kills_at_random_times_change_nothing(
    least: int, inside: int, tmp_path: Path, ask: Ask
) -> None:
    """At least so many kills, and one in ``inside`` of them while a checkpoint is written."""
    quiet = tmp_path / "quiet"
    assert ask(quiet, None) == "done"
    began = time.monotonic()
    assert ask(tmp_path / "timed", None) == "done"
    duration = time.monotonic() - began
    expected = sha256_file(quiet / "export/model.safetensors")
    records = without_times(MetricsLog(quiet / "metrics.jsonl").read())
    assert [r["step"] for r in records if "validation" in r] == [STEPS]

    rng = random.Random(20)
    kills = inside_save = 0
    for trial in range(120):
        folder = tmp_path / f"trial{trial}"
        attempts, ended, reached = 0, "killed", 0
        while ended == "killed":
            # After the third attempt let it go on for longer, so that each trial comes to an end.
            if attempts % (2 if inside > 3 else 4):
                ended = ask(folder, rng.uniform(0, 0.006), save=True)
            else:
                ended = ask(folder, duration * rng.uniform(0.02, 0.8 if attempts < 3 else 2))
            attempts += 1
            if ended == "killed":
                kills += 1
                checkpoints = folder / "checkpoints"
                inside_save += bool(list(checkpoints.glob(".tmp-*")))
                whole = latest(checkpoints)  # raises if there are some and none is usable
                step = int(whole.name[-8:]) if whole else 0
                assert step >= reached, "a committed checkpoint was lost"
                reached = step
        assert ended == "done"
        assert sha256_file(folder / "export/model.safetensors") == expected
        assert without_times(MetricsLog(folder / "metrics.jsonl").read()) == records
        assert len(steps_in(folder / "checkpoints")) == 2
        if kills >= least and inside_save * inside >= kills:
            break
    assert kills >= least
    assert inside_save * inside >= least
