"""Names that a config may use, and where their implementations live.

A registry maps a name to ``"module:attribute"`` and imports it only when it is asked for, so that
listing what exists costs nothing. To add a component: write its file, add its line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar, cast

from regrow.core.errors import ConfigError

T = TypeVar("T")


def nearest(word: str, known: list[str]) -> str:
    """`", did you mean X?"` for the closest of ``known``, or an empty string."""
    match = get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {match[0]}?" if match else ""


class Registry(Generic[T]):
    """Lazy table of named components.

    Args:
        kind: what the entries are, for messages ("step", "objective").
        targets: name to ``"module:attribute"``.
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def names(self) -> list[str]:
        """Known names, in the order in which they were registered."""
        return list(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def add(self, name: str, target: str) -> None:
        """Register a third party's component.

        Raises:
            ConfigError: the name is taken.
        """
        if name in self._targets:
            raise ConfigError(
                f"{self.kind} {name!r} is already registered as {self._targets[name]}"
            )
        self._targets[name] = target

    def get(self, name: str) -> T:
        """The component called ``name``.

        Raises:
            ConfigError: no such name; lists the known ones with the nearest match.
        """
        if name not in self._targets:
            known = ", ".join(self._targets) or "none"
            raise ConfigError(
                f"unknown {self.kind} {name!r}{nearest(name, self.names())} (known: {known})"
            )
        module, _, attribute = self._targets[name].partition(":")
        return cast(T, getattr(importlib.import_module(module), attribute))
