"""The run folder: claimed by one process, resumable at any instant, never half-written.

::

    config.yaml  env.json  inputs.json  status.json  metrics.jsonl  events.jsonl  lock
    checkpoints/  export/  result.json  lineage.json  report.html
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from regrow.core import atomic, hardware, inputs
from regrow.core.config import Config, config_hash
from regrow.core.errors import BusyError, ConfigError, InputError
from regrow.core.metrics_log import MetricsLog
from regrow.core.plan import Plan
from regrow.core.progress import Progress, progress
from regrow.core.yaml12 import read_yaml


class Run:
    """One claimed run folder, as a job sees it.

    Made by :meth:`claim`; released by :meth:`release`. A job writes only through it or under
    :attr:`path`, with :mod:`regrow.core.atomic`.
    """

    writes = True
    """False in a process that only helps the one that claimed the folder."""

    def __init__(self, path: Path, verb: str, config: Config, lock: IO[str], quiet: bool) -> None:
        self.path = path
        self.verb = verb
        self.config = config
        self.quiet = quiet
        self.fresh = True
        self.force = False
        self.stop_requested = False
        self.announce: Callable[[str, Plan | None], None] = lambda text, plan: None
        self.metrics = MetricsLog(path / "metrics.jsonl")
        self._lock = lock
        self._started = time.monotonic()
        self._earlier_seconds = 0.0
        self._inputs: dict[str, dict[str, Any]] = {}
        self._last_status = 0.0

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """Folder of what the run makes for others: a model or a tokenizer in Hugging Face form."""
        return self.path / "export"

    @classmethod
    def claim(
        cls,
        path: Path,
        verb: str,
        config: Config,
        *,
        force: bool = False,
        keep: bool = False,
        quiet: bool = False,
    ) -> Run:
        """Take the run folder for this process; make it when it is missing.

        Args:
            path: the folder.
            verb: the verb that works in it.
            config: resolved settings; they must equal those the folder was started with.
            force: start anew, deleting what is there.
            keep: with ``force``, take over a folder of another config without deleting: its parts
                are run folders of their own, and only those that differ start anew.
            quiet: no progress on the terminal.

        Raises:
            BusyError: another process holds it; names the holder.
            ConfigError: it holds another config, with the differences; or it is no run folder.
        """
        known = (path / "config.yaml").exists()
        if path.exists() and not path.is_dir():
            raise ConfigError(f"run folder {path} is a file")
        if not known and path.exists() and any(_foreign(path)):
            raise ConfigError(
                f"{path} holds {next(_foreign(path))} and is no run folder; choose another --run"
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
        run = cls(path, verb, config, lock, quiet)
        run.force = force
        try:
            if known and not force:
                run._check_same()
                run._restore()
            elif known and keep and run._differences():
                run._begin()
                run._restore()
            elif known:
                _empty(path)
            atomic.remove_leftovers(path)
            if run.fresh:
                run._begin()
        except BaseException:
            run.release()
            raise
        return run

    def _differences(self) -> list[str]:
        there, _ = read_yaml(self.path / "config.yaml")
        there = dict(there or {})
        verb = there.pop("verb", self.verb)
        lines = self.config.differences_from(there)
        return [f"verb: {verb} there, {self.verb} now", *lines] if verb != self.verb else lines

    def _check_same(self) -> None:
        lines = self._differences()
        if lines:
            raise ConfigError(
                f"run folder {self.path} holds another config; choose another --run, or --force "
                "to start it anew",
                lines,
            )

    def _restore(self) -> None:
        self.fresh = False
        status = read_status(self.path)
        self._earlier_seconds = float(status.get("seconds", 0.0))
        try:
            records = atomic.read_json(self.path / "inputs.json")
        except (OSError, ValueError):
            records = []
        self._inputs = {record["path"]: record for record in records}

    def _begin(self) -> None:
        from regrow.core.yaml12 import dump_yaml

        # First the config: a folder that has it is known as a run folder whatever else is missing.
        text = dump_yaml({"verb": self.verb, **json.loads(json.dumps(self.config.as_json()))})
        atomic.write_text(self.path / "config.yaml", text)
        atomic.write_json(self.path / "env.json", environment())

    def release(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def changed_inputs(self) -> list[str]:
        """What is different now from the inputs that this run read before."""
        found = (inputs.changed(record) for record in self._inputs.values())
        return [line for line in found if line]

    def restart(self) -> None:
        """Forget all that was made, keep the claim."""
        _empty(self.path)
        self._inputs, self._earlier_seconds, self.fresh = {}, 0.0, True
        self._begin()

    def input(self, path: Path, role: str = "model") -> Path:
        """Record something that this run reads: its hash, and the run that it came from.

        Args:
            path: a file or a folder; all files in it count.
            role: what it serves as; a model that is trained further is ``"model"``, one that
                only teaches is ``"teacher"``.

        Returns:
            ``path``, for use in the same expression.

        Raises:
            InputError: nothing there.
        """
        if str(path) not in self._inputs:
            self._inputs[str(path)] = inputs.fingerprint(path, role)
            atomic.write_json(self.path / "inputs.json", list(self._inputs.values()))
        return path

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The records of what was read so far."""
        return list(self._inputs.values())

    def decide(self, name: str, choose: Callable[[], str]) -> str:
        """A choice that depends on this machine, made once and kept for every later attempt.

        Args:
            name: what is chosen ("precision").
            choose: called the first time only.
        """
        path = self.path / "decisions.json"
        known: dict[str, str] = atomic.read_json(path) if path.exists() else {}
        if name not in known:
            known[name] = choose()
            atomic.write_json(path, known)
        return known[name]

    def log(self, event: str, **fields: Any) -> None:
        """Add one line to ``events.jsonl``."""
        record = {"time": round(time.time(), 3), "event": event, **fields}
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, default=str) + "\n")

    def status(self, state: str = "running", **fields: Any) -> None:
        """Replace ``status.json``; while running, at most twice a second."""
        now = time.monotonic()
        if state == "running" and fields.get("step") and now - self._last_status < 0.5:
            return
        self._last_status = now
        record = {
            "state": state,
            "verb": self.verb,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "seconds": round(self.seconds(), 3),
            "updated_at": round(time.time(), 3),
            **fields,
        }
        atomic.write_json(self.path / "status.json", record)

    def progress(
        self, label: str, total: float, unit: str = "tok"
    ) -> AbstractContextManager[Progress]:
        """A progress display for a loop; see :func:`regrow.core.progress.progress`."""
        return progress(label, total, unit, self.quiet)

    def seconds(self) -> float:
        """Wall seconds spent in this run over all its attempts."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def config_hash(self) -> str:
        """Hash of the resolved settings."""
        return config_hash(self.config)


def read_status(path: Path) -> dict[str, Any]:
    """The content of ``status.json``; empty where there is none yet."""
    try:
        status: dict[str, Any] = atomic.read_json(path / "status.json")
    except (OSError, ValueError):
        return {}
    return status


def _foreign(path: Path) -> Any:
    return (p.name for p in path.iterdir() if p.name != "lock" and not p.name.startswith(".tmp-"))


def _empty(path: Path) -> None:
    """Delete all but the lock; ``config.yaml`` goes last, so a kill leaves a known run folder."""
    for child in sorted(path.iterdir(), key=lambda p: p.name == "config.yaml"):
        if child.name == "lock":
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _take_lock(path: Path) -> IO[str]:
    file = (path / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise BusyError(f"run folder {path} is in use by {holder}") from error
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def environment() -> dict[str, Any]:
    """Versions, machine and locale, for ``env.json``."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in ("regrow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "daft"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    threads = os.environ.get("OMP_NUM_THREADS")
    return {**hardware.fingerprint(), "packages": packages, "OMP_NUM_THREADS": threads}


def require_run(path: Path) -> Path:
    """``path`` when it is a run folder.

    Raises:
        InputError: it is none.
    """
    if not (path / "config.yaml").exists():
        raise InputError(f"{path} is no run folder (it has no config.yaml)")
    return path
