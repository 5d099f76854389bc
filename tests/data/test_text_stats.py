"""Figures of prose against the same figures in plain Python, a text at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.data import repetition, words
from regrow.data.characters import BULLETS, CLOSERS, STOPS, class_of, classify
from regrow.data.filter_rules import PRESETS, RULES
from regrow.data.text_stats import code_stats, prose_stats
from regrow.data.word_lists import UNSPACED, WORD_LISTS, WordList, base_language
from regrow.data.words import SplitTexts

_PLAIN = set(".?!。．｡？！؟۔।॥։።။។…,，、،\n")  # noqa: RUF001
_DASHES = {"-", "*", "+", "\u2013", "\u2014"}


def naive(text: str, known: WordList | None) -> dict[str, float]:
    """Every figure of one text."""
    all_words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1] += line.split()
        elif paragraphs[-1]:
            paragraphs.append([])
    paragraphs = [paragraph for paragraph in paragraphs if paragraph]

    def share(number: float, whole: float) -> float:
        return number / whole if whole else 0.0

    def of_characters(chosen: Sequence[str]) -> float:
        return share(len(chosen), len(text))

    def of_lines(chosen: Sequence[str]) -> float:
        return share(len(chosen), len(lines))

    found = {
        "words": len(all_words),
        "mean_word_length": share(sum(map(len, all_words)), len(all_words)),
        "non_alphanumeric": of_characters(
            [c for c in text if c not in _PLAIN and not _letter(c) and not c.isnumeric()]
        ),
        "digits": of_characters([c for c in text if c.isdecimal()]),
        "white_space": of_characters([c for c in text if c.isspace()]),
        "parentheses": of_characters([c for c in text if c in "()[]{}⟨⟩"]),
        "urls": share(sum(map(_url, all_words)), len(text)),
        "symbols_per_word": share(
            max(text.count("#"), text.count("...") + text.count("…")), len(all_words)
        ),
        "words_with_letter": share(sum(any(map(_letter, w)) for w in all_words), len(all_words)),
        "longest_word": max(map(len, all_words), default=0),
        "bullet_lines": of_lines([x for x in lines if x[0] in BULLETS or x.split()[0] in _DASHES]),
        "ellipsis_lines": of_lines([x for x in lines if re.search(r"(\.\.\.|…)[\])]?$", x)]),
        "ended_lines": of_lines([x for x in lines if x[-1] in STOPS + CLOSERS]),
        "short_lines": of_lines([x for x in lines if len(x) <= 30]),
        "lines_per_word": share(text.count("\n"), len(all_words)),
    }
    nan = float("nan")
    lowered = {_lower(word) for word in all_words}
    found["common_words"] = nan if known is None else len(lowered & set(known.words))
    found["boilerplate_lines"] = (
        nan
        if known is None
        else of_lines([x for x in lines if any(p in _lower(x) for p in known.phrases)])
    )
    things = {"line": [tuple(x.split()) for x in lines], "paragraph": list(map(tuple, paragraphs))}
    for name, pieces in things.items():
        first = [piece for i, piece in enumerate(pieces) if piece not in pieces[:i]]
        found[f"unique_{name}s"] = share(len(first), len(pieces))
        found[f"unique_{name}_characters"] = share(
            sum(len("".join(p)) for p in first), sum(len("".join(p)) for p in pieces)
        )
    total = len("".join(all_words))
    for n in range(2, 11):
        grams = [tuple(all_words[i : i + n]) for i in range(len(all_words) - n + 1)]
        counts = Counter(grams)
        if n <= 4:
            best = max(((c, len("".join(g))) for g, c in counts.items() if c > 1), default=(0, 0))
            found[f"top_{n}gram"] = min(1.0, share(best[0] * best[1], total))
        else:
            inside: set[int] = set()
            seen: set[tuple[str, ...]] = set()
            for i, gram in enumerate(grams):
                if gram in seen:
                    inside.update(range(i, i + n))
                seen.add(gram)
            found[f"repeated_{n}gram"] = share(sum(len(all_words[i]) for i in inside), total)
    return {name: float(value) for name, value in found.items()}


def _letter(character: str) -> bool:
    return class_of(character) == 1


def _lower(text: str) -> str:
    return text.encode().lower().decode()


def _url(word: str) -> int:
    match = re.search(r"https?://|www\.", _lower(word))
    return len(word) - match.start() if match else 0


def compare(texts: Sequence[str], lists: Sequence[WordList | None]) -> None:
    """All figures of a batch against those of each text alone."""
    found = prose_stats(texts, lists)
    expected = [naive(text, known) for text, known in zip(texts, lists, strict=True)]
    assert set(found) == {name for name, rule in RULES.items() if rule.kind == "prose"}
    for name, values in found.items():
        wanted = np.array([one[name] for one in expected])
        np.testing.assert_allclose(values, wanted, rtol=1e-12, atol=0, err_msg=name)


_WORDS = (
    "the of and be with THE der und über Über 12 3.5 ... … wait… (a) [b] # ## • - \u2013 * +x "
    "“quoted” end. end! why? 中文 。 日本語です。 naïve é http://x.org/a?b HTTPS://Y.de www.z.com "
    "(www.q.fr) aVeryLongWordOfMoreThanEight \U0001d518\U0001d52b привет और ٣٤ ² Ⅳ privacy policy "
    "Lorem ipsum cookies"
)
_PIECES = st.sampled_from(_WORDS.split(" "))
_GAPS = st.sampled_from(
    [" ", " ", " ", "\n", "\n\n", "  ", "\t", "\u00a0", "\u3000", " \n \n", "\u2028"]
)
_TEXTS = st.lists(st.tuples(_PIECES, _GAPS), max_size=60).map(
    lambda pairs: "".join(piece + gap for piece, gap in pairs)
)
_LISTS = st.sampled_from([WORD_LISTS["en"], WORD_LISTS["de"], None])


@given(st.lists(st.tuples(_TEXTS, _LISTS), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_figures_equal_plain_python(pairs: list[tuple[str, WordList | None]]) -> None:
    texts, lists = zip(*pairs, strict=True)
    compare(texts, lists)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_any_text_has_the_figures_of_plain_python(texts: list[str]) -> None:
    compare(texts, [WORD_LISTS["en"]] * len(texts))


@given(
    st.lists(st.sampled_from(["a", "bb", "ccccc"]), max_size=80),
    st.lists(st.sampled_from(["\n", "\n\n", "\n \n\n"]), min_size=20, max_size=20),
    st.integers(1, 20),
)
@settings(max_examples=120, deadline=None)
def test_much_repetition_equals_plain_python(some: list[str], ends: list[str], width: int) -> None:
    rows = [some[i : i + width] for i in range(0, len(some), width)]
    text = "".join(" ".join(row) + ends[i % 20] for i, row in enumerate(rows))
    compare([text, " ".join(some)], [None, None])


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdé"), 40)) + "\n" * (i % 3) for i in range(30)]
    lists = [WORD_LISTS["fr"]] * 30
    together = prose_stats(texts, lists)
    parts = list(words.batches(texts, 100))
    assert len(parts) > 5
    assert [text for part in parts for text in texts[part]] == texts
    for part in parts:
        alone = prose_stats(texts[part], lists[part])
        for name, values in alone.items():
            np.testing.assert_array_equal(values, together[name][part])


def test_equal_high_bits_are_told_apart() -> None:
    keys = np.array([5, 7, 5, (5 | 1 << 60), 5, 7], np.uint64)
    groups = repetition.grouped(keys)  # 5 and 7 differ in bits that give way to the places
    members = np.split(groups.order, np.flatnonzero(groups.begins)[1:])
    assert sorted(map(list, members)) == [[0, 2, 4], [1, 5], [3]]


def test_words_of_all_lengths_have_their_own_hashes() -> None:
    pieces = ["x" * n for n in range(1, 200)] + ["x" * n + "y" for n in range(200)]
    split = SplitTexts.of([" ".join(pieces), " ".join(reversed(pieces))])
    assert len(set(split.hashes.tolist())) == len(pieces)
    half = len(pieces)
    np.testing.assert_array_equal(split.hashes[:half], split.hashes[half:][::-1])


def test_every_character_has_its_class() -> None:
    points = [p for p in range(0x1_1000) if not 0xD800 <= p < 0xE000]
    text = "".join(map(chr, points))
    codes, plain = classify(text.encode())
    assert not plain
    sizes = np.array([len(chr(p).encode()) for p in points])
    first = np.cumsum(sizes) - sizes
    assert codes[first].tolist() == [class_of(chr(p)) for p in points]
    rest = np.ones(len(codes), bool)
    rest[first] = False
    assert set(codes[rest].tolist()) == {0, 12}


def test_empty_input() -> None:
    assert prose_stats([], []) == {}
    assert code_stats([]) == {}
    compare(["", " \n\n ", "\n"], [WORD_LISTS["en"]] * 3)


def test_code_figures() -> None:
    texts = ["a = 1\nb = 22\n", "x", "", "é\n\n"]
    found = code_stats(texts)
    assert found["code_lines"].tolist() == [2, 1, 0, 2]
    np.testing.assert_allclose(found["code_letters"], [2 / 13, 1, 0, 1 / 3])


def test_lists_are_in_lower_case_and_of_single_words() -> None:
    for code, known in WORD_LISTS.items():
        assert base_language(code) == code
        assert code not in UNSPACED
        assert len(set(known.words)) == len(known.words) >= 8
        for text in (*known.words, *known.phrases):
            assert text == text.lower().strip()
        assert all(word.split() == [word] for word in known.words)
    assert base_language("EN_us") == "en"


def test_presets_name_rules_of_their_kind() -> None:
    for preset, bounds in PRESETS.items():
        kinds = {RULES[name].kind for name in bounds}
        assert kinds == {"code" if preset == "code" else "prose"}


def test_lists_tell_running_text_of_their_language(data_folder: object) -> None:
    import zipfile
    from pathlib import Path

    archive = Path(str(data_folder)) / "nltk-public-domain" / "udhr2.zip"
    if not archive.exists():
        pytest.skip("no udhr2.zip in the data folder")
    names = {
        "eng": "en", "deu_1996": "de", "fra": "fr", "spa": "es", "ita": "it", "por_PT": "pt",
        "nld": "nl", "swe": "sv", "dan": "da", "nob": "no", "fin": "fi", "pol": "pl", "ces": "cs",
        "ron_2006": "ro", "hun": "hu", "tur": "tr", "rus": "ru", "ukr": "uk", "bul": "bg",
        "ell_monotonic": "el", "cat": "ca", "ind": "id",
    }  # fmt: skip
    with zipfile.ZipFile(archive) as file:
        texts = {Path(name).stem: file.read(name).decode() for name in file.namelist()
                 if name.endswith(".txt")}  # fmt: skip
    checked = [(code, texts[name]) for name, code in names.items() if name in texts]
    assert len(checked) >= 15
    lists = [WORD_LISTS[code] for code, _ in checked]
    counts = prose_stats([text for _, text in checked], lists)["common_words"]
    assert dict(zip([c for c, _ in checked], counts >= 6, strict=True)) == dict.fromkeys(
        [code for code, _ in checked], True
    )
    # A text in a language that shares no words with the list holds none or hardly one of them.
    english = [texts["eng"]] * 2
    assert prose_stats(english, [WORD_LISTS["ru"], WORD_LISTS["el"]])["common_words"].max() == 0
