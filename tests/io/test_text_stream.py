"""Text in pieces: the pieces are the whole, no piece is a part of what may still change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from regrow.io.text_stream import Detokenizer, StopScanner
from regrow.io.tokenizer import Tokenizer, train_byte_level

Decode = Callable[[Sequence[int]], str]

HARD = "e\u0301 \u00e9 \U0001f469\u200d\U0001f680\U0001f3fd \u0928\u093f \ufffd\ufffd\ufffd x\ufffd"
TEXTS = [f"the {i} é 😀 ни ने " + "abc " * i for i in range(30)]


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return train_byte_level(iter(TEXTS), 330)


def sentencepiece() -> tokenizers.Tokenizer:
    """As Llama 2's: pieces with ``\\u2581`` for a space, a token for each byte, both in runs."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", *"abcdefghijklmnopqrstuvwxyzé", "\u2581the", "\u2581a"]
    merges = [("\u2581", "a")]
    inner = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, merges, byte_fallback=True)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "first", split=False)
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return inner


def pieces(decode: Decode, ids: Sequence[int]) -> list[str]:
    stream = Detokenizer(decode)
    return [*(stream.push(i) for i in ids), stream.finish()]


@given(st.text())
@example(HARD)
@example("\ufffd" * 9)
@settings(max_examples=300, deadline=None)
def test_pieces_of_any_text_are_the_text(byte_level: Tokenizer, text: str) -> None:
    found = pieces(byte_level.decode, byte_level.encode(text))
    assert "".join(found) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)


@given(st.lists(st.integers(0, 329), max_size=60))
@settings(max_examples=300, deadline=None)
def test_pieces_of_any_ids_are_their_text(byte_level: Tokenizer, ids: list[int]) -> None:
    """Ids that a model makes: broken characters, special tokens."""
    assert "".join(pieces(byte_level.decode, ids)) == byte_level.decode(ids)


@given(st.text())
@example(" the é 😀 漢字 a")
@settings(max_examples=300, deadline=None)
def test_sentencepiece(text: str) -> None:
    inner = sentencepiece()
    ids = inner.encode(text).ids
    found = pieces(inner.decode, ids)
    assert "".join(found) == inner.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)


def test_nothing_is_held_longer_than_needed(byte_level: Tokenizer) -> None:
    """Each piece arrives with the id that completes it: what is waiting is no whole character."""
    ids = byte_level.encode("a 😀é\u0301漢 the end")
    found = pieces(byte_level.decode, ids)
    assert found[-1] == ""
    for end in range(len(ids)):
        whole = byte_level.decode(ids[: end + 1]).rstrip("\ufffd")
        assert "".join(found[: end + 1]) == whole


def test_the_window_stays_short(byte_level: Tokenizer) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return byte_level.decode(ids)

    ids = byte_level.encode("the 😀 " * 200)
    assert len("".join(pieces(decode, ids))) == 1200
    assert longest <= 12


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """By definition: read on until what was read ends with a stop string; the longest counts."""
    for end in range(len(text) + 1):
        ends = [stop for stop in stops if text[:end].endswith(stop)]
        if ends:
            return text[: end - max(map(len, ends))], True
    return text, False


@given(
    st.text("ab\n", max_size=24),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 24), max_size=8),
)
@example("aab", ["ab", "b"], [1, 2])
@example("abab", ["abc", "bab"], [2])
@settings(max_examples=600, deadline=None)
def test_stop_strings_are_cut_wherever_the_pieces_break(
    text: str, stops: list[str], breaks: list[int]
) -> None:
    scanner = StopScanner(stops)
    shown, found = "", False
    places = sorted({0, len(text), *(b for b in breaks if b < len(text))})
    for start, end in pairwise(places):
        piece, found = scanner.push(text[start:end])
        shown += piece
        if found:
            break
        # What is held back is the beginning of some stop string, and nothing else.
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
    else:
        shown += scanner.finish()
    assert (shown, found) == cut(text, stops)
