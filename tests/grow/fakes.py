"""Verbs made for the tests of the runner: small, resumable, countable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.config import Config
from regrow.core.errors import InputError, RunError
from regrow.core.plan import Plan
from regrow.core.run import Run


class MakeConfig(Config):
    value: float = 1.0
    """What is written."""
    source: Path | None = None
    """A run folder whose value is added."""
    fail: bool = False
    """Whether to fail."""
    die: bool = False
    """Whether to be killed the first time."""
    optional: int = 0
    """Nothing."""


def plan(config: MakeConfig) -> Plan:
    if config.source is not None and not config.source.exists():
        raise InputError(f"source {config.source} does not exist")
    return Plan(f"make {config.value}")


def run(config: MakeConfig, run: Run) -> dict[str, Any]:
    count = run.path / "attempts"
    attempts = int(count.read_text()) + 1 if count.exists() else 1
    atomic.write_text(count, str(attempts))
    if config.fail:
        raise RunError("it failed")
    if config.die and attempts == 1:
        os.kill(os.getpid(), 9)
    base = 0.0
    if config.source is not None:
        run.input(config.source / "export", "model")
        base = float((config.source / "export" / "value").read_text())
    with atomic.staged_folder(run.export) as staging:
        (staging / "value").write_text(str(base + config.value))
    return {"loss": base + config.value, "tokens": 10, "flops": 100}
