"""What a decoder remembers between calls while it generates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(slots=True)
class Cache:
    """State of each block, and how many tokens they have seen.

    Made by :meth:`regrow.model.decoder.Decoder.new_cache`.

    Attributes:
        states: one entry a block; None where a block remembers nothing.
        length: tokens seen.
        capacity: tokens for which there is room.
        valid: (B, capacity) bool, False where padding was stored; None where none was.
    """

    states: list[Any]
    length: int
    capacity: int
    valid: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the states take."""
        return sum(state.nbytes for state in self.states if state is not None)
