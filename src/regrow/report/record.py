"""Run folders read with tolerance: a file or key may be absent or hold anything, and that is None.

A page is made after the work is done, from whatever the verb wrote; it must come out of a result
with one key as well as of one with a hundred.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regrow.core.errors import RegrowError
from regrow.core.metrics_log import MetricsLog
from regrow.core.yaml12 import read_yaml

_DEPTH = 24


def number(value: Any) -> float | int | None:
    """``value`` when it is a finite number; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) and abs(value) < 1e300 else None
    except OverflowError:
        return None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` when it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """``value`` when it is a list; else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """``value`` when it is text with something in it."""
    return value if isinstance(value, str) and value else None


def numbers(value: Any) -> dict[str, float | int]:
    """The entries of an object that are numbers."""
    found = {str(key): number(item) for key, item in mapping(value).items()}
    return {key: item for key, item in found.items() if item is not None}


def find(value: Any, key: str, depth: int = 0) -> Any:
    """The first entry called ``key`` in nested objects and lists, nearest the top; else None."""
    if depth > _DEPTH:
        return None
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    for inner in items(value):
        found = find(inner, key, depth + 1)
        if found is not None:
            return found
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


@dataclass(slots=True)
class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
        result: ``result.json``.
        env: ``env.json``.
        status: ``status.json``.
        lineage: ``lineage.json``.
        inputs: ``inputs.json``.
        config: ``config.yaml``.
        config_text: the same as it stands in the file.
        card: ``card.json``.
    """

    path: Path
    result: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    _metrics: list[dict[str, Any]] | None = None

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """The folder's files; the metrics wait until they are asked for."""
        try:
            config_text = (path / "config.yaml").read_text(encoding="utf-8", errors="replace")
            config, _ = read_yaml(path / "config.yaml")
        except (OSError, RegrowError, RecursionError):
            config_text, config = "", {}
        return cls(
            path,
            mapping(_json(path / "result.json")),
            mapping(_json(path / "env.json")),
            mapping(_json(path / "status.json")),
            mapping(_json(path / "lineage.json")),
            [record for record in items(_json(path / "inputs.json")) if isinstance(record, dict)],
            mapping(config),
            config_text,
            mapping(_json(path / "card.json")),
        )

    @property
    def verb(self) -> str:
        """What was done; of a sweep, what was swept."""
        swept = text(mapping(self.result.get("sweep")).get("verb"))
        for source in (self.result, self.lineage, self.status, self.config):
            if found := text(source.get("verb")):
                return swept or found
        return swept or "run"

    @property
    def is_sweep(self) -> bool:
        """Whether the best of several trials was kept."""
        return bool(mapping(self.result.get("sweep")))

    @property
    def is_family(self) -> bool:
        """Whether the result tells of a family: a list of models."""
        return any(isinstance(model, dict) for model in items(self.result.get("models")))

    @property
    def title(self) -> str:
        """The name that the run was given, else that of its folder."""
        return text(self.result.get("name")) or self.path.resolve().name or self.verb

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl``."""
        if self._metrics is None:
            try:
                records = MetricsLog(self.path / "metrics.jsonl").read()
            except (OSError, RecursionError):
                records = []
            self._metrics = [record for record in records if isinstance(record, dict)]
        return self._metrics

    def has(self, name: str) -> bool:
        """Whether the run folder holds ``name``."""
        return (self.path / name).exists()

    def parts(self) -> list[RunFolder]:
        """The finished run folders directly inside, by name."""
        found = sorted(p.parent for p in self.path.glob("*/result.json") if p.is_file())
        return [RunFolder.read(path) for path in found]


def link(path: str) -> str:
    """A relative path for ``href``; quoted, so that it cannot name another place."""
    quoted = quote(path.replace("\\", "/").lstrip("/"))
    return quoted if "/" in quoted else f"./{quoted}"
