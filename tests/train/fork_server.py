"""Trains in forked children and kills them: torch is imported once, so a cycle costs little.

Reads one JSON object a line: ``{"folder", "kill_after", "save"}``; answers with how the child
ended. Run as a module by ``test_kill.py``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from regrow.core.errors import BusyError
from regrow.train.optimiser import build_optimiser
from regrow.train.trainer import ModelKind, Trainer
from tests.train.fakes import SEQUENCE, FakeLoader, Predict, TinyModel, make_run, make_settings

STEPS = 24


def train(folder: Path) -> None:
    """One attempt at a run of about half a second, a third of it in saves."""
    import safetensors.torch

    from regrow.core.atomic import staged_folder

    def export(module: TinyModel, target: Path) -> None:
        with staged_folder(target) as staging:
            safetensors.torch.save_file(module.state_dict(), staging / "model.safetensors")

    settings = dataclasses.replace(make_settings(STEPS), save_every_tokens=2 * 8 * SEQUENCE)
    objective = Predict(TinyModel(width=64, dropout=0.2))
    loader = FakeLoader(delay=0.002)
    run = make_run(folder)
    Trainer(objective, loader, settings, run, lambda: {"loss": 1.0}, ModelKind(export)).train()


def wait_for_save(folder: Path, child: int) -> None:
    """Return as soon as a checkpoint is being written, or the child has ended."""
    checkpoints = folder / "checkpoints"
    while True:
        try:
            if any(name.startswith(".tmp-step-") for name in os.listdir(checkpoints)):
                return
        except FileNotFoundError:
            pass
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return


def attempt(folder: Path, kill_after: float | None, save: bool = False) -> str:
    """Fork, train, perhaps kill; ``done``, ``killed`` or ``failed``.

    Args:
        folder: the run folder.
        kill_after: seconds to wait before the kill; None to let it end.
        save: count the seconds from the first moment that a checkpoint is being written.
    """
    child = os.fork()
    if child == 0:
        try:
            train(folder)
        except BusyError:
            os._exit(4)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        if save:
            wait_for_save(folder, child)
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "done" if os.waitstatus_to_exitcode(status) == 0 else "failed"


def main() -> None:
    """Serve until the input ends."""
    build_optimiser(TinyModel(), (0.9, 0.95), 1e-8, 0.1)  # torch imports two seconds' worth here
    for line in sys.stdin:
        request = json.loads(line)
        ended = attempt(Path(request["folder"]), request["kill_after"], request["save"])
        sys.stdout.write(ended + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
