"""Runs of words shared with evaluation sets, against sets of tuples of words."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.data.evaluation_sets import Asked
from regrow.data.overlap import INDEX, Index, opened, run_hashes, word_hashes

VOCABULARY = (
    "a",
    "b",
    "été",
    "Straße",
    "数字",
    "x_y",
    "don't",
    "3.5",
    "İ",
    "नमस्ते",
    "…",
    "longer" * 13,
)
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=24).map(" ".join)


def plain_words(text: str) -> list[str]:
    """What counts as a word, a character at a time."""
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()


def expected(
    sets: dict[str, list[list[str]]], text: str, words: int, short: int
) -> tuple[int, int, set[int]]:
    """Covered words, place of the first, and items, from every tuple of words there is."""
    runs: dict[tuple[str, ...], set[int]] = {}
    number = 0
    for items in sets.values():
        for item in items:
            for part in item:
                cut = plain_words(unicodedata.normalize("NFC", part))
                length = min(words, len(cut))
                for at in range(len(cut) - length + 1) if length >= short else ():
                    runs.setdefault(tuple(cut[at : at + length]), set()).add(number)
            number += 1
    own = plain_words(text)
    covered, found, first = set[int](), set[int](), -1
    for at in range(len(own)):
        for length in range(short, words + 1):
            run = tuple(own[at : at + length])
            if len(run) == length and run in runs:
                first = at if first < 0 else first
                covered.update(range(at, at + length))
                found |= runs[run]
    return len(covered), first, found


@given(
    st.lists(st.lists(TEXTS, max_size=3), min_size=1, max_size=4),
    st.lists(TEXTS, max_size=6),
    st.integers(4, 9),
    st.integers(2, 4),
)
def test_the_same_as_tuples_of_words(
    items: list[list[str]], texts: list[str], words: int, short: int
) -> None:
    # Texts of the set itself are among those that are looked through, so that there is a match.
    items = [["a b a b a b a b a b"], *items]
    texts = [*texts, *(" ".join(item) for item in items)]
    half = len(items) // 2 + 1
    sets = {"one": items[:half], "two": [*items[half:], ["b b b b b b b b b b"]]}
    index = Index.build(
        ((name, (Asked(str(n), i) for n, i in enumerate(of))) for name, of in sets.items()),
        words,
        short,
    )
    found = index.find(texts)
    for row, text in enumerate(texts):
        count, place, numbers = expected(sets, text, words, short)
        assert (found.words[row], found.place[row]) == (count, place)
        assert set(found.items.get(row, np.empty(0)).tolist()) == numbers
        if numbers:
            assert found.first_items[row] in numbers
    assert found.items  # the set holds itself


def test_words_of_texts_are_told_apart() -> None:
    hashes, first = word_hashes(["One two,", "", "TWO… one", "three"])
    assert first.tolist() == [0, 2, 2, 4, 5]
    assert hashes[0] == hashes[3]
    assert hashes[1] == hashes[2]
    assert len(set(hashes.tolist())) == 3


@pytest.mark.parametrize("length", range(1, 20))
def test_a_run_depends_on_its_words_and_their_order_alone(length: int) -> None:
    words = np.random.default_rng(length).integers(0, 2**63, 64).astype(np.uint64)
    repeated = np.concatenate([words[5 : 5 + length], words[7:9], words[5 : 5 + length]])
    runs = run_hashes(repeated, length)
    assert len(runs) == length + 3
    assert runs[0] == runs[-1] == run_hashes(words, length)[5]
    assert len(set(runs[:-1].tolist())) == len(runs) - 1
    if length > 1:
        assert run_hashes(words[5 : 5 + length][::-1].copy(), length)[0] != runs[0]


def test_batches_and_long_texts_do_not_matter() -> None:
    run = " ".join(f"word{i}" for i in range(13))
    index = Index.build([("set", [Asked("1", [run])])], 13, 8)
    texts = ["x " * 300_000 + run, "none", run + " y" * 10, "", run[:-2], " ".join(["z"] * 99)]
    whole = index.find(texts)
    assert whole.words.tolist() == [13, 0, 13, 0, 0, 0]
    assert whole.place.tolist() == [300_000, -1, 0, -1, -1, -1]
    alone = [index.find([text]) for text in texts]
    assert [one.words[0] for one in alone] == whole.words.tolist()
    assert [one.place[0] for one in alone] == whole.place.tolist()


def test_a_run_does_not_go_over_from_one_text_to_the_next() -> None:
    half = [f"w{i}" for i in range(14)]
    index = Index.build([("set", [Asked("1", [" ".join(half)])])], 13, 13)
    assert not index.find([" ".join(half[:7]), " ".join(half[7:])]).items
    assert index.find([" ".join(half[:13])]).words.tolist() == [13]
    # Nor over the texts of one item.
    apart = Index.build([("set", [Asked("1", [" ".join(half[:7]), " ".join(half[7:])])])], 13, 5)
    assert apart.lengths == (7,)
    assert apart.find([" ".join(half)]).words.tolist() == [14]
    assert apart.find([" ".join(half[1:13])]).words.tolist() == [0]


def test_saved_and_read_again(tmp_path: Path) -> None:
    sets = [
        ("one", [Asked("1", ["a b c d e f"]), Asked("x", ["b c d e"])]),
        ("two", [Asked("1", ["e d c b a"])]),
    ]
    index = Index.build(sets, 5, 4)
    index.save(tmp_path)
    again = opened(tmp_path, index.digest)
    assert again.digest == index.digest
    assert (again.names, again.ends, again.looked_for) == (("one", "two"), (2, 3), (2, 1))
    texts = ["z a b c d e", "e d c b a"]
    assert again.find(texts).items.keys() == {0, 1}
    assert again.set_of(again.find(texts).items[0]).tolist() == [0, 0]
    assert again.set_of(again.find(texts).items[1]).tolist() == [1]
    assert Index.build(sets[::-1], 5, 4).digest != index.digest
    (tmp_path / INDEX).write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read"):
        Index.load(tmp_path)


def test_sets_that_nothing_can_be_looked_for_in() -> None:
    with pytest.raises(InputError, match="empty: it has no item"):
        Index.build([("empty", [])], 13, 8)
    with pytest.raises(InputError, match="short: no text of it has 8 words or more"):
        Index.build([("short", [Asked("1", ["yes", "no way at all"])])], 13, 8)
