"""The seam to the table engine: late, offline, and the only door."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import regrow

CURATE = """
import sys
from pathlib import Path
from regrow.core.config import load_config
from regrow.core.run import Run
from regrow.data.config import CurateConfig
from regrow.data.jobs import curate
import json
config = load_config(CurateConfig, base=json.loads(sys.argv[2]))
run = Run.claim(Path(sys.argv[1]), "curate", config, quiet=True)
curate.run(run.config, run)
"""


def test_settings_cost_no_engine() -> None:
    code = "import sys, regrow.data.config as c; c.CurateConfig(); print(*sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "daft", "pyarrow", "tokenizers", "numpy"} & set(made.stdout.split())


def test_only_the_seam_imports_daft() -> None:
    root = Path(regrow.__file__).parent
    found = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"^\s*(import daft|from daft)", path.read_text(), re.MULTILINE)
    ]
    assert found == ["data/engine.py"]


def test_no_connection_is_opened(corpus: Path, tmp_path: Path) -> None:
    """The engine is native code, so the system calls are watched, not Python's sockets."""
    pytest.importorskip("daft")
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    source = {"kind": "folder", "name": "corpus", "path": str(corpus)}
    watched = [strace, "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(log)]
    made = subprocess.run(
        [
            *watched,
            sys.executable,
            "-c",
            CURATE,
            str(tmp_path / "run"),
            json.dumps({"sources": [source], "steps": ["exact", "split"]}),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in made.stderr.lower():
        pytest.skip("this machine does not let processes be watched")
    assert made.returncode == 0, made.stderr
    assert not re.findall(r".*AF_INET.*", log.read_text())
    assert (tmp_path / "run" / "documents" / "train.parquet").exists()
