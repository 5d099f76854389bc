"""``metrics.jsonl``: one record a line, appended as a run goes, exact again after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from regrow.core import atomic


class MetricsLog:
    """The measurements of a run over time.

    A killed process may leave half a line at the end, and records beyond the last checkpoint;
    :meth:`truncate` removes both before a run goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; numbers must be finite."""
        line = json.dumps(record, allow_nan=False, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole records, in the order written."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break  # only the last line can be torn
            records.append(record)
        return records

    def truncate(self, step: int) -> None:
        """Keep only the records up to ``step`` (by their ``step`` field)."""
        kept = [record for record in self.read() if record.get("step", 0) <= step]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        if self.path.exists() or kept:
            atomic.write_text(self.path, text)
