"""Runs a verb of this room, killed before its k-th rename or unlink, for every k.

A process that has everything imported forks once a kill: the child works in a fresh run folder and
dies like by ``kill -9`` before the k-th file operation that others can see; a second child then
runs the same thing to its end. Prints one JSON object: kills made, and the digests of all outputs.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from regrow.core.config import Config, load_config
from regrow.core.run import Run

KILLED = 99


def work(verb: str, config: Config, folder: Path) -> None:
    job = importlib.import_module(f"regrow.data.jobs.{verb}")
    run = Run.claim(folder, verb, config, quiet=True)
    job.run(config, run)
    run.release()


def dying(after: int) -> None:
    """Die before the (after + 1)-th rename, replace or unlink."""
    left = after

    def counted(real: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(KILLED)
            left -= 1
            return real(*args, **kwargs)

        return operation

    for name in ("rename", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def child(verb: str, config: Config, folder: Path, after: int | None) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if after is not None:
            dying(after)
        work(verb, config, folder)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def digest(folder: Path, names: list[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def main() -> None:
    verb, settings, root, outputs, every = sys.argv[1:]
    module = importlib.import_module("regrow.data.config")
    cls = getattr(module, f"{verb.capitalize()}Config")
    config = load_config(cls, base=json.loads(settings))
    importlib.import_module(f"regrow.data.jobs.{verb}")
    if verb == "curate":
        import daft  # noqa: F401
    names = json.loads(outputs)
    digests, kills, after = set(), 0, 0
    while True:
        folder = Path(root) / "run"
        shutil.rmtree(folder, ignore_errors=True)
        code = child(verb, config, folder, after)
        if code not in (0, KILLED):
            raise SystemExit(f"attempt {after} ended with {code}")
        if code == KILLED:
            kills += 1
            final = child(verb, config, folder, None)
            if final:
                raise SystemExit(f"after kill {after} the same command ended with {final}")
        digests.add(digest(folder, names))
        if code == 0:
            break
        after += int(every)
    leftovers = [str(p) for p in folder.rglob(".tmp-*")]
    json.dump({"kills": kills, "digests": sorted(digests), "leftovers": leftovers}, sys.stdout)


if __name__ == "__main__":
    main()
