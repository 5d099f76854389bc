"""``trials.jsonl``: one line a trial, there for good once :meth:`TrialLog.append` returns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrow.core.atomic import fsync_path
from regrow.core.errors import InputError


class TrialLog:
    """An append-only log that a kill at any instant leaves whole.

    Each record is one write of one line, flushed to the disk before it counts. A process that dies
    within the write leaves a line without an end, which the next opening cuts off: nobody was told
    of it. One process writes at a time; whoever opens the log holds the run folder's lock.

    Args:
        path: the file; made with the first record.

    Raises:
        InputError: a line other than the last is no record, or a trial stands twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                key, record = entry["trial"], entry["outcome"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.path}:{number}: no record of a trial; the file was changed from "
                    "outside: restore it, or --force to start anew"
                ) from error
            if key in self._records:
                raise InputError(f"{self.path}:{number}: trial {key} stands twice")
            self._records[key] = record
        if whole < len(data):
            os.truncate(self.path, whole)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and record of each trial, in the order of appending."""
        yield from self._records.items()

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a trial; None where it has none yet."""
        return self._records.get(key)

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Write the record of a trial; it is on the disk when this returns.

        Raises:
            ValueError: the trial has one already, or a number is not finite.
            OSError: from the file system; the record then does not count.
        """
        if key in self._records:
            raise ValueError(f"trial {key} is in the log already")
        entry = {"trial": key, "outcome": dict(record)}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
        fresh = not self.path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self.path, flags, 0o666)
        try:
            end = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line.encode())
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if fresh:
            fsync_path(self.path.parent)
        self._records[key] = json.loads(line)["outcome"]


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
