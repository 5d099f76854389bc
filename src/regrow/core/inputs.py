"""What a run was made from: files by size and hash, and the runs they came from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.errors import InputError

WHOLE_HASH_BYTES = 1 << 30
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 64


def hash_file(path: Path) -> dict[str, Any]:
    """``{bytes, mtime_ns, sha256}``; above 1 GiB 64 spread samples are hashed, and it says so."""
    stat = path.stat()
    record: dict[str, Any] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if stat.st_size <= WHOLE_HASH_BYTES:
        return record | {"sha256": atomic.sha256_file(path)}
    digest = hashlib.sha256(str(stat.st_size).encode())
    stride = (stat.st_size - _SAMPLE_BYTES) // (_SAMPLES - 1)
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            file.seek(index * stride)
            digest.update(file.read(_SAMPLE_BYTES))
    return record | {"sha256": digest.hexdigest(), "sampled": True}


def files_of(path: Path) -> list[Path]:
    """The regular files of an input: itself, or all below a folder, sorted, temporary ones out."""
    if path.is_file():
        return [path]
    found = (p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in found if not any(x.startswith(".tmp-") for x in p.parts))


def fingerprint(path: Path, role: str) -> dict[str, Any]:
    """One record of ``inputs.json``.

    Args:
        path: a file, or a folder whose files all count.
        role: what it serves as ("model", "shards").

    Raises:
        InputError: nothing there.
    """
    if not path.exists():
        raise InputError(f"{role} {path} does not exist")
    base = path if path.is_dir() else path.parent
    files = {str(p.relative_to(base)): hash_file(p) for p in files_of(path)}
    if not files:
        raise InputError(f"{role} {path} is an empty folder")
    digest = hashlib.sha256()
    for name, record in files.items():
        digest.update(f"{name}\0{record['sha256']}\n".encode())
    run = run_folder_of(path)
    return {
        "role": role,
        "path": str(path),
        "sha256": digest.hexdigest(),
        "bytes": sum(record["bytes"] for record in files.values()),
        "run": str(run) if run else None,
        "files": files,
    }


def run_folder_of(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in; None outside of one."""
    for folder in (path, *path.parents):
        if (folder / "lineage.json").exists() and (folder / "config.yaml").exists():
            return folder
    return None


def changed(record: dict[str, Any]) -> str | None:
    """What is different from an earlier record of an input; None where nothing is.

    Files of the recorded size and time count as unchanged without being read again.
    """
    path = Path(record["path"])
    if not path.exists():
        return f"{record['role']} {path} is gone"
    base = path if path.is_dir() else path.parent
    present = {str(p.relative_to(base)) for p in files_of(path)}
    if present != set(record["files"]):
        odd = sorted(present ^ set(record["files"]))[0]
        return f"{record['role']} {path}: {odd} {'is new' if odd in present else 'is gone'}"
    for name, old in record["files"].items():
        stat = (base / name).stat()
        if (stat.st_size, stat.st_mtime_ns) == (old["bytes"], old["mtime_ns"]):
            continue
        if hash_file(base / name)["sha256"] != old["sha256"]:
            return f"{record['role']} {path}: {name} has other content"
    return None
