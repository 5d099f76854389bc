"""What else is told of a training: each record of ``metrics.jsonl`` goes to every callback.

``metrics.jsonl`` is the truth; a callback shows it elsewhere and keeps nothing of its own. To add
one: a file here with a class that has ``begin`` and ``on_record``, a line in ``CALLBACKS``, and a
key of the same name in :class:`regrow.train.config.LogConfig`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from regrow.core.errors import ConfigError


class Callback(Protocol):
    """Follows the records of one run."""

    def begin(self, records: Sequence[dict[str, Any]]) -> None:
        """The run starts or goes on; ``records`` are all that count so far, from its first on."""

    def on_record(self, record: dict[str, Any]) -> None:
        """One more record was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A callback that can be asked for.

    Args:
        make: ``"module:Class"``, called with the run's folder.
        package: what must be installed for it, and the name of the extra.
    """

    make: str
    package: str


CALLBACKS: dict[str, Entry] = {
    "tensorboard": Entry("regrow.train.callbacks.tensorboard:TensorBoard", "tensorboard"),
}


def check(names: Sequence[str]) -> list[str]:
    """What is missing for the callbacks ``names``, a line each; imports none of them."""
    return [
        f"log.{name} is true, but the package {CALLBACKS[name].package} is not installed: "
        f"pip install 'regrow[{name}]', or leave log.{name} out"
        for name in names
        if importlib.util.find_spec(CALLBACKS[name].package) is None
    ]


def build(names: Sequence[str], folder: Path) -> list[Callback]:
    """The callbacks ``names`` of the run in ``folder``.

    Raises:
        ConfigError: a package is missing.
    """
    problems = check(names)
    if problems:
        raise ConfigError("a log cannot be written", problems)
    made: list[Callback] = []
    for name in names:
        module, _, cls = CALLBACKS[name].make.partition(":")
        factory: Callable[[Path], Callback] = getattr(importlib.import_module(module), cls)
        made.append(factory(folder))
    return made
