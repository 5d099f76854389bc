"""What each character of UTF-8 text is, told for whole batches at once.

A class stands at the first byte of each character; the bytes that go on with one have classes of
their own, so that a character is counted once and a blank of several bytes is blank throughout.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from collections.abc import Callable
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
def _tables(class_of: Callable[[str], int]) -> tuple[bytes, Codes]:
    """Classes of the single bytes, and of the first 65,536 code points."""
    # Surrogates are in no UTF-8.
    points = (chr(point) if not 0xD800 <= point < 0xE000 else "?" for point in range(0x10000))
    plane = np.fromiter(map(class_of, points), np.uint8, 0x10000)
    return bytes(plane[:0x80]) + bytes(0x80), plane


def look_up(
    data: bytes, class_of: Callable[[str], int]
) -> tuple[Codes, npt.NDArray[np.intp], Codes]:
    """A class of each character of valid UTF-8.

    Args:
        data: ``(N,)`` bytes.
        class_of: of one character, below 256; a function of a module.

    Returns:
        ``(N,)`` classes at the first byte of each character, 0 at those that go on with one;
        where the characters of several bytes begin, and their sizes.
    """
    single, plane = _tables(class_of)
    codes = np.frombuffer(bytearray(data).translate(single), np.uint8)
    if data.isascii():
        return codes, np.empty(0, np.intp), np.empty(0, np.uint8)
    raw = np.frombuffer(data, np.uint8)
    first = np.flatnonzero(raw >= 0xC0)
    points, sizes = _decoded(raw, first)
    wide = points >= 0x10000
    found = plane[np.where(wide, 0, points)]
    if wide.any():
        rare, where = np.unique(points[wide], return_inverse=True)
        classes = np.array([class_of(chr(point)) for point in rare.tolist()], np.uint8)
        found[wide] = classes[where]
    codes[first] = found
    return codes, first, sizes


def classify(data: bytes) -> tuple[Codes, bool]:
    """Classes of the bytes of valid UTF-8.

    Args:
        data: ``(N,)`` bytes.

    Returns:
        ``(N,)`` classes, and whether all of it is ASCII.
    """
    codes, first, sizes = look_up(data, class_of)
    blank = codes[first] == BLANK
    if blank.any():
        for offset in (1, 2, 3):
            longer = blank & (sizes > offset)
            codes[first[longer] + offset] = BLANK_GOES_ON
    return codes, not len(first)


def _decoded(raw: Codes, first: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.int32], Codes]:
    """Code points of the characters of several bytes that begin at ``first``, and their sizes."""
    lead = raw[first]
    sizes = (2 + (lead >= 0xE0) + (lead >= 0xF0)).astype(np.uint8)
    points = (lead & np.array([0, 0, 0x1F, 0x0F, 0x07], np.uint8)[sizes]).astype(np.int32)
    points = (points << 6) | (raw[first + 1] & 0x3F)
    for offset in (2, 3):
        longer = np.flatnonzero(sizes > offset)
        points[longer] = (points[longer] << 6) | (raw[first[longer] + offset] & 0x3F)
    return points, sizes
