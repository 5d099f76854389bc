"""Checkpoints that are whole or absent, and known to be whole before they are read.

::

    checkpoints/step-00001000/
        model.safetensors  optimizer.safetensors  rng.safetensors  trainer.json  data.json
        MANIFEST.json      {format, step, config, parent, files: {name: {bytes, sha256}}, sha256}

A checkpoint is written into ``.tmp-step-...``; every file is flushed, the manifest last; the folder
is renamed and its parent flushed. There is no pointer to the latest: it is computed, as the highest
step whose manifest verifies. Several processes write files of their own,
``model-00001-of-00004.safetensors``, into one staging folder before the first of them writes the
manifest (``shared_checkpoint.py``); readers only ever believe the manifest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from regrow.core import atomic
from regrow.core.errors import CheckpointError, ResourceError

FORMAT = 1
MANIFEST = "MANIFEST.json"
DISK_MARGIN = 1.2
_FOLDER = re.compile(r"^step-(\d{8,})$")
_PART = re.compile(r"^(?P<kind>[a-z]+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")
_TENSOR_FILES = ("model", "optimizer", "rng")
_JSON_FILES = ("trainer", "data")

Log = Callable[..., None]


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a run needs to go on as if it had never stopped.

    Args:
        model: the trained module's state dict.
        optimizer: ``parameter/key`` to tensor.
        rng: states of random generators, by name.
        trainer: step, tokens, averages under way.
        data: the loader's position.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    rng: Mapping[str, Tensor] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def bytes(self) -> int:
        """Size of the tensors."""
        groups = (self.model, self.optimizer, self.rng)
        return sum(t.numel() * t.element_size() for group in groups for t in group.values())


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimiser steps lies."""
    return folder / f"step-{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """Steps of all checkpoints that are there, whole or not, ascending."""
    if not folder.is_dir():
        return []
    found = (_FOLDER.match(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(int(match.group(1)) for match in found if match)


def save(
    folder: Path,
    step: int,
    state: State,
    *,
    config_hash: str = "",
    keep: int = 2,
    flush: Sequence[Path] = (),
) -> Path:
    """Write one checkpoint, then delete old ones but for the newest ``keep``.

    Args:
        folder: the run's ``checkpoints``.
        step: optimiser steps done.
        state: what to write; tensors may live on any device.
        config_hash: of the run's settings, kept in the manifest.
        keep: at least 2.
        flush: files that must have reached the disk first, such as the metrics up to this step.

    Returns:
        The checkpoint's folder.

    Raises:
        ResourceError: the disk has too little room, or ran out of it.
        CheckpointError: the file system refused; earlier checkpoints are as they were.
    """
    saving = Saving(folder, step, state.bytes(), flush)
    try:
        saving.begin()
        files = _write_tensors(saving.staging, state)
        return saving.publish(state, files, config_hash, keep)
    except OSError as error:
        raise saving.failed(error) from error
    finally:
        saving.abandon()


class Saving:
    """One checkpoint on its way: a staging folder that is published or leaves no trace.

    Args:
        folder: the run's ``checkpoints``.
        step: optimiser steps done.
        size: bytes of all tensors.
        flush: files that must have reached the disk first.
    """

    def __init__(self, folder: Path, step: int, size: int, flush: Iterable[Path] = ()) -> None:
        self.folder, self.step, self.size, self.flush = folder, step, size, tuple(flush)
        self.staging = staging_folder(folder, step)

    def begin(self) -> None:
        """Make the staging folder.

        Raises:
            ResourceError: the disk has too little room.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _check_room(self.folder, self.size)
            for path in self.flush:
                if path.exists():
                    atomic.fsync_path(path)
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except OSError as error:
            raise self.failed(error) from error

    def publish(
        self, state: State, tensors: Mapping[str, dict[str, Any]], config_hash: str, keep: int
    ) -> Path:
        """Write what is no weight, then the manifest, and give the folder its name.

        Args:
            state: its ``rng``, ``trainer`` and ``data`` are written here.
            tensors: files that are there already, with sizes and hashes.
            config_hash: of the run's settings.
            keep: checkpoints that stay.
        """
        try:
            files = {**tensors, **_write_records(self.staging, state)}
            parent = max((s for s in steps_in(self.folder) if s < self.step), default=None)
            manifest = {
                "format": FORMAT,
                "step": self.step,
                "config": config_hash,
                "parent": step_folder(self.folder, parent).name if parent is not None else None,
                "files": dict(sorted(files.items())),
            }
            atomic.write_text(self.staging / MANIFEST, _manifest_text(manifest))
            final = step_folder(self.folder, self.step)
            atomic.publish_folder(self.staging, final)
            retain(self.folder, self.step, keep)
        except OSError as error:
            raise self.failed(error) from error
        return final

    def abandon(self) -> None:
        """Leave no staging folder; nothing to do after :meth:`publish`."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def failed(self, error: OSError) -> CheckpointError | ResourceError:
        """The error to raise for one of the file system."""
        where = error.filename or self.folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceError(
                f"no room for checkpoint {self.step} at {where}: {_needed(self.size)} bytes are "
                f"needed; earlier checkpoints are as they were"
            )
        return CheckpointError(f"cannot write checkpoint {self.step} at {where}: {error}")


def staging_folder(folder: Path, step: int) -> Path:
    """Where a checkpoint is written before it is published."""
    return folder / f"{atomic.TEMPORARY_PREFIX}{step_folder(folder, step).name}"


def problems(path: Path) -> list[str]:
    """What is wrong with a checkpoint; empty when its manifest verifies.

    Reads every byte, the files in parallel.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        version, files = manifest["format"], dict(manifest["files"])
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
        step = manifest["step"]
    except OSError as error:
        return [f"{path.name}/{MANIFEST} cannot be read: {error.strerror}"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{path.name}/{MANIFEST} is damaged"]
    if text != _manifest_text({k: v for k, v in manifest.items() if k != "sha256"}):
        return [f"{path.name}/{MANIFEST} is damaged"]
    if version != FORMAT:
        return [f"{path.name} has checkpoint format {version}, this version reads {FORMAT}"]
    if step_folder(path.parent, step).name != path.name:
        return [f"{path.name}/{MANIFEST} is that of step {step}"]
    missing = {f"{name}.json" for name in _JSON_FILES} - set(expected)
    missing |= {f"{n}.safetensors" for n in _TENSOR_FILES if not _complete(n, set(expected))}
    if missing:
        return [f"{path.name}/{MANIFEST} does not list {sorted(missing)[0]}"]

    def check(name: str) -> str | None:
        size, digest = expected[name]
        file = path / name
        try:
            if Path(name).name != name or not file.is_file():
                return f"{path.name}/{name} is missing"
            if file.stat().st_size != size:
                return f"{path.name}/{name} has {file.stat().st_size} bytes instead of {size}"
            return None if atomic.sha256_file(file) == digest else f"{path.name}/{name} is damaged"
        except OSError as error:
            return f"{path.name}/{name} cannot be read: {error.strerror}"

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(check, expected) if line]


def latest(folder: Path, log: Log = lambda event, **fields: None) -> Path | None:
    """The newest checkpoint that verifies; None where there is none at all.

    A damaged one is reported to ``log`` and passed over; once a whole one is found, the damaged
    newer ones are deleted, so that retention never counts them.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    damaged: list[tuple[Path, list[str]]] = []
    for step in reversed(steps_in(folder)):
        path = step_folder(folder, step)
        wrong = problems(path)
        if not wrong:
            for bad, lines in damaged:
                log("checkpoint_damaged", level="warning", path=str(bad), problems=lines)
                _delete(bad)
            return path
        damaged.append((path, wrong))
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {folder} is whole; --force starts the run anew",
            [line for _, lines in damaged for line in lines],
        )
    return None


def load(path: Path) -> State:
    """Read a checkpoint that :func:`latest` returned, onto the CPU.

    Raises:
        CheckpointError: it cannot be read after all.
    """
    try:
        tensors = {name: _load_tensors(path, name) for name in _TENSOR_FILES}
        records = {name: atomic.read_json(path / f"{name}.json") for name in _JSON_FILES}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    return State(
        tensors["model"], tensors["optimizer"], tensors["rng"], records["trainer"], records["data"]
    )


def _manifest_text(manifest: dict[str, Any]) -> str:
    """The exact content of a manifest, with a digest of itself: nothing else is one."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps(manifest | {"sha256": digest}, indent=1) + "\n"


def _needed(size: int) -> int:
    return int(size * DISK_MARGIN) + (1 << 20)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < _needed(size):
        raise ResourceError(
            f"a checkpoint needs {_needed(size)} bytes in {folder}, which has {free} free; "
            "free some and run the same command"
        )


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, no memory shared by two names."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if pointer in seen and value.numel() else value
        seen.add(pointer)
    return plain


def _write_tensors(staging: Path, state: State) -> dict[str, dict[str, Any]]:
    """Write and flush weights and optimiser state; their sizes and hashes, as read back."""
    with _Finishing() as finishing:
        # The larger file first: its hash takes longest, and nothing else can share that.
        for name, tensors in (("optimizer", state.optimizer), ("model", state.model)):
            write_tensors(staging / f"{name}.safetensors", tensors)
            finishing.add(staging / f"{name}.safetensors")
        return finishing.entries()


def _write_records(staging: Path, state: State) -> dict[str, dict[str, Any]]:
    """Write and flush what is small: states of generators, step, position."""
    write_tensors(staging / "rng.safetensors", state.rng)
    names = ["rng.safetensors"]
    for name, record in zip(_JSON_FILES, (state.trainer, state.data), strict=True):
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        (staging / f"{name}.json").write_text(text, encoding="utf-8")
        names.append(f"{name}.json")
    with _Finishing() as finishing:
        for name in names:
            finishing.add(staging / name)
        return finishing.entries()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file.

    Raises:
        OSError: the file system refused; with its number.
    """
    try:
        safetensors.torch.save_file(_plain(tensors), path)
    except SafetensorError as error:  # its wrapper of the system's error loses the number
        full = "os error 28" in str(error) or "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def finish_file(path: Path) -> dict[str, Any]:
    """Flush a file; its size and hash, as read back."""
    with _Finishing() as finishing:
        finishing.add(path)
        return finishing.entries()[path.name]


class _Finishing:
    """Flushes files and hashes them while the next is written: the disk and a core beside."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8)
        self._tasks: dict[Path, tuple[Future[None], Future[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, path: Path) -> None:
        """A file that is written."""
        flushed = self._pool.submit(atomic.fsync_path, path)
        self._tasks[path] = flushed, self._pool.submit(atomic.sha256_file, path)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Size and hash of each, when all have reached the disk."""
        found = {}
        for path, (flushed, digest) in self._tasks.items():
            flushed.result()
            found[path.name] = {"bytes": path.stat().st_size, "sha256": digest.result()}
        return found


def _complete(kind: str, names: set[str]) -> bool:
    """Whether tensors of a kind are all listed: in one file, or in one of each process."""
    if f"{kind}.safetensors" in names:
        return True
    parts = [match for match in (_PART.match(name) for name in names) if match]
    found = {int(m["number"]) for m in parts if m["kind"] == kind}
    counts = {int(m["count"]) for m in parts if m["kind"] == kind}
    return len(counts) == 1 and found == set(range(1, counts.pop() + 1))


def _load_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    files = sorted(path.glob(f"{kind}-*-of-*.safetensors")) or [path / f"{kind}.safetensors"]
    loaded: dict[str, Tensor] = {}
    for file in files:
        loaded.update(safetensors.torch.load_file(file))
    return loaded


def retain(folder: Path, step: int, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints up to that of ``step``, which is whole.

    :func:`save` does it; a resume does it again, for a process may die between a checkpoint's
    publication and the deletion of old ones.

    Args:
        folder: the run's ``checkpoints``.
        step: of the checkpoint just written, or just verified.
        keep: at least 2.

    Raises:
        CheckpointError: that checkpoint is not as its manifest says; nothing was deleted.
    """
    newest = step_folder(folder, step)
    manifest = atomic.read_json(newest / MANIFEST)
    for name, entry in manifest["files"].items():
        if (newest / name).stat().st_size != entry["bytes"]:
            raise CheckpointError(f"checkpoint {newest} changed while it was written: {name}")
    older = [s for s in steps_in(folder) if s < step]
    for old in older[: max(0, len(older) - (max(2, keep) - 1))]:
        _delete(step_folder(folder, old))


def _delete(path: Path) -> None:
    """Take the name away first: a half-deleted checkpoint is none."""
    aside = path.with_name(f"{atomic.TEMPORARY_PREFIX}old-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
