"""What each character of UTF-8 text is, told for whole batches at once.

A class stands at the first byte of each character; the bytes that go on with one have classes of
their own, so that a character is counted once and a blank of several bytes is blank throughout.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

# In an order in which each question is one comparison or two: LETTER..COMMA is what running text
# is made of, from BLANK on there is no word.
(
    GOES_ON,
    LETTER,
    DIGIT,
    NUMBER,
    STOP,
    COMMA,
    CLOSE,
    BRACKET,
    BULLET,
    OTHER,
    BLANK,
    NEWLINE,
    BLANK_GOES_ON,
) = range(13)

STOPS = ".?!。．｡？！؟۔।॥։።။។…"
COMMAS = ",，、،"
CLOSERS = "\"'”’»›」』"
BRACKETS = "()[]{}⟨⟩"
BULLETS = "•‣⁃⁌⁍∙○●◘◦⦾⦿▪■"


def class_of(character: str) -> int:
    """The class of one character."""
    if character == "\n":
        return NEWLINE
    if character.isspace():
        return BLANK
    for members, code in (
        (STOPS, STOP),
        (COMMAS, COMMA),
        (CLOSERS, CLOSE),
        (BRACKETS, BRACKET),
        (BULLETS, BULLET),
    ):
        if character in members:
            return code
    category = unicodedata.category(character)
    if category[0] in "LM":  # without their marks many scripts would be half symbols
        return LETTER
    if category[0] == "N":
        return DIGIT if category == "Nd" else NUMBER
    return OTHER


@cache
def _bytes_table() -> bytes:
    """Classes of the single bytes; those of longer characters are put in afterwards."""
    table = bytearray(256)
    for point in range(0x80):
        table[point] = class_of(chr(point))
    return bytes(table)


@cache
def _plane() -> Codes:
    """Classes of the first 65,536 code points; surrogates are in no UTF-8."""
    points = (chr(point) if not 0xD800 <= point < 0xE000 else "?" for point in range(0x10000))
    return np.fromiter(map(class_of, points), np.uint8, 0x10000)


def classify(data: bytes) -> tuple[Codes, bool]:
    """Classes of the bytes of valid UTF-8.

    Args:
        data: ``(N,)`` bytes.

    Returns:
        ``(N,)`` classes, and whether all of it is ASCII.
    """
    codes = np.frombuffer(bytearray(data).translate(_bytes_table()), np.uint8)
    if data.isascii():
        return codes, True
    raw = np.frombuffer(data, np.uint8)
    first = np.flatnonzero(raw >= 0xC0)
    points, sizes = decoded(raw, first)
    wide = points >= 0x10000
    found = _plane()[np.where(wide, 0, points)]
    if wide.any():
        rare, where = np.unique(points[wide], return_inverse=True)
        classes = np.array([class_of(chr(point)) for point in rare.tolist()], np.uint8)
        found[wide] = classes[where]
    codes[first] = found
    blank = found == BLANK
    if blank.any():
        for offset in (1, 2, 3):
            longer = blank & (sizes > offset)
            codes[first[longer] + offset] = BLANK_GOES_ON
    return codes, False


def decoded(raw: Codes, first: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.int32], Codes]:
    """Code points of the characters of several bytes that begin at ``first``, and their sizes."""
    lead = raw[first]
    sizes = (2 + (lead >= 0xE0) + (lead >= 0xF0)).astype(np.uint8)
    points = (lead & np.array([0, 0, 0x1F, 0x0F, 0x07], np.uint8)[sizes]).astype(np.int32)
    points = (points << 6) | (raw[first + 1] & 0x3F)
    for offset in (2, 3):
        longer = np.flatnonzero(sizes > offset)
        points[longer] = (points[longer] << 6) | (raw[first[longer] + offset] & 0x3F)
    return points, sizes
