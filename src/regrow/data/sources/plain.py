"""Files of plain text, of one document each; a long one becomes several."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from regrow.data.sources.pool import Item
from regrow.data.sources.record import Origin
from regrow.io.places import unreadable

# A longer text file becomes several documents, cut at line ends: memory stays bounded.
DOCUMENT_BYTES = 1 << 20
_BINARY_SAMPLE = 8 << 10


def read_plain(
    origin: Origin, kind: str, *, language: str = "", skip_binary: bool = False
) -> Iterator[Item]:
    """The documents of a text file.

    Args:
        origin: the file.
        kind: of its text.
        language: of its text.
        skip_binary: whether a file with a NUL byte near its start is dropped as no text.
    """
    encoding = codecs.lookup(origin.config.encoding or "utf-8").name
    number = -1
    try:
        with origin.place.open_plain() as file:
            if skip_binary and b"\0" in file.read(_BINARY_SAMPLE):
                yield origin.reject(0, "binary")
                return
            if skip_binary:
                file.seek(0)
            pieces = _pieces(file) if encoding == "utf-8" else _decoded(file, encoding)
            for number, piece in enumerate(pieces):
                if isinstance(piece, UnicodeDecodeError):
                    detail = f"{piece.reason} at byte {piece.start}; set encoding"
                    reason = f"not {encoding.upper()}"
                    yield origin.reject(number, reason, True, detail)
                else:
                    yield origin.document(number, piece, kind, language=language)
        if number < 0:
            yield origin.reject(0, "empty")
    except unreadable() as error:
        yield origin.reject(number + 1, "unreadable", True, str(error))


def _pieces(file: BinaryIO) -> Iterator[str | UnicodeDecodeError]:
    """UTF-8 in pieces of at most ``DOCUMENT_BYTES``, cut after a line where there is one."""
    for raw in _cut(file):
        try:
            yield raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        except UnicodeDecodeError as error:
            yield error


def _cut(file: BinaryIO) -> Iterator[bytes]:
    held = b""
    while block := file.read(DOCUMENT_BYTES - len(held)):
        held += block
        if len(held) < DOCUMENT_BYTES:
            continue
        cut = held.rfind(b"\n") + 1
        if not cut:
            cut = _character_start(held)
        yield held[:cut]
        held = held[cut:]
    if held:
        yield held


def _character_start(data: bytes) -> int:
    """Where the last character of UTF-8 ``data`` begins; its length if that cannot be told."""
    for back in range(1, 5):
        if data[-back] & 0xC0 != 0x80:
            return len(data) - back
    return len(data)


def _decoded(file: BinaryIO, encoding: str) -> Iterator[str | UnicodeDecodeError]:
    """Another encoding in pieces of at most ``DOCUMENT_BYTES`` characters; the first error ends
    it, since where the next character begins is not known."""
    decoder = codecs.getincrementaldecoder(encoding)()
    held = ""
    try:
        while block := file.read(DOCUMENT_BYTES // 4):
            held += decoder.decode(block)
            while len(held) >= DOCUMENT_BYTES:
                cut = held.rfind("\n", 0, DOCUMENT_BYTES) + 1 or DOCUMENT_BYTES
                yield held[:cut]
                held = held[cut:]
        held += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        if held:
            yield held
        yield error
        return
    if held:
        yield held
