"""What a decoder remembers between calls while it generates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Cache:
    """State of each block, and how many tokens they have seen.

    Made by :meth:`regrow.model.decoder.Decoder.new_cache`.

    Attributes:
        states: one entry a block; None where a block remembers nothing.
        length: tokens seen.
        capacity: tokens for which there is room.
    """

    states: list[Any]
    length: int
    capacity: int
