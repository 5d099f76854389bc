"""Figures of prose that heuristic filters judge, computed for a batch of texts at once.

All work is on whole arrays (about one pass of a byte each), none of it on single words. What each
figure means is said by ``regrow.data.filter_rules``.

Legend: R texts, W words, L lines that hold a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regrow.data import characters
from regrow.data.characters import BLANK, BRACKET, BULLET, DIGIT, LETTER, NEWLINE
from regrow.data.repetition import Flags, Lines, Reals, repeated_lines, repeated_runs, shares
from regrow.data.word_lists import WordList
from regrow.data.words import Ints, SplitTexts, batches, hash_pieces

SHORT_LINE = 30
_ELLIPSES = ("...", "…")
_ELLIPSIS_ENDS = tuple(f"{mark}{close}".encode() for mark in _ELLIPSES for close in ("", "]", ")"))
_PLAIN_BULLETS = b"-*+"
_LONG_BULLETS = ("\u2013".encode(), "\u2014".encode())  # dashes


def prose_stats(texts: Sequence[str], lists: Sequence[WordList | None]) -> dict[str, np.ndarray]:
    """Every figure of prose.

    Args:
        texts: ``(R,)``, of any sizes.
        lists: ``(R,)`` what is known of each text's language; None where nothing is.

    Returns:
        Name of the rule to ``(R,)`` float64; NaN where the language's list would be needed.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    parts = [_batch(texts[part], lists[part]) for part in batches(texts)]
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def code_stats(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Lines and share of letters of program text, ``(R,)`` float64 each."""
    parts: list[dict[str, Reals]] = []
    for part in batches(texts):
        split = SplitTexts.of(texts[part])
        size = split.characters(split.starts, split.ends)
        last = [bool(text) and not text.endswith("\n") for text in texts[part]]
        parts.append(
            {
                "code_lines": (_newlines(split) + last).astype(np.float64),
                "code_letters": shares(_counts(split, split.codes == LETTER), size),
            }
        )
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batch(texts: Sequence[str], lists: Sequence[WordList | None]) -> dict[str, Reals]:
    split = SplitTexts.of(texts)
    lines = Lines.of(split, np.flatnonzero(split.codes == NEWLINE))
    size = split.characters(split.starts, split.ends)
    words = np.diff(split.first)
    return {
        "words": words.astype(np.float64),
        "mean_word_length": shares(_by_text(split, split.lengths), words),
        **_character_shares(split, size),
        "urls": shares(_url_characters(split), size),
        "symbols_per_word": shares(_symbols(texts), words),
        "words_with_letter": shares(_with_letter(split), words),
        "longest_word": _longest(split),
        "common_words": _common_words(split, lists),
        **_line_shares(split, lines, lists),
        "lines_per_word": shares(_newlines(split), words),
        **repeated_lines(split, lines),
        **repeated_runs(split),
    }


def _by_text(split: SplitTexts, values: Ints) -> Ints:
    """``(R,)`` sums of a value of each word."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums[split.first[1:]] - sums[split.first[:-1]]


def _counts(split: SplitTexts, mask: Flags) -> Ints:
    """``(R,)`` bytes of each text where ``mask`` holds."""
    # Counting a slice costs a fraction of a cycle a byte; a sum by text costs ten times as much.
    pairs = zip(split.starts.tolist(), split.ends.tolist(), strict=True)
    return np.array([np.count_nonzero(mask[start:end]) for start, end in pairs], np.int64)


def _newlines(split: SplitTexts) -> Ints:
    return _counts(split, split.codes == NEWLINE)


def _character_shares(split: SplitTexts, size: Ints) -> dict[str, Reals]:
    codes = split.codes
    white = (codes == BLANK) | (codes == NEWLINE)
    # From LETTER to COMMA without a gap; 0 wraps around to the top.
    plain = (codes - np.uint8(LETTER) <= characters.COMMA - LETTER) | (codes == NEWLINE)
    return {
        "non_alphanumeric": shares(size - _counts(split, plain), size),
        "digits": shares(_counts(split, codes == DIGIT), size),
        "white_space": shares(_counts(split, white), size),
        "parentheses": shares(_counts(split, codes == BRACKET), size),
    }


def _places(data: bytes, needle: bytes) -> list[int]:
    """Where ``needle`` begins in ``data``, at each place."""
    places = []
    at = data.find(needle)
    while at >= 0:
        places.append(at)
        at = data.find(needle, at + 1)
    return places


def _url_characters(split: SplitTexts) -> Ints:
    """``(R,)`` characters of words from ``http://``, ``https://`` or ``www.`` on."""
    lowered = split.lowered
    places = _places(lowered, b"www.")
    for colon in _places(lowered, b"://"):
        if lowered[colon - 4 : colon] == b"http":
            places.append(colon - 4)
        elif lowered[colon - 5 : colon] == b"https":
            places.append(colon - 5)
    at = np.array(sorted(places), np.int64)
    word, first = np.unique(np.searchsorted(split.word_starts, at, "right") - 1, return_index=True)
    lengths = split.characters(at[first], split.word_ends[word])
    return np.bincount(split.rows[word], lengths, len(split.starts)).astype(np.int64)


def _symbols(texts: Sequence[str]) -> Ints:
    """``(R,)`` hash signs or ellipses, whichever are more."""
    return np.array(
        [max(text.count("#"), sum(map(text.count, _ELLIPSES))) for text in texts], np.int64
    )


def _with_letter(split: SplitTexts) -> Ints:
    """``(R,)`` words that hold a letter."""
    letter = split.codes == LETTER
    has = letter[split.word_starts]
    # Most words begin with one; sums over all bytes are only made for the others' sake.
    rest = np.flatnonzero(~has)
    if len(rest):
        sums = np.zeros(len(letter) + 1, np.int32)
        np.cumsum(letter, out=sums[1:])
        has[rest] = sums[split.word_ends[rest]] > sums[split.word_starts[rest]]
    return _by_text(split, has.astype(np.int64))


def _longest(split: SplitTexts) -> Reals:
    longest = np.zeros(len(split.starts))
    filled = np.flatnonzero(np.diff(split.first))
    if len(filled):
        longest[filled] = np.maximum.reduceat(split.lengths, split.first[filled])
    return longest


def _common_words(split: SplitTexts, lists: Sequence[WordList | None]) -> Reals:
    """``(R,)`` how many of its language's common words a text holds; NaN without a list."""
    known = {id(one): one for one in lists if one is not None}
    listed = sorted({word for one in known.values() for word in one.words})
    if not listed:
        return np.full(len(lists), np.nan)
    sizes = split.word_ends - split.word_starts
    short = np.flatnonzero(sizes <= max(len(word.encode()) for word in listed))
    hashes = hash_pieces(split.lowered, split.word_starts[short], split.word_ends[short])
    wanted = SplitTexts.of([" ".join(listed)]).hashes
    holds = np.zeros((len(lists), len(listed)), bool)
    for number, value in enumerate(wanted):
        holds[split.rows[short[hashes == value]], number] = True
    column = {word: number for number, word in enumerate(listed)}
    columns = {key: [column[word] for word in one.words] for key, one in known.items()}
    counts = [
        np.nan if one is None else np.count_nonzero(holds[row, columns[id(one)]])
        for row, one in enumerate(lists)
    ]
    return np.array(counts, np.float64)


def _line_shares(
    split: SplitTexts, lines: Lines, lists: Sequence[WordList | None]
) -> dict[str, Reals]:
    texts = len(lists)
    starts, ends = split.word_starts[lines.first], split.word_ends[lines.after - 1]
    counts = lines.counts(texts)

    def share(chosen: Flags) -> Reals:
        return shares(lines.counts(texts, chosen), counts)

    boilerplate = share(_boilerplate(split, lines, lists))
    boilerplate[[one is None for one in lists]] = np.nan
    return {
        "bullet_lines": share(_bullets(split, lines, starts)),
        "ellipsis_lines": share(_ellipses(split, ends)),
        "ended_lines": share(_ended(split, ends)),
        "short_lines": share(split.characters(starts, ends) <= SHORT_LINE),
        "boilerplate_lines": boilerplate,
    }


def _bullets(split: SplitTexts, lines: Lines, starts: Ints) -> Flags:
    """Lines whose first character is a bullet, or whose first word is a dash, star or plus."""
    raw = np.frombuffer(split.data, np.uint8)
    size = split.word_ends[lines.first] - starts
    alone = (size == 1) & np.isin(raw[starts], np.frombuffer(_PLAIN_BULLETS, np.uint8))
    bullet: Flags = (split.codes[starts] == BULLET) | alone
    if not split.ascii:
        three = (size == 3) & _holds(raw, starts, _LONG_BULLETS)
        bullet |= three
    return bullet


def _holds(raw: characters.Codes, places: Ints, pieces: Sequence[bytes]) -> Flags:
    """Whether one of some pieces, each shorter than nine bytes, stands at each place."""
    found = np.zeros(len(places), bool)
    for piece in pieces:
        same = np.ones(len(places), bool)
        for offset, byte in enumerate(piece):
            same &= raw[np.maximum(places + offset, 0)] == byte
        found |= same
    return found


def _ellipses(split: SplitTexts, ends: Ints) -> Flags:
    """Lines that end with an ellipsis, perhaps within brackets."""
    raw = np.frombuffer(split.data, np.uint8)
    found = np.zeros(len(ends), bool)
    for piece in _ELLIPSIS_ENDS:
        if piece.isascii() or not split.ascii:
            found |= _holds(raw, ends - len(piece), [piece])
    return found


def _ended(split: SplitTexts, ends: Ints) -> Flags:
    """Lines whose last character is an end mark or a closing quote."""
    last = ends - 1
    for _ in range(3):
        last = last - (split.codes[last] == characters.GOES_ON)
    code = split.codes[last]
    ended: Flags = (code == characters.STOP) | (code == characters.CLOSE)
    return ended


def _boilerplate(split: SplitTexts, lines: Lines, lists: Sequence[WordList | None]) -> Flags:
    """Lines that hold a phrase of their text's language."""
    found = np.zeros(len(lines.rows), bool)
    known = {id(one): one for one in lists if one is not None}
    for phrase in sorted({phrase for one in known.values() for phrase in one.phrases}):
        places = np.array(_places(split.lowered, phrase.encode()), np.int64)
        if not len(places):
            continue
        line = np.searchsorted(split.word_starts[lines.first], places, "right") - 1
        owners = [lists[row] for row in lines.rows[line].tolist()]
        mine = [one is not None and phrase in one.phrases for one in owners]
        found[line[mine]] = True
    return found
