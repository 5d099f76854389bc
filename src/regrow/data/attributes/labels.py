"""The labels of a run of ``curate annotate``, written line by line as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from regrow.core.errors import Interrupted, RunError
from regrow.core.run import Run
from regrow.data.attributes.annotators import Annotator
from regrow.data.attributes.examples import Example
from regrow.io.endpoint import ReplyError
from regrow.io.jsonl import open_to_add, read_jsonl

LABELS = "labels.jsonl"
_FAILURES_ALLOWED = 5  # whatever the share, so that one bad reply of three ends nothing


class Labels:
    """Labels by document, in a file that only grows.

    Args:
        path: ``labels.jsonl``.
        by: who labels.
    """

    def __init__(self, path: Path, by: str) -> None:
        self.labels: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.by = by
        self._file = open_to_add(path)
        for line in read_jsonl(path):
            if line.value is not None and isinstance(line.value.get("id"), str):
                self._take(line.value["id"], line.value.get("label"), line.value.get("error"))

    def _take(self, name: str, label: Any, error: Any) -> None:
        if isinstance(label, str):
            self.labels[name] = label
        else:
            self.failed[name] = str(error)

    def write(self, name: str, label: str | None, error: str | None = None) -> None:
        """Add a document's label, or why it has none."""
        self._take(name, label, error)
        record = {"id": name, "label": label, "by": self.by}
        if error is not None:
            record["error"] = error
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def label_all(
    book: Labels, examples: Sequence[Example], annotator: Annotator, max_failed: float, run: Run
) -> None:
    """Label what has no label yet, several at once where the annotator can.

    Args:
        book: what is labelled already; grows.
        examples: to label, in order.
        annotator: who labels.
        max_failed: share of the examples that may stay without a label.
        run: shows progress, and may be asked to stop.

    Raises:
        RunError: more stay without a label; or what the annotator raises.
        Interrupted: after Ctrl-C, between two documents.
    """
    todo = (e for e in examples if e.id not in book.labels and e.id not in book.failed)
    allowed = max(_FAILURES_ALLOWED, int(max_failed * len(examples)))
    with (
        run.progress("annotate", len(examples), "docs") as progress,
        ThreadPoolExecutor(annotator.concurrency) as pool,
    ):
        progress.advance(len(book.labels) + len(book.failed))
        waiting: dict[Future[str], str] = {}
        try:
            while True:
                for example in islice(todo, 2 * annotator.concurrency - len(waiting)):
                    waiting[pool.submit(annotator.label, example.text)] = example.id
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    name = waiting.pop(future)
                    try:
                        book.write(name, future.result())
                    except ReplyError as error:
                        book.write(name, None, error.message)
                    progress.advance(1)
                _require_labels(book, allowed, len(examples))
                if run.stop_requested:
                    raise Interrupted(
                        f"stopped with {len(book.labels)} of {len(examples)} documents labelled; "
                        "the same command goes on with the rest"
                    )
        except BaseException:
            for future in waiting:
                future.cancel()
            annotator.stop()  # or the pool would wait for every pause between attempts
            raise


def _require_labels(book: Labels, allowed: int, total: int) -> None:
    if len(book.failed) > allowed:
        shown = [f"{name}: {error}" for name, error in list(book.failed.items())[-3:]]
        raise RunError(
            f"{len(book.failed)} of {total} documents got no label that fits (max_failed allows "
            f"{allowed}); look at {LABELS}, then change the prompt, the model or max_failed",
            shown,
        )
