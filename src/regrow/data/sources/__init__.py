"""Where documents come from: one file a kind of source.

A source is a function from its settings to units; a unit has the name that the ``source`` column
shows, and parts that can be read side by side; ``settle`` then decides what takes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from regrow.core.registry import Registry
from regrow.data.sources.pool import Unit
from regrow.io.places import local_paths

SOURCES: Registry[Callable[[Any], list[Unit]]] = Registry(
    "source",
    {
        "python": "regrow.data.sources.python:units",
        "folder": "regrow.data.sources.folder:units",
        "checkout": "regrow.data.sources.checkout:units",
    },
)


def local_inputs(sources: Iterable[Any]) -> list[Path]:
    """The files and folders of this machine that the settings of sources name."""
    named = (source.path for source in sources if hasattr(source, "path"))
    return [path for where in named for path in local_paths(where)]
