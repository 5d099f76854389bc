"""Run folders inside of a run folder: the parts of a job that have files and checkpoints of their
own, and that go on by themselves after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow.core import atomic, lineage
from regrow.core.config import Config
from regrow.core.follower import Follower, process_rank
from regrow.core.run import Run

_DECISIONS = "decisions.json"


class Part(Run):
    """A run folder inside of another run; a stop that is asked of the whole is asked of it."""

    whole: Run | None = None

    @property
    def stop_requested(self) -> bool:
        """Whether the whole was asked to stop."""
        return self.whole is not None and self.whole.stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        if self.whole is not None:
            self.whole.stop_requested = value


class _FollowerPart(Part, Follower):
    """The same for a process that helps another one."""


def claim_part(run: Run, folder: Path, verb: str, config: Config, quiet: bool = False) -> Part:
    """Take the folder of a part, to be released by :meth:`Run.release`.

    Args:
        run: the whole, claimed.
        folder: below the whole's.
        verb: what works in it.
        config: its settings.
        quiet: whether its progress is not shown, though the whole's is.
    """
    if process_rank():
        part: Part = _FollowerPart(folder, verb, config)
    else:
        claimed = Part.claim(folder, verb, config, quiet=run.quiet or quiet)
        assert isinstance(claimed, Part)
        part = claimed
        # What was timed for the whole holds for its parts.
        decisions = run.path / _DECISIONS
        if decisions.exists() and not (folder / _DECISIONS).exists():
            atomic.write_bytes(folder / _DECISIONS, decisions.read_bytes())
    part.whole = run
    return part


def run_part(
    run: Run,
    folder: Path,
    verb: str,
    config: Config,
    job: Callable[[Any, Run], dict[str, Any]],
) -> dict[str, Any]:
    """A verb's job in a folder of its own; what it gave before, if it was finished.

    Args:
        run: the whole, claimed.
        folder: below the whole's.
        verb: the verb.
        config: its settings.
        job: the verb's ``run(config, run)``.

    Returns:
        The content of the part's ``result.json``.
    """
    if (folder / "result.json").exists():
        kept: dict[str, Any] = atomic.read_json(folder / "result.json")
        return kept
    part = claim_part(run, folder, verb, config)
    try:
        part.status("running")
        made = job(config, part)
        result = {
            "verb": verb,
            "run": str(folder),
            "seconds": round(part.seconds(), 3),
            **made,
        }
        if part.writes:
            # The lineage first: a part counts as finished by its result.
            atomic.write_json(folder / "lineage.json", lineage.record(part, result))
            atomic.write_json(folder / "result.json", result)
        part.status("done")
    finally:
        part.release()
    return result
