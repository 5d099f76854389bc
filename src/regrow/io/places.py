"""Files wherever they lie: a folder, a file, a glob, or a URL that fsspec opens."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from regrow.core.errors import ConfigError, InputError

URL = re.compile(r"^([a-z][a-z0-9+.-]*)://")
COMPRESSED = (".gz", ".zst")
_STEP = 16 << 10
# Errors of clients that fsspec passes on as they are.
_CLIENTS = (
    ("httpx", "HTTPError"),
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
)
_WILD = re.compile(r"[*?\[]")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def unreadable() -> tuple[type[Exception], ...]:
    """What opening, reading or listing can raise: for an ``except``, where it is evaluated late."""
    clients = (getattr(sys.modules.get(module), name, None) for module, name in _CLIENTS)
    return (OSError, EOFError, zlib.error, *filter(None, clients))


@dataclass(frozen=True, slots=True)
class Place:
    """One file.

    Args:
        where: its path, or its URL.
        name: its path below what was listed, with ``/``; valid Unicode.
        bytes: its size.
    """

    where: str
    name: str
    bytes: int

    @property
    def is_regular(self) -> bool:
        """False for a pipe, a device or a dangling link, which would block or fail."""
        return bool(URL.match(self.where)) or os.path.isfile(self.where)

    def open(self) -> BinaryIO:
        """Its bytes as they lie.

        Raises:
            OSError: it cannot be opened.
        """
        if not URL.match(self.where):
            return open(self.where, "rb")
        return cast(BinaryIO, _filesystem(self.where).open(self.where, "rb"))

    def open_plain(self) -> BinaryIO:
        """Its bytes, decompressed in a stream where its name ends in ``.gz`` or ``.zst``.

        Raises:
            OSError: it cannot be opened.
        """
        return decompressed(self.open(), self.name)


def decompressed(file: BinaryIO, name: str) -> BinaryIO:
    """``file`` as a stream of what it holds, by the suffix of ``name``; the stream closes it.

    Where the stream breaks off, what came before can be read (of zstd all but the last 16 KiB).
    """
    if name.lower().endswith(".gz"):
        return cast(BinaryIO, _Gzip(file))
    if name.lower().endswith(".zst"):
        return cast(BinaryIO, io.BufferedReader(_Zstandard(file), _STEP))
    return file


class _Gzip(gzip.GzipFile):
    """A gzip stream that closes the file below it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()


class _Zstandard(io.RawIOBase):
    """A zstd stream by Arrow's codec, read in small steps: a step that fails gives nothing."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa

        self._below = file
        self._stream = pa.CompressedInputStream(file, "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), _STEP))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        super().close()
        self._below.close()


def plain_suffix(name: str) -> str:
    """The suffix in lower case, of what is inside where the file is compressed: ``.jsonl``."""
    lowered = name.lower()
    for ending in COMPRESSED:
        lowered = lowered.removesuffix(ending)
    return os.path.splitext(lowered)[1]


def find(where: str, hidden: bool = False) -> list[Place]:
    """The files that ``where`` means, sorted by name; links to folders are not followed.

    Args:
        where: a folder (with all below it), a file, a glob (``**`` for any depth) or a URL.
        hidden: whether names that begin with a dot count.

    Raises:
        ConfigError: a URL of a kind that needs a package which is not installed, or the network
            while it is switched off.
        InputError: nothing there, or it cannot be listed.
    """
    found = _remote(where) if URL.match(where) else _local(where)
    if not found and (URL.match(where) or _WILD.search(where) or not os.path.isdir(where)):
        raise InputError(f"{where} {'matches' if _WILD.search(where) else 'holds'} no file")
    if not hidden:
        found = [p for p in found if not any(x.startswith(".") for x in p.name.split("/"))]
    return sorted(found, key=lambda place: place.name)


def local_paths(where: str) -> list[Path]:
    """What on this machine ``where`` names: itself, or what a glob matches; nothing for a URL."""
    if URL.match(where):
        return []
    if _WILD.search(where) and not os.path.exists(where):
        return sorted(map(Path, glob.iglob(where, recursive=True)))
    return [Path(where)]


def _name(path: str) -> str:
    # A file name need not be Unicode, a column of a table must be.
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a dangling link: it is listed, and found unreadable when it is read
        return 0


def _local(where: str) -> list[Place]:
    if os.path.isdir(where):
        return list(_walk(where, where))
    if os.path.lexists(where):
        return [Place(where, _name(os.path.basename(where)), _size(where))]
    if not _WILD.search(where):
        raise InputError(f"{where} does not exist")
    # Named from the last folder that is no pattern, so that two matches never share a name.
    base = os.path.dirname(where[: _WILD.search(where).start()])  # type: ignore[union-attr]
    found: dict[str, Place] = {}
    for path in glob.iglob(where, recursive=True):
        if _is_linked(path, base):
            continue
        if os.path.isdir(path):
            if not where.endswith("**"):  # which lists what is inside by itself
                found.update((place.name, place) for place in _walk(path, base))
        else:
            name = _name(os.path.relpath(path, base or "."))
            found[name] = Place(path, name, _size(path))
    return list(found.values())


def _is_linked(path: str, base: str) -> bool:
    """Whether a folder below ``base`` on the way to ``path``, or ``path`` as one, is a link."""
    if not os.path.isdir(path):
        path = os.path.dirname(path)
    while len(path) > len(base):
        if os.path.islink(path):
            return True
        path = os.path.dirname(path)
    return False


def _walk(root: str, base: str) -> Iterator[Place]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in names:
            path = os.path.join(folder, name)
            yield Place(path, _name(os.path.relpath(path, base or ".")), _size(path))


def _filesystem(where: str) -> Any:
    """The fsspec file system of a URL.

    Raises:
        ConfigError: it is unknown, or its package is missing.
    """
    import fsspec

    protocol = URL.match(where)[1]  # type: ignore[index]
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol, "")
        fix = f"pip install {package}" if package else str(error)
        raise ConfigError(f"{where}: {protocol}:// needs a package: {fix}") from error
    except ValueError as error:
        raise ConfigError(
            f"{where}: {protocol}:// is nothing that can be read from; use a path, s3:// or "
            "hf://datasets/..."
        ) from error


def _remote(where: str) -> list[Place]:
    if where.startswith("hf://") and os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(
            f"{where}: regrow keeps Hugging Face offline; set the environment variable "
            "HF_HUB_OFFLINE=0 to read from it"
        )
    system = _filesystem(where)
    path = system._strip_protocol(where)
    try:
        if _WILD.search(path):
            base = os.path.dirname(path[: _WILD.search(path).start()])  # type: ignore[union-attr]
            listed = system.glob(path, detail=True)
        elif system.isfile(path):
            base, listed = os.path.dirname(path), {path: system.info(path)}
        else:
            base, listed = path, system.find(path, detail=True)
    except unreadable() as error:
        raise InputError(f"{where} cannot be listed ({error})") from error
    return [
        Place(system.unstrip_protocol(path), _below(path, base), int(info.get("size") or 0))
        for path, info in listed.items()
        if info.get("type") == "file"
    ]


def _below(path: str, base: str) -> str:
    return path.removeprefix(base).lstrip("/")
