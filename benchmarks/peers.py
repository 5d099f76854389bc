"""What benchmarks compare with and regrow does not need: environments, and processes in them.

An environment lies in the temporary folder; it is made on the first call, and again where its list
of packages changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MARK = "REGROW_BENCHMARK_PEERS"


def environment(
    name: str, packages: Sequence[str], settings: Mapping[str, str] | None = None
) -> Path:
    """The interpreter of an environment with these packages.

    Args:
        name: of the environment.
        packages: as pip takes them.
        settings: environment variables of the installation; None for those of this process.
    """
    folder = Path(tempfile.gettempdir()) / f"regrow-peers-{name}"
    python, done = folder / "bin" / "python", folder / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != list(packages):
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, env=settings, check=True)
        done.write_text(json.dumps(packages))
    return python


def run_beside(name: str, packages: Sequence[str]) -> None:
    """Run this script again where the packages are beside this interpreter's; once there, go on."""
    if _MARK in os.environ:
        return
    places = [path for path in sys.path if path and Path(path).exists()]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(places), _MARK: "1"}
    python = environment(name, packages, settings)
    os.execve(python, [str(python), *sys.argv], settings)


class Peer:
    """A process in an environment of its own, which answers each line by one line of JSON.

    Args:
        name: of the environment.
        packages: as pip takes them; nothing else is there.
        command: a script and its words.
    """

    def __init__(self, name: str, packages: Sequence[str], command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(
            [environment(name, packages), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> Any:
        """The answer to a line."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
