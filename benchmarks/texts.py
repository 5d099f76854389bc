"""Real texts to measure on: of a run of curate, or of the Python installation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrow.data.settings.sources import PythonDomain


def of_run(run: Path, code: bool) -> Iterator[str]:
    """Documents of a run of curate.

    Args:
        run: its folder.
        code: whether code counts.
    """
    from regrow.io.parquet import read_batches

    for table in sorted(run.rglob("documents/*.parquet")):
        if table.name != "dropped.parquet":
            for batch in read_batches(table, ["text", "kind"]):
                for row in batch.to_pylist():
                    if code or row["kind"] != "code":
                        yield row["text"]


def of_python(domains: Sequence[PythonDomain], code: bool) -> Iterator[str]:
    """Documents of the Python installation.

    Args:
        domains: in their order.
        code: whether code counts.
    """
    from regrow.data.document import Document
    from regrow.data.settings.sources import PythonSource
    from regrow.data.sources import SOURCES

    for unit in SOURCES.get("python")(PythonSource(domains=tuple(domains))):
        for item in unit.read():
            if isinstance(item, Document) and (code or item.kind != "code"):
                yield item.text


def up_to(megabytes: float, texts: Iterable[str]) -> list[str]:
    """The first texts, until they are as large."""
    found: list[str] = []
    size = 0
    for text in texts:
        found.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return found
