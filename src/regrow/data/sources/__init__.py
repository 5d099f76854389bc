"""Where documents come from: one file a kind of source.

A source is a function from its settings to units; a unit has the name that the ``source`` column
shows, and reads its documents in one pass, in an order that does not depend on the file system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regrow.core.registry import Registry
from regrow.data.sources.pool import Unit

SOURCES: Registry[Callable[[Any], list[Unit]]] = Registry(
    "source",
    {
        "python": "regrow.data.sources.python:units",
        "folder": "regrow.data.sources.folder:units",
    },
)
