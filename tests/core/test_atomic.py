"""Files and folders are whole or absent: every operation is made to fail once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regrow.core import atomic


class Fault:
    """Raises OSError at the k-th call of any wrapped file operation."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def wrap(self, function):  # type: ignore[no-untyped-def]
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            self.calls += 1
            if self.calls == self.at:
                raise OSError(5, "injected")
            return function(*args, **kwargs)

        return wrapped


def inject(monkeypatch: pytest.MonkeyPatch, at: int) -> Fault:
    fault = Fault(at)
    monkeypatch.setattr(os, "fsync", fault.wrap(os.fsync))
    monkeypatch.setattr(os, "open", fault.wrap(os.open))
    monkeypatch.setattr(Path, "replace", fault.wrap(Path.replace))
    monkeypatch.setattr(Path, "rename", fault.wrap(Path.rename))
    monkeypatch.setattr(Path, "open", fault.wrap(Path.open))
    return fault


def test_a_file_is_old_or_new_whatever_operation_fails(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    for at in range(1, 50):
        atomic.write_json(target, {"old": True})
        with pytest.MonkeyPatch.context() as patch:
            fault = inject(patch, at)
            failed = False
            try:
                atomic.write_json(target, {"new": [1] * 1000})
            except OSError:
                failed = True
        assert atomic.read_json(target) in ({"old": True}, {"new": [1] * 1000})
        assert list(tmp_path.iterdir()) == [target]
        if not failed:
            assert fault.calls < at
            return
    raise AssertionError("the loop never ran out of operations")


def test_a_folder_is_never_a_mixture(tmp_path: Path) -> None:
    target = tmp_path / "export"
    for at in range(1, 80):
        with atomic.staged_folder(target) as staging:
            (staging / "a").write_text("old")
            (staging / "b").write_text("old")
        with pytest.MonkeyPatch.context() as patch:
            inject(patch, at)
            failed = False
            try:
                with atomic.staged_folder(target) as staging:
                    (staging / "a").write_text("new")
            except OSError:
                failed = True
        content = {p.name: p.read_text() for p in target.iterdir()} if target.exists() else None
        assert content in (None, {"a": "old", "b": "old"}, {"a": "new"})
        if not failed:
            assert content == {"a": "new"}
            return
    raise AssertionError("the loop never ran out of operations")


def test_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-x").mkdir()
    (tmp_path / ".tmp-x" / "f").write_text("half")
    (tmp_path / ".tmp-y").write_text("half")
    (tmp_path / "kept").write_text("whole")
    assert {p.name for p in atomic.remove_leftovers(tmp_path)} == {".tmp-x", ".tmp-y"}
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_json_cannot_hold_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "x", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
