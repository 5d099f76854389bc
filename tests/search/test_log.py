"""The log under torn lines, kills and full disks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.search import log as log_module
from regrow.search.log import TrialLog

RECORDS = st.lists(
    st.tuples(st.text(max_size=8), st.dictionaries(st.text(max_size=4), st.integers(), max_size=3)),
    unique_by=lambda pair: pair[0],
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


@given(RECORDS, st.data())
def test_cut_anywhere_it_holds_the_whole_lines(
    folder: Path, records: list[tuple[str, dict[str, int]]], data: st.DataObject
) -> None:
    path = folder / "trials.jsonl"
    path.unlink(missing_ok=True)
    log = TrialLog(path)
    ends = [0]
    for key, record in records:
        log.append(key, record)
        ends.append(path.stat().st_size)
    assert list(TrialLog(path)) == list(log) == records
    size = ends[-1]
    cut = data.draw(st.integers(0, size))
    if size:
        os.truncate(path, cut)
    survived = sum(end <= cut for end in ends) - 1
    again = TrialLog(path)
    assert list(again) == records[:survived]
    for key, record in records[survived:]:
        again.append(key, record)
    assert list(TrialLog(path)) == records


def test_a_trial_stands_once(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "t")
    log.append("a", {"value": 1})
    with pytest.raises(ValueError, match="already"):
        log.append("a", {"value": 2})
    with pytest.raises(ValueError, match="JSON"):
        log.append("b", {"value": float("nan")})
    assert list(TrialLog(tmp_path / "t")) == [("a", {"value": 1})]
    line = (tmp_path / "t").read_text()
    (tmp_path / "t").write_text(line * 2)
    with pytest.raises(InputError, match="t:2: trial a stands twice"):
        TrialLog(tmp_path / "t")


def test_a_damaged_line_inside_is_named(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "t")
    for key in "abc":
        log.append(key, {})
    lines = (tmp_path / "t").read_text().splitlines(keepends=True)
    (tmp_path / "t").write_text(lines[0] + "{}\n" + lines[2])
    with pytest.raises(InputError, match="t:2: no record"):
        TrialLog(tmp_path / "t")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrialLog(tmp_path / "t")
    log.append("a", {})

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "_write_all", half)
        with pytest.raises(OSError, match="No space"):
            log.append("b", {})
    assert "b" not in log
    log.append("c", {})
    assert [key for key, _ in TrialLog(tmp_path / "t")] == ["a", "c"]


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """What a killed writer reported as written is there, once, and at most one more."""
    path, count = tmp_path / "t", 0
    for _ in range(12):
        before = len(TrialLog(path))
        assert before >= count
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            log = TrialLog(path)
            for number in range(len(log), len(log) + 100_000):
                log.append(str(number), {"value": number, "pad": "x" * 300})
                os.write(writer, b".")
        os.close(writer)
        reported = len(os.read(reader, 1 + count % 7))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while block := os.read(reader, 65536):
            reported += len(block)
        os.close(reader)
        found = [int(key) for key, _ in TrialLog(path)]
        assert found == list(range(len(found)))
        assert before + reported <= len(found) <= before + reported + 1
        count = len(found)
    assert count >= 12
    assert all(json.loads(line) for line in path.read_text().splitlines())
