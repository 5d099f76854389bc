"""Files and folders that are either whole or absent, whatever moment the process dies at.

Each write goes to a temporary name beside its target, is flushed to the disk, and is renamed over
the target; the containing folder is flushed last, since on most file systems a rename is durable
only after that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically.

    Raises:
        OSError: from the file system; the earlier content of ``path`` is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically.

    Raises:
        ValueError: NaN or infinity, which JSON cannot hold.
        TypeError: a value of no JSON type.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``final`` when the block ends without an error.

    An earlier folder at ``final`` is replaced. A folder cannot be swapped in one step on every
    system, so it is first moved aside to a temporary name: a process that dies in between leaves
    no ``final`` at all, never a mixture of the two, and the same command makes it again.

    Yields:
        The folder to write into, on the same file system as ``final``.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f"{TEMPORARY_PREFIX}{final.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        publish_folder(staging, final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def publish_folder(staging: Path, final: Path) -> None:
    """Flush everything in ``staging`` and rename it to ``final``."""
    for root, _, names in os.walk(staging):
        for name in names:
            fsync_path(Path(root) / name)
        fsync_path(Path(root))
    if final.exists():
        old = final.with_name(f"{TEMPORARY_PREFIX}old-{final.name}")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        try:
            staging.rename(final)
        except OSError:
            old.rename(final)
            raise
        fsync_path(final.parent)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(final)
        fsync_path(final.parent)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what an interrupted write left right inside ``folder``; returns what was deleted."""
    leftovers = sorted(folder.glob(f"{TEMPORARY_PREFIX}*"))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return leftovers


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
