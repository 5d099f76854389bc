"""The run folder as a process sees it that helps another one: it reads, and writes nothing.

torchrun starts a command in several processes. The first claims the run folder and writes; the
others follow it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from regrow.core.config import Config
from regrow.core.metrics_log import MetricsLog
from regrow.core.progress import Progress, progress
from regrow.core.run import Run


def process_rank() -> int:
    """Which of the processes that torchrun started this is; 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


class _NoMetrics(MetricsLog):
    def append(self, record: dict[str, Any]) -> None:
        """The first process writes it."""

    def truncate(self, step: int) -> None:
        """The first process does it."""


class Follower(Run):
    """A claim on nothing; has the face of :class:`Run`."""

    writes = False

    def __init__(self, path: Path, verb: str, config: Config) -> None:
        super().__init__(path, verb, config, open(os.devnull, "w", encoding="utf-8"), quiet=True)  # noqa: SIM115
        self.metrics = _NoMetrics(path / "metrics.jsonl")

    def input(self, path: Path, role: str = "model") -> Path:
        """``path``; the first process records it."""
        return path

    def decide(self, name: str, choose: Callable[[], str]) -> str:
        """What this process would choose; who needs one answer shares the first process's."""
        return choose()

    def log(self, event: str, **fields: Any) -> None:
        """The first process tells."""

    def status(self, state: str = "running", **fields: Any) -> None:
        """The first process tells."""

    def progress(
        self, label: str, total: float, unit: str = "tok"
    ) -> AbstractContextManager[Progress]:
        """A display that shows nothing."""
        return progress(label, total, unit, quiet=True)
