"""Text from ids that come one at a time: never half a character, never a part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

REPLACEMENT = "\ufffd"
# How many of these can turn into a character yet. A byte-level decoder gives one for a character
# that is not whole; SentencePiece's gives one for each byte of a run that is not whole: four of the
# character before, which is context, and three of the next.
_WAITING = 7


class Detokenizer:
    """The text of a growing list of ids, each piece as soon as no later id can change it.

    All pieces together are ``decode`` of all ids. (One exception: a SentencePiece tokenizer's run
    of byte tokens that turns invalid after it held whole characters; these have been given.)

    Args:
        decode: ids to text; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        # Decoded anew with each id, so it must stay short; but a decoder may treat the first ids
        # of a text differently, so the last ones before it stay as context.
        self._window: list[int] = []
        self._context = 0
        self._given = 0

    def push(self, token_id: int) -> str:
        """The text that became certain with ``token_id``; often all of its own."""
        self._window.append(token_id)
        text = self._decode(self._window)
        waiting = min(len(text) - len(text.rstrip(REPLACEMENT)), _WAITING)
        certain = len(text) - waiting
        piece = text[self._given : certain]
        self._given = max(self._given, certain)
        if piece and not waiting:
            del self._window[: self._context]
            self._context = len(self._window)
            self._given = len(self._decode(self._window))
        return piece

    def finish(self) -> str:
        """What was still waiting for a rest that never came."""
        piece = self._decode(self._window)[self._given :]
        self._window.clear()
        self._context = self._given = 0
        return piece


class StopScanner:
    """Text up to the first stop string, with nothing shown that could become part of one.

    The first is the one that is complete first (of several, the longest), so the cut does not
    depend on how the text was split into pieces.

    Args:
        stops: the strings; none for no scanning.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can be shown now, and whether a stop string ended it."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        shown = len(text) - self._overlap(text)
        self._held = text[shown:]
        return text[:shown], False

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
