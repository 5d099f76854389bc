from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.core import atomic
from regrow.core.errors import CheckpointError, ResourceError
from regrow.train import checkpoint
from regrow.train.checkpoint import State, latest, load, problems, save, step_folder, steps_in

FILES = (
    "model.safetensors",
    "optimizer.safetensors",
    "rng.safetensors",
    "trainer.json",
    "data.json",
    "MANIFEST.json",
)


def make_state(step: int) -> State:
    generator = torch.Generator().manual_seed(step)
    return State(
        model={"w": torch.randn(40, 9, generator=generator), "b": torch.zeros(3)},
        optimizer={"w/exp_avg": torch.randn(40, 9, generator=generator)},
        rng={"cpu": generator.get_state()},
        trainer={"step": step, "seconds": 0.1 + 0.2},
        data={"samples": step * 8},
    )


def same(a: State, b: State) -> bool:
    tensors = all(
        torch.equal(x[name], y[name])
        for x, y in ((a.model, b.model), (a.optimizer, b.optimizer), (a.rng, b.rng))
        for name in x
    )
    return tensors and a.trainer == b.trainer and a.data == b.data


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 1000, make_state(1000), config_hash="abc")
    assert path.name == "step-00001000"
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["config"] == "abc"
    assert manifest["parent"] is None
    assert manifest["files"]["data.json"]["sha256"] == atomic.sha256_file(path / "data.json")
    assert latest(tmp_path) == path
    assert same(load(path), make_state(1000))
    save(tmp_path, 2000, make_state(2000))
    second = json.loads((step_folder(tmp_path, 2000) / "MANIFEST.json").read_text())
    assert second["parent"] == "step-00001000"


def test_tensors_that_share_memory_are_both_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    path = save(tmp_path, 1, State(model={"a": whole, "b": whole, "c": whole[4:8], "e": whole[:0]}))
    loaded = load(path).model
    assert torch.equal(loaded["b"], whole)
    assert torch.equal(loaded["c"], whole[4:8])
    assert loaded["e"].numel() == 0


def rewrite_manifest(path: Path, change: dict[str, Any]) -> None:
    """A manifest that is sound in itself, but says something else."""
    manifest = json.loads((path / "MANIFEST.json").read_text()) | change
    del manifest["sha256"]
    (path / "MANIFEST.json").write_text(checkpoint._manifest_text(manifest))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path / "missing") is None
    (tmp_path / ".tmp-step-00000003").mkdir()
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) is None


def test_the_newest_stay_and_never_fewer_than_two(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, make_state(step), keep=3 if step < 6 else 0)
    assert steps_in(tmp_path) == [5, 6]
    for step in range(1, 6):
        save(tmp_path / "b", step, make_state(step), keep=3)
    assert steps_in(tmp_path / "b") == [3, 4, 5]
    assert not list(tmp_path.glob(".tmp-*"))


def _damages(size: int, rng: random.Random) -> list[Callable[[Path], None]]:
    """Ways to damage a file: a flipped bit, a cut end, an added byte, nothing left of it."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    def cut(path: Path) -> None:
        os.truncate(path, rng.randrange(size))

    def grow(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\0")

    return [flip, flip, flip, cut, cut, grow, lambda path: path.unlink()]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_falls_back(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    good = tmp_path / "good"
    save(good, 1, make_state(1))
    save(good, 2, make_state(2))
    size = (step_folder(good, 2) / name).stat().st_size
    for index, damage in enumerate(_damages(size, rng)):
        folder = tmp_path / f"d{index}"
        shutil.copytree(good, folder)
        damage(step_folder(folder, 2) / name)
        events: list[tuple[str, dict[str, Any]]] = []
        changed = bool(problems(step_folder(folder, 2)))
        found = latest(folder, lambda event, events=events, **f: events.append((event, f)))
        assert found is not None
        assert changed, (name, index)
        assert found.name == "step-00000001"
        assert same(load(found), make_state(1))
        assert events[0][0] == "checkpoint_damaged"
        assert events[0][1]["level"] == "warning"
        assert name in events[0][1]["problems"][0]
        assert steps_in(folder) == [1]


def test_when_none_is_whole_it_is_an_error_and_nothing_is_deleted(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step, make_state(step))
        os.truncate(step_folder(tmp_path, step) / "model.safetensors", 10)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 10 bytes"):
        latest(tmp_path)
    assert steps_in(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"step": 7}, "that of step 7"),
        ({"files": {}}, "does not list"),
        ({"files": {"../x": {"bytes": 1, "sha256": ""}}}, "does not list"),
        ({"files": 3}, "damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, 1, make_state(1))
    rewrite_manifest(path, change)
    assert message in problems(path)[0]


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = save(tmp_path, 1, make_state(1))
    files = json.loads((path / "MANIFEST.json").read_text())["files"]
    rewrite_manifest(path, {"files": files | {"../step-00000001/data.json": files["data.json"]}})
    assert "missing" in problems(path)[0]


class Fault:
    """Raises from the k-th flush or rename on this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, k: int, number: int) -> None:
        self.left, self.number, self.fired = k, number, False
        for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                # As the system does: a descriptor has no name.
                names = [str(a) for a in args[:1] if isinstance(a, Path)]
                raise OSError(self.number, os.strerror(self.number), *names)
            return real(*args, **kwargs)

        return faulty


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, CheckpointError), (errno.ENOSPC, ResourceError)]
)
def test_any_failing_operation_leaves_a_checkpoint(
    tmp_path: Path, number: int, kind: type[Exception]
) -> None:
    good = tmp_path / "good"
    for step in (1, 2):
        save(good, step, make_state(step))
    k = 0
    while True:
        k += 1
        folder = tmp_path / f"k{k}"
        shutil.copytree(good, folder)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, k, number)
            message = ""
            try:
                save(folder, 3, make_state(3))
            except kind as error:
                message = str(error)
        assert fault.fired == ("checkpoint 3" in message and str(tmp_path) in message)
        if not fault.fired:
            break
        found = latest(folder)
        assert found is not None
        step = int(found.name[-8:])
        assert step in (2, 3)
        assert same(load(found), make_state(step))
        # The run goes on from there: the next save works and cleans up.
        atomic.remove_leftovers(folder)
        save(folder, 4, make_state(4))
        assert len(steps_in(folder)) == 2
    assert k > 15
    assert steps_in(folder) == [2, 3]


def test_a_failing_write_of_tensors_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, make_state(1))

    def full(*args: Any, **kwargs: Any) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", full)
    with pytest.raises(ResourceError, match="bytes are needed"):
        save(tmp_path, 2, make_state(2))
    assert steps_in(tmp_path) == [1]
    assert latest(tmp_path) is not None


def test_a_disk_that_is_too_small_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 5, 5))
    with pytest.raises(ResourceError, match="which has 5 free"):
        save(tmp_path, 1, make_state(1))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_saved_again_replaces_the_old(tmp_path: Path) -> None:
    save(tmp_path, 1, make_state(1))
    path = save(tmp_path, 1, make_state(5))
    assert same(load(path), make_state(5))
