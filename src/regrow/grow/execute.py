"""One verb in its run folder: plan, claim, job, result, lineage, page.

The command line, recipes and Python users all come through :func:`execute`.
"""

from __future__ import annotations

import errno
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.core import atomic, lineage
from regrow.core.config import Config, config_hash
from regrow.core.engines import prepare_engines
from regrow.core.errors import ConfigError, InputError, Interrupted, RegrowError, ResourceError
from regrow.core.follower import Follower, process_rank
from regrow.core.plan import Plan
from regrow.core.run import Run, read_status
from regrow.grow.verbs import Verb, get_verb

# What a composite verb returns when all of its parts were finished before.
UNCHANGED: dict[str, Any] = {"unchanged": True}
Announce = Callable[[str, Plan | None], None]


def _say_nothing(text: str, plan: Plan | None) -> None:
    pass


def default_folder(verb: str, config: Config) -> Path:
    """``runs/VERB-<8 hex of the config's hash>``, so that the same command resumes; the words of
    a verb of two are joined by a dash."""
    return Path("runs") / f"{verb.replace(' ', '-')}-{config_hash(config)[:8]}"


def is_done(folder: Path) -> bool:
    """Whether a run folder holds a finished run."""
    return read_status(folder).get("state") == "done" and (folder / "result.json").exists()


def execute(
    verb: str | Verb,
    config: Config,
    folder: Path | None = None,
    *,
    force: bool = False,
    redo_changed: bool = False,
    quiet: bool = False,
    announce: Announce = _say_nothing,
) -> dict[str, Any]:
    """Do a verb, or go on with it, or return what it made before.

    Args:
        verb: a verb's name.
        config: its resolved settings.
        folder: its run folder; by default named after the settings.
        force: start anew what is there.
        redo_changed: start anew by itself where an input has changed since (recipes do).
        quiet: no progress on the terminal.
        announce: called with one line about what happens, and the plan where there is one.

    Returns:
        The content of ``result.json``.

    Raises:
        RegrowError: each kind as in :mod:`regrow.core.errors`.
    """
    prepare_engines()
    verb = get_verb(verb) if isinstance(verb, str) else verb
    folder = folder or default_folder(verb.name, config)
    # A finished run is returned without its inputs being planned again: they may be long gone.
    if process_rank():
        return _follow(verb, config, folder, force)
    plan = None if is_done(folder) and not force else verb.plan(config)
    if plan is not None and plan.missing:
        raise InputError(f"{verb.name} can be planned, but not run", plan.missing)
    run = Run.claim(folder, verb.name, config, force=force, keep=verb.composite, quiet=quiet)
    run.announce = announce
    try:
        changed = run.changed_inputs()
        if changed and redo_changed:
            run.restart()
        elif changed:
            raise InputError(
                f"inputs of {folder} changed since it began; --force starts it anew", changed
            )
        if is_done(folder) and not verb.composite:
            announce(f"{verb.name}: finished before, in {folder}", None)
            return _read_result(folder)
        if is_done(folder):
            announce(f"{verb.name}: finished before in {folder}; looks for what has changed", None)
            return _work(verb, config, run)
        how = "starts" if run.fresh else "goes on"
        announce(f"{verb.name}: {how} in {folder}", plan or verb.plan(config))
        return _work(verb, config, run)
    finally:
        run.release()


def _follow(verb: Verb, config: Config, folder: Path, force: bool) -> dict[str, Any]:
    """Help the first process of those that torchrun started; only training can be helped.

    Raises:
        ConfigError: the verb runs in one process.
    """
    if not verb.several_processes:
        raise ConfigError(f"{verb.name} runs in one process; start it without torchrun")
    if is_done(folder) and not force:
        return _read_result(folder)
    run = Follower(folder, verb.name, config)
    with _interruptible(run):
        made = verb.run(config, run)
    return {"verb": verb.name, "run": str(folder), **made}


def _read_result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = atomic.read_json(folder / "result.json")
    return result


def _work(verb: Verb, config: Config, run: Run) -> dict[str, Any]:
    was_done = is_done(run.path)
    if not was_done:
        run.log("started" if run.fresh else "resumed", verb=verb.name)
        run.status("running")
    try:
        with _interruptible(run):
            made = verb.run(config, run)
        if was_done and made == UNCHANGED:
            return _read_result(run.path)
        result = {
            "verb": verb.name,
            "run": str(run.path),
            "seconds": round(run.seconds(), 3),
            **made,
        }
        atomic.write_json(run.path / "result.json", result)
        atomic.write_json(run.path / "lineage.json", lineage.record(run, result))
        _write_pages(run)
        run.log("done")
        run.status("done")
        return result
    except KeyboardInterrupt as error:
        run.status("interrupted")
        raise Interrupted(f"interrupted; the same command goes on in {run.path}") from error
    except RegrowError as error:
        run.status("interrupted" if isinstance(error, Interrupted) else "failed", error=str(error))
        raise
    except OSError as error:
        run.log("error", traceback=traceback.format_exc())
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"no space left for {run.path}: free some and run the same command"
            ) from error
        run.status("failed", error=str(error))
        raise
    except Exception as error:
        run.log("error", traceback=traceback.format_exc())
        run.status("failed", error=f"{type(error).__name__}: {error}")
        raise


def _write_pages(run: Run) -> None:
    """The page of a finished run, and those of its finished parts that have none yet; a page that
    fails is reported, but takes no work with it."""
    from regrow.report.page import PAGE, write_page

    try:
        for part in lineage.find_runs(run.path):
            if (part / "result.json").exists() and not (part / PAGE).exists():
                write_page(part)
        write_page(run.path)
    except Exception as error:
        run.log("page failed", traceback=traceback.format_exc())
        run.announce(f"the page could not be written ({type(error).__name__}: {error})", None)


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """The first Ctrl-C asks the job to stop at a good moment, the second stops it now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if run.stop_requested:
            raise KeyboardInterrupt
        run.stop_requested = True

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
