"""One verb in its folder: once, again, with other inputs, with errors, killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError, RunError
from regrow.core.run import read_status
from regrow.grow.execute import default_folder, execute
from tests.grow.fakes import MakeConfig


def attempts(folder: Path) -> int:
    return int((folder / "attempts").read_text())


def test_a_finished_run_is_returned_without_working(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    first = execute("make", MakeConfig(value=2.0), folder)
    assert first == execute("make", MakeConfig(value=2.0), folder)
    assert attempts(folder) == 1
    assert first["loss"] == 2.0
    assert read_status(folder)["state"] == "done"
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "env.json", "result.json", "lineage.json", "report.html"} <= names
    execute("make", MakeConfig(value=2.0), folder, force=True)
    assert attempts(folder) == 1
    assert atomic.read_json(folder / "result.json")["loss"] == 2.0


def test_wrong_input_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing"):
        execute("make", MakeConfig(source=tmp_path / "nothing"), tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_kept_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    for n in (1, 2):
        with pytest.raises(RunError):
            execute("make", MakeConfig(fail=True), folder)
        assert attempts(folder) == n
    assert read_status(folder)["state"] == "failed"
    assert not (folder / "result.json").exists()


def test_changed_inputs_are_refused_or_redone(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    execute("make", MakeConfig(value=1.0), a)
    assert execute("make", MakeConfig(value=1.0, source=a), b)["loss"] == 2.0
    execute("make", MakeConfig(value=5.0), a, force=True)
    with pytest.raises(InputError, match="changed"):
        execute("make", MakeConfig(value=1.0, source=a), b)
    assert execute("make", MakeConfig(value=1.0, source=a), b, redo_changed=True)["loss"] == 6.0


def test_lineage_names_the_parent_by_hash(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    execute("make", MakeConfig(), a)
    execute("make", MakeConfig(source=a), b)
    parent = atomic.read_json(b / "lineage.json")["parents"][0]
    assert parent["run"] == str(a)
    assert parent["sha256"] == atomic.read_json(a / "lineage.json")["export_sha256"]


def test_the_default_folder_follows_the_settings() -> None:
    assert default_folder("make", MakeConfig()) == default_folder("make", MakeConfig())
    assert default_folder("make", MakeConfig()) != default_folder("make", MakeConfig(value=3.0))


def test_unknown_verb() -> None:
    with pytest.raises(ConfigError, match="did you mean pretrain"):
        execute("pretrian", MakeConfig())


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from regrow.grow import verbs; from regrow.grow.execute import execute\n"
        "from tests.grow.fakes import MakeConfig\n"
        "v = verbs.Verb('make', 'tests.grow.fakes:MakeConfig', 'tests.grow.fakes', '', '')\n"
        "execute(v, MakeConfig(die=True), Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r")]
    assert subprocess.run(command, check=False).returncode == -9
    assert read_status(tmp_path / "r")["state"] == "running"
    assert subprocess.run(command, check=False).returncode == 0
    assert attempts(tmp_path / "r") == 2
