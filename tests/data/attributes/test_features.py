"""Hashed n-grams against the same n-grams counted one by one in Python."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.data.attributes import features
from regrow.data.attributes.features import Hashing
from regrow.data.attributes.windows import averaged, in_windows, windows
from regrow.data.words import batches

HASHING = Hashing(1 << 20)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def words_of(text: str) -> list[str]:
    """Runs of letters, digits and _, and runs of marks, as the docstring says."""
    found: list[str] = []
    last = 0
    for character in " ".join(text.lower().split()):
        kind = 2 if character.isalnum() or character == "_" else 0 if character.isspace() else 1
        if kind and kind == last:
            found[-1] += character
        elif kind:
            found.append(character)
        last = kind
    return found


def grams(text: str) -> tuple[Counter[object], Counter[object]]:
    words = words_of(text)
    runs: Counter[object] = Counter()
    for n in HASHING.words:
        runs.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    padded = f" {' '.join(text.lower().split())} "
    characters: Counter[object] = Counter()
    for n in HASHING.characters:
        characters.update(padded[i : i + n] for i in range(len(padded) - n + 1))
    return runs, characters


@given(TEXT | st.text("ab ,", min_size=20, max_size=60))
@settings(max_examples=80, deadline=None)
def test_a_row_has_the_weights_of_its_counts(text: str) -> None:
    row = HASHING.matrix([text])
    expected = []
    for counts in grams(text):
        weights = 1 + np.log(np.array(sorted(counts.values()), np.float64))
        expected.extend(weights / np.sqrt(2 * (weights**2).sum()) if len(weights) else [])
    # Buckets are 2^20, n-grams a few hundred: a collision is rare, but would merge two weights.
    if row.nnz == len(expected):
        np.testing.assert_allclose(np.sort(row.data), np.sort(expected), rtol=1e-12)
    else:
        assert len(expected) - 3 <= row.nnz < len(expected)


def test_equal_ngrams_share_a_bucket_wherever_they_stand() -> None:
    only_words = Hashing(1 << 20, (1,), ())
    rows = only_words.matrix(["alpha beta", "gamma, beta alpha", "ALPHA"]).toarray() > 0
    assert (rows[0] & rows[1]).sum() == 2
    assert (rows[2] & rows[0]).sum() == 1
    assert rows[1].sum() == 4  # the comma is a word too
    pairs = Hashing(1 << 20, (2,), ()).matrix(["alpha beta", "beta alpha", "x alpha beta"])
    dense = pairs.toarray() > 0
    assert not (dense[0] & dense[1]).any()  # order counts
    assert (dense[0] & dense[2]).sum() == 1


@given(st.lists(TEXT, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_row_depends_on_its_text_alone(texts: list[str]) -> None:
    together = HASHING.matrix(texts)
    assert together.shape == (len(texts), HASHING.buckets)
    for number, text in enumerate(texts):
        alone = HASHING.matrix([text])
        assert (together[number] != alone).nnz == 0


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {i} of some" for i in range(50)]
    whole = HASHING.matrix(texts)
    monkeypatch.setattr(features, "batches", partial(batches, characters=64))
    assert (HASHING.matrix(texts) != whole).nnz == 0


def mixed(code: int) -> int:
    code = ((code ^ code >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    code = ((code ^ code >> 27) * 0x94D049BB133111EB) % 2**64
    return code ^ code >> 31


def test_buckets_are_what_whole_numbers_give() -> None:
    # Written out in Python's integers: a classifier on disk is of no use once these move.
    step, expected = 0x9E3779B97F4A7C15, set()
    text = "a big, b\U0001d7d8g b\u00eete"
    for n in (3, 4):
        padded = f" {text} "
        for i in range(len(padded) - n + 1):
            code = n
            for character in padded[i : i + n]:
                code = (code * step + ord(character) + 1) % 2**64
            expected.add(mixed(code) % 2**18)
    codes = []
    for word in words_of(text):
        total = sum((ord(c) + 1) * step**place for place, c in enumerate(word)) % 2**64
        codes.append(mixed((total + len(word)) % 2**64))
    for n in (1, 2):
        for i in range(len(codes) - n + 1):
            code = 1 << 40 | n
            for word_code in codes[i : i + n]:
                code = mixed((code * step + word_code) % 2**64)
            expected.add(mixed(code) % 2**18)
    assert set(Hashing(1 << 18).matrix([text]).indices.tolist()) == expected
    assert 6680 in Hashing(1 << 18).matrix(["a bird"]).indices


def test_windows_cover_begin_middle_and_end() -> None:
    text = " ".join(f"word{i:05d}" for i in range(2000))
    first, middle, last = windows(text)
    assert text.startswith(first)
    assert text.endswith(last)
    assert middle.strip() in text
    at = text.index(middle)
    assert abs(at + len(middle) / 2 - len(text) / 2) < 300
    for window in (first, middle, last):
        assert 1800 <= len(window) <= 2048
        assert all(word.startswith("word") and len(word) == 9 for word in window.split())
    assert windows("short") == ["short"]
    assert windows("") == [""]
    assert len(windows(text[:3000])) == 2
    assert [len(w) for w in windows("x" * 9000)] == [2048, 2048, 2048]  # no blank anywhere


def test_windows_are_averaged_by_text() -> None:
    pieces, counts = in_windows(["a", "b " * 5000, "c"])
    assert (len(pieces), counts.tolist()) == (5, [1, 3, 1])
    logits = np.arange(10.0).reshape(5, 2)
    expected = [logits[0], logits[1:4].mean(axis=0), logits[4]]
    np.testing.assert_array_equal(averaged(logits, counts), expected)
    assert averaged(np.zeros((0, 2)), np.zeros(0, np.int64)).shape == (0, 2)
