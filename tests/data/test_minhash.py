"""Signatures: what the engine's kernel does and does not, and how often a pair is found."""

from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from regrow.data import engine
from regrow.data.lsh import WEB, Lsh
from regrow.data.minhash import (
    band_hashes,
    banded,
    jaccard,
    normalised,
    shingle_hashes,
    spread_batch,
)

pytest.importorskip("daft")

CHARACTERS = Lsh(14, 8, "character", 6, 0.8)


def bands_of(texts: list[str | None], lsh: Lsh = WEB, seed: int = 7) -> list[list[int] | None]:
    frame = engine.from_columns({"id": [f"{i:05d}" for i in range(len(texts))], "text": texts})
    table = banded(frame, lsh, seed, ("id",)).sort("id").to_arrow()
    found: list[list[int] | None] = table["bands"].to_pylist()
    return found


def signatures(texts: list[str], hashes: int, n: int) -> np.ndarray:
    frame = engine.from_columns({"text": texts})
    signed = engine.expressions().minhash(frame["text"], num_hashes=hashes, ngram_size=n)
    return np.array(frame.select(signed.alias("s")).to_pydict()["s"])


def normal(texts: list[str]) -> list[str]:
    frame = engine.from_columns({"text": texts})
    found: list[str] = frame.select(normalised(frame["text"]).alias("n")).to_pydict()["n"]
    return found


class TestKernel:
    """What is met before and after the kernel rests on these."""

    def test_a_text_of_fewer_words_than_a_shingle_is_one(self) -> None:
        whole, other, longer = signatures(["a b c", "a b d", "a b c d e f"], 64, 5)
        assert (whole != other).mean() > 0.9
        assert (whole != longer).mean() > 0.9
        # One run of n words is the text itself: equal to the same text with larger n.
        assert (signatures(["a b c d e"], 64, 5) == signatures(["a b c d e"], 64, 9)).all()

    def test_it_does_not_normalise(self) -> None:
        one, case, blanks = signatures(["a b c d e f", "A b c d e f", "a  b c d e f"], 64, 5)
        assert (one != case).any()
        assert (one != blanks).any()

    def test_an_empty_text_has_the_largest_values(self) -> None:
        assert (signatures([""], 64, 5) == 2**32 - 1).all()

    def test_tokens_are_parted_by_one_blank_alone(self) -> None:
        assert (signatures(["a\tb c", "a b c"], 64, 2)[0] != signatures(["a b c"], 64, 2)).any()


def test_normalised_text_has_no_case_punctuation_or_runs_of_blanks() -> None:
    assert normal(["  “Hello”,\n\tWorld —  it\u2019s A-Z!  ", "ÉÀ\u3000ß\u00a0ж…", "!?"]) == [
        "hello world its az",
        "éà ß ж",
        "",
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_normalising_twice_changes_nothing_that_parts_words(texts: list[str]) -> None:
    once = normal([re.sub("[\x00-\x1f\x7f-\x9f]", " ", text) for text in texts])
    for text in once:
        assert text == " ".join(text.split(" "))
        assert not re.search(r"\s\s|^\s|\s$|[!-/:-@\[-`{-~]", text)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"]))), min_size=1
    )
)
def test_spread_texts_have_a_blank_between_characters(texts: list[str | None]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], names=["normal"])
    expected = [" ".join((text or "").replace(" ", "\x1f")) for text in texts]
    assert spread_batch(batch)["tokens"] == expected


def ngrams(text: str, n: int) -> set[str]:
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))} if text else set()


def word_ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


@settings(max_examples=60, deadline=None)
@given(st.text("ab é", max_size=40), st.text("ab é", max_size=40), st.integers(1, 6))
def test_exact_similarity_is_that_of_the_sets(one: str, other: str, n: int) -> None:
    one, other = (" ".join(text.split()) for text in (one, other))
    for unit, sets in (("word", word_ngrams), ("character", ngrams)):
        lsh = Lsh(1, 1, unit, n, 0.5)
        a, b = sets(one, n), sets(other, n)
        expected = len(a & b) / len(a | b) if a | b else 1.0
        assert jaccard(shingle_hashes(one, lsh), shingle_hashes(other, lsh)) == expected


def test_signatures_of_characters_agree_as_often_as_their_sets() -> None:
    """The share of equal hashes estimates the similarity of sets of runs of characters."""
    rng = random.Random(0)
    text = "".join(rng.choice("abcdefgh ") for _ in range(400))
    text = " ".join(text.split())
    changed = text[:150] + "zzz" + text[155:]
    tokens = [" ".join(t.replace(" ", "\x1f")) for t in (text, changed)]
    one, other = signatures(tokens, 1024, 6)
    a, b = ngrams(text, 6), ngrams(changed, 6)
    true = len(a & b) / len(a | b)
    assert 0.9 < true < 0.99
    low, high = binom.interval(0.9999, 1024, true)
    assert low <= (one == other).sum() <= high


class TestBands:
    def test_same_words_same_bands(self) -> None:
        one, other, third = bands_of(
            ["One two, three four five six!", "one TWO three  four\nfive six", "x"]
        )
        assert one == other
        assert one is not None
        assert len(set(one)) == WEB.bands
        assert third is not None
        assert not set(one) & set(third)

    def test_texts_without_a_word_have_none(self) -> None:
        assert bands_of(["", " \n", "...", "--- !!!", None]) == [None] * 5
        assert bands_of(["", "...", None], CHARACTERS) == [None] * 3

    def test_short_texts_are_not_all_the_same(self) -> None:
        for lsh in (WEB, CHARACTERS):
            found = bands_of(["yes", "no", "no way", "Yes."], lsh)
            assert found[0] == found[3]
            assert len({tuple(bands or ()) for bands in found}) == 3

    def test_bands_do_not_depend_on_neighbours(self) -> None:
        rng = random.Random(3)
        texts = [" ".join(rng.choices("abcdef", k=rng.randrange(0, 30))) for _ in range(1100)]
        together = bands_of([*texts])
        assert together[5::97] == [bands_of([text])[0] for text in texts[5::97]]
        assert bands_of(texts[::-1])[::-1] == together

    def test_another_seed_gives_other_bands(self) -> None:
        text = ["some words that stand here for a test"]
        assert bands_of(text, seed=1) != bands_of(text, seed=2)

    def test_the_number_of_a_band_counts(self) -> None:
        same = np.tile(np.arange(4, dtype=np.uint32), (1, 3))
        assert len(set(band_hashes(same, 3)[0].tolist())) == 3

    def test_every_row_of_a_band_counts(self) -> None:
        rows = np.zeros((5, 8), np.uint32)
        for row in range(4):
            rows[row + 1, row] = 1
        found = band_hashes(rows, 2)
        assert len(set(found[:, 0].tolist())) == 5
        assert len(set(found[:, 1].tolist())) == 1


PAIRS = 250
LENGTH = 204  # words, so 200 shingles of five


def planted(gap: int, unique: random.Random) -> tuple[str, str]:
    """Two texts whose only difference is a run of ``gap`` words; no word comes twice."""
    words = [f"w{unique.getrandbits(60)}" for _ in range(LENGTH)]
    changed = list(words)
    changed[60 : 60 + gap] = [f"w{unique.getrandbits(60)}" for _ in range(gap)]
    return " ".join(words), " ".join(changed)


@pytest.mark.parametrize("gap", [2, 8, 14, 20, 30, 46, 76])
@pytest.mark.parametrize("seed", [0, 1])
def test_recall_follows_the_curve(gap: int, seed: int) -> None:
    lost = gap + 4  # shingles that touch the gap
    similarity = (200 - lost) / (200 + lost)
    unique = random.Random(gap + 100 * seed)
    pairs = [planted(gap, unique) for _ in range(PAIRS)]
    a, b = word_ngrams(pairs[0][0], 5), word_ngrams(pairs[0][1], 5)
    assert len(a & b) / len(a | b) == similarity
    found = bands_of([text for pair in pairs for text in pair], seed=seed)
    hits = sum(
        bool(set(one or ()) & set(other or ()))
        for one, other in zip(found[::2], found[1::2], strict=True)
    )
    low, high = binom.interval(0.9999, PAIRS, float(WEB.found(similarity)))
    assert low <= hits <= high
