"""The run folder: one holder at a time, the same config goes on, another is refused."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regrow.core import atomic
from regrow.core.config import Config
from regrow.core.errors import BusyError, ConfigError, InputError
from regrow.core.metrics_log import MetricsLog
from regrow.core.run import Run, read_status


class Job(Config):
    steps: int = 1
    """Steps."""
    model: Path | None = None
    """Model."""


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    run = Run.claim(tmp_path / "r", "job", Job())
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.core.test_run import Job\n"
        "from regrow.core.run import Run; from regrow.core.errors import BusyError\n"
        "try: Run.claim(Path(sys.argv[1]), 'job', Job())\n"
        "except BusyError as e: print(e); sys.exit(e.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert f"process {os.getpid()}" in done.stdout
    run.release()
    Run.claim(tmp_path / "r", "job", Job()).release()


def _hold_forever(path: str) -> None:
    run = Run.claim(Path(path), "job", Job())
    time.sleep(60)
    run.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(
        target=_hold_forever, args=(str(tmp_path / "r"),)
    )
    holder.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "r" / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(BusyError):
        Run.claim(tmp_path / "r", "job", Job())
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    Run.claim(tmp_path / "r", "job", Job()).release()


def test_another_config_is_refused_with_the_difference_and_force_starts_anew(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "r"
    run = Run.claim(folder, "job", Job(steps=1))
    atomic.write_text(folder / "made", "x")
    run.release()
    with pytest.raises(ConfigError) as caught:
        Run.claim(folder, "job", Job(steps=2))
    assert caught.value.problems == ("steps: 1 there, 2 now",)
    with pytest.raises(ConfigError, match="verb: job there, other now"):
        Run.claim(folder, "other", Job(steps=1))
    assert (folder / "made").exists()
    run = Run.claim(folder, "job", Job(steps=2), force=True)
    assert run.fresh
    assert not (folder / "made").exists()
    run.release()


def test_a_folder_of_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(ConfigError, match="no run folder"):
            Run.claim(tmp_path, "job", Job(), force=force)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_time_adds_up_over_attempts(tmp_path: Path) -> None:
    run = Run.claim(tmp_path / "r", "job", Job())
    run._earlier_seconds = 100.0
    run.status("failed")
    run.release()
    again = Run.claim(tmp_path / "r", "job", Job())
    assert not again.fresh
    assert again.seconds() >= 100.0
    assert read_status(tmp_path / "r")["state"] == "failed"
    again.release()


def test_changed_inputs_are_seen_by_content_not_by_time(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "weights").write_bytes(b"abc")
    run = Run.claim(tmp_path / "r", "job", Job())
    run.input(source)
    assert run.changed_inputs() == []
    os.utime(source / "weights", ns=(1, 1))
    assert run.changed_inputs() == []
    (source / "weights").write_bytes(b"abd")
    assert "weights has other content" in run.changed_inputs()[0]
    (source / "more").write_bytes(b"")
    assert "more is new" in run.changed_inputs()[0]
    with pytest.raises(InputError, match="does not exist"):
        run.input(tmp_path / "nothing")
    run.release()


def test_metrics_lose_a_torn_line_and_what_is_beyond_the_checkpoint(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(5):
        log.append({"step": step, "loss": 1.0 / (step + 1)})
    with log.path.open("a") as file:
        file.write('{"step": 5, "lo')
    assert [r["step"] for r in log.read()] == [0, 1, 2, 3, 4]
    log.truncate(2)
    log.append({"step": 3})
    assert [r["step"] for r in log.read()] == [0, 1, 2, 3]


class OlderConfig(Config):
    steps: int = 10
    """Steps."""


class NewerConfig(OlderConfig):
    compiled: str = "auto"
    """A setting that the older version did not have."""


def test_a_folder_of_an_older_version_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    Run.claim(folder, "test", OlderConfig(steps=3), quiet=True).release()
    text = (folder / "config.yaml").read_text()
    assert "compiled" not in text
    run = Run.claim(folder, "test", NewerConfig(steps=3), quiet=True)
    assert not run.fresh
    run.release()
    assert (folder / "config.yaml").read_text() == text
    with pytest.raises(ConfigError) as caught:
        Run.claim(folder, "test", NewerConfig(steps=3, compiled="true"), quiet=True)
    assert list(caught.value.problems) == ['compiled: "auto" there, "true" now']
