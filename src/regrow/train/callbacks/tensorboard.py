"""TensorBoard events of a run, in its folder ``tensorboard/``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class TensorBoard:
    """Writes each number of a record as a scalar over consumed tokens.

    Event files cannot be cut where a run was killed, so they are written anew from the records
    whenever a run starts or goes on: no point is there twice, and none that was taken back.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._writer: Any = None

    def begin(self, records: Sequence[dict[str, Any]]) -> None:
        """Forget what the folder holds, and write ``records``."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is not None:
            self._writer.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._writer = EventFileWriter(str(self.folder))
        for record in records:
            self._add(record)
        self._writer.flush()

    def on_record(self, record: dict[str, Any]) -> None:
        """Add one record; it is in the file when this returns."""
        self._add(record)
        self._writer.flush()

    def _add(self, record: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record)]
        # The run's own clock: the same records make the same events whenever they are written.
        event = Event(
            step=int(record["tokens"]),
            wall_time=float(record.get("seconds", 0.0)),
            summary=Summary(value=values),
        )
        self._writer.add_event(event)


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Each number of a record with its tag: ``train/loss``, ``validation/losses/code``."""
    if "validation" in record:
        yield from _numbers(record["validation"], "validation")
    else:
        shown = {key: v for key, v in record.items() if key not in ("tokens", "seconds")}
        yield from _numbers(shown, "train")


def _numbers(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{key}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}/{key}", float(value)
