"""SentencePiece: both formats give the same ids, and every text comes back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError, InputError
from regrow.io.sentencepiece import (
    FIXED_PIECES,
    SPECIAL,
    Trained,
    last_merge,
    train_sentencepiece,
)
from regrow.io.text_stream import Detokenizer
from regrow.io.tokenizer import SPACE_MARK, SPACE_MARK_AS_BYTES, Tokenizer

library = pytest.importorskip("sentencepiece")

SENTENCES = {
    "en": "The river ran past the old mill, and nobody had asked where it went.",
    "de": "Die Straße führte über den Fluß; niemand wußte, wohin die Brücken gingen.",
    "ru": "Река текла мимо старой мельницы, и никто не спрашивал, куда она бежит.",
    "ja": "川は古い水車小屋のそばを流れていたが、どこへ行くのか誰も尋ねなかった。",
    "es": "El río pasaba junto al viejo molino, ¿y quién preguntó adónde iba? ¡Nadie!",
    "code": "def step(x: int, *rest) -> dict:\n\tif x >= 10:\n        return {'a': x**2}\n",
    "spaces": "a  b   c    d\t\te\n\n\n1234567890 3.14159 0xFF  \n  -- ==== ////",
    "odd": "é e\u0301 😀👩\u200d🚀 \u2028\ufeff",
}
UNITS = [
    *(word for text in SENTENCES.values() for word in text.split(" ")),
    *(character for text in SENTENCES.values() for character in dict.fromkeys(text)),
    *(" " * n for n in range(1, 20)),
    *("\n", "\n\n", "\t", "\r\n", "\x00", "\x7f", "漢字", "ไทย", "한국어", "ʇ", "\U0010ffff", "٣"),
    *SPECIAL,
    "<0x41>",
    "\u2047",
    "\u2585",
    "\ufffd",
]


def mixed_texts(seed: int, number: int) -> list[str]:
    """Texts of words and characters of all the languages, code, whitespace and digits."""
    draw = random.Random(seed)
    made = []
    for _ in range(number):
        parts = draw.choices(UNITS, k=draw.randint(1, 40))
        made.append("".join(part + draw.choice(("", "", " ", "  ", "\n")) for part in parts))
    return made


TEXTS = [*SENTENCES.values(), *mixed_texts(0, 300)]


def processor(trained: Trained) -> Any:
    return library.SentencePieceProcessor(model_proto=trained.model)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train_sentencepiece(iter(TEXTS), 900)


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentencepiece")
    trained.tokenizer.save(path)
    (path / "tokenizer.model").write_bytes(trained.model)
    return path


def differences(trained: Trained, texts: list[str]) -> list[str]:
    """Texts that the two formats cut into different tokens, or that do not come back from both."""
    theirs = processor(trained)
    found = []
    for text, expected, ids in zip(
        texts, theirs.encode(texts), trained.tokenizer.encode_batch(texts), strict=True
    ):
        same = expected == ids and theirs.decode(ids) == trained.tokenizer.decode(ids) == text
        if not same:
            found.append(text)
    return found


class TestSameTokens:
    def test_mixed_texts(self, trained: Trained) -> None:
        texts = [*TEXTS, *mixed_texts(1, 5000)]
        assert len(set(texts)) > 5000
        assert differences(trained, texts) == []
        assert trained.unreachable == 0

    @given(st.text() | st.text(" \n\tabe\u00e9川1", max_size=80))
    @settings(max_examples=300, deadline=None)
    def test_any_text(self, trained: Trained, text: str) -> None:
        assert differences(trained, [text.replace(SPACE_MARK, "")]) == []

    @pytest.mark.parametrize("alphabet", ["ab", "aab ", "abc", " \n="])
    def test_repetitive_texts(self, alphabet: str) -> None:
        """Pieces that can be cut in many ways, as in ``aaa`` and ``abab``, in every short text."""
        draw = random.Random(len(alphabet))
        made = ["".join(draw.choices(alphabet, k=draw.randint(2, 200))) for _ in range(150)]
        small = train_sentencepiece(made, FIXED_PIECES + 12, 1.0)
        letters = dict.fromkeys(alphabet)
        texts = ["".join(t) for n in range(1, 8) for t in product(letters, repeat=n)]
        texts += ["".join(draw.choices(alphabet, k=60)) for _ in range(1000)]
        assert differences(small, texts) == []

    def test_tatoeba(self, data_folder: Path) -> None:
        languages = ("deu", "rus", "jpn", "spa", "cmn", "ara", "hin", "tha", "kor")
        lines: list[str] = []
        for language in languages:
            path = data_folder / "tatoeba-laser" / f"tatoeba.{language}-eng.{language}"
            lines += path.read_text().splitlines()
        code = [p.read_text() for p in sorted(Path(json.__file__).parent.glob("*.py"))]
        big = train_sentencepiece([*lines[::2], *code[::2]], 4096)
        assert len(lines) > 8000
        assert differences(big, [*lines, *code]) == []

    def test_transformers(self, trained: Trained, folder: Path) -> None:
        transformers = pytest.importorskip("transformers")
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        # There a special token's string is that token, as in all Hugging Face tokenizers.
        texts = [t for t in mixed_texts(2, 500) if not any(s in t for s in SPECIAL)]
        assert len(texts) > 100
        expected = processor(trained).encode(texts)
        assert theirs(texts, add_special_tokens=False)["input_ids"] == expected
        assert theirs(texts)["input_ids"] == expected
        assert [theirs.decode(ids) for ids in expected] == texts
        assert (theirs.unk_token_id, theirs.pad_token_id, theirs.eos_token_id) == (0, 1, 3)
        assert len(theirs) == trained.tokenizer.vocab_size == 900


@given(st.text())
@example("".join(SPECIAL))
@example(f"a{SPACE_MARK}{SPACE_MARK}é {SPACE_MARK}")
@example("\x00\u2028\ufeff\u0661\u0662 0123456789  \n\t ")
@settings(max_examples=300, deadline=None)
def test_decode_undoes_encode(trained: Trained, text: str) -> None:
    tokenizer = trained.tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.encode_batch([text, "a"])[0] == ids
    assert tokenizer.decode(ids) == processor(trained).decode(ids) == text
    assert tokenizer.end not in ids  # no text can end a document
    assert int(tokenizer.token_bytes()[ids].sum()) == len(text.encode())
    stream = Detokenizer(tokenizer.decode)
    assert "".join([*(stream.push(i) for i in ids), stream.finish()]) == text


def test_form_of_the_file(trained: Trained, folder: Path) -> None:
    written = json.loads((folder / "tokenizer.json").read_text())
    mark = {"String": SPACE_MARK}
    assert written["normalizer"]["content"] == SPACE_MARK
    assert written["normalizer"]["pattern"] == {"String": " "}
    assert written["pre_tokenizer"] is written["post_processor"] is None
    kinds = [step["type"] for step in written["decoder"]["decoders"]]
    assert kinds == ["Replace", "ByteFallback", "Fuse"]
    assert written["decoder"]["decoders"][0]["pattern"] == mark
    theirs = processor(trained)
    assert written["model"]["vocab"] == {theirs.id_to_piece(i): i for i in range(len(theirs))}
    merges = ["".join(pair) for pair in written["model"]["merges"]]
    assert merges == [p for i in range(FIXED_PIECES, 900) if len(p := theirs.id_to_piece(i)) > 1]


def test_a_space_mark_is_no_space(trained: Trained, folder: Path) -> None:
    """SentencePiece itself cannot tell them apart; here the mark is its three bytes."""
    marked, spaced = f"a{SPACE_MARK}b", "a b"
    theirs = processor(trained)
    assert theirs.encode(marked) == theirs.encode(spaced) == trained.tokenizer.encode(spaced)
    ids = trained.tokenizer.encode(marked)
    assert [theirs.id_to_piece(i) for i in ids] == ["a", "<0xE2>", "<0x96>", "<0x81>", "b"]
    loaded = Tokenizer.load(folder)
    assert loaded.encode_batch([spaced, marked]) == [trained.tokenizer.encode(spaced), ids]


def test_settings_of_the_model(trained: Trained) -> None:
    """What each setting of the method does, seen in what the model does."""
    theirs = processor(trained)
    pieces = [theirs.id_to_piece(i) for i in range(len(theirs))]
    assert tuple(pieces[:4]) == SPECIAL
    roles = (theirs.unk_id(), theirs.pad_id(), theirs.bos_id(), theirs.eos_id())
    assert roles == (0, 1, 2, 3)
    assert pieces[4] == "\n"
    assert all(theirs.is_byte(i) for i in range(5, FIXED_PIECES))
    learnt = pieces[FIXED_PIECES:]
    assert not [p for p in learnt if len(p) > 1 and any(c in "0123456789\n" for c in p)]
    assert {p for p in learnt if not p.strip(SPACE_MARK)} >= {SPACE_MARK, SPACE_MARK * 2}
    # Pieces begin with spaces, if anything; none goes on past a word.
    assert not [p for p in learnt if SPACE_MARK in p.lstrip(SPACE_MARK)]
    assert theirs.encode("é") != theirs.encode("e\u0301")  # no normalisation
    names = [theirs.id_to_piece(i) for i in theirs.encode(" a  12\n\n")]
    assert "".join(names) == f"{SPACE_MARK}a{SPACE_MARK * 2}12\n\n"
    assert names[-4:] == ["1", "2", "\n", "\n"]
    assert theirs.id_to_piece(theirs.encode("a")[0]) == "a"  # no dummy prefix


def test_tabs_and_long_lines_are_learnt_from() -> None:
    """The library drops sentences with tabs and sentences over 4192 bytes."""
    tabbed = train_sentencepiece(["zebra\tzebra\n" * 50], FIXED_PIECES + 9)
    assert len(tabbed.tokenizer.encode("zebra")) == 1
    long = train_sentencepiece(["zebra " * 5000], FIXED_PIECES + 11)
    assert len(long.tokenizer.encode(" zebra")) == 1


def test_character_coverage() -> None:
    texts = ["the cat sat on the mat " * 200 + "漢"]
    all_of_them = train_sentencepiece(texts, FIXED_PIECES + 20, 1.0).tokenizer
    most = train_sentencepiece(texts, FIXED_PIECES + 20, 0.9995).tokenizer
    assert (len(all_of_them.encode("漢")), len(most.encode("漢"))) == (1, 3)
    assert most.decode(most.encode("漢")) == "漢"


def test_the_same_texts_give_the_same_bytes(trained: Trained) -> None:
    code = (
        "import sys, json, hashlib; from regrow.io.sentencepiece import train_sentencepiece as t;"
        "made = t(json.load(sys.stdin), 900); print(hashlib.sha256(made.model).hexdigest(),"
        "made.tokenizer.sha256)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(TEXTS[::-1]),
        env={**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    model = hashlib.sha256(trained.model).hexdigest()
    assert made.stdout.split() == [model, trained.tokenizer.sha256]
    assert made.stderr == ""


def test_the_model_goes_where_the_tokenizer_goes(
    trained: Trained, folder: Path, tmp_path: Path
) -> None:
    loaded = Tokenizer.load(folder)
    loaded.copy_files(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == trained.model
    assert loaded.sha256 == trained.tokenizer.sha256
    assert (loaded.eos_id, loaded.bos_id) == (3, None)
    sizes = loaded.token_bytes()
    assert sizes.dtype == np.int32
    assert sizes.shape == (900,)
    assert sizes[:4].tolist() == [0, 0, 0, 0]
    assert (sizes[4:FIXED_PIECES] == 1).all()
    assert (sizes[4:] > 0).all()


def test_last_merge() -> None:
    ranks = {"ab": 0, "bc": 1, "abc": 2, "cd": 3, "bcd": 4, "aa": 5, "aaa": 6, "xy": 7}
    assert last_merge("abc", ranks) == ("ab", "c")  # not ("a", "bc"): "ab" comes first
    assert last_merge("bcd", ranks) == ("bc", "d")
    assert last_merge("aaa", ranks) == ("aa", "a")  # the leftmost of equals
    assert last_merge("xy", ranks) == ("x", "y")
    # "bc" takes the b that "ab" would need: the piece is one that nothing is encoded to.
    assert last_merge("abbc", {"bb": 0, "ab": 1, "bc": 2, "abbc": 3}) is None


class TestErrors:
    def test_too_many_and_too_few_ids(self) -> None:
        texts = ["hello world äöü"] * 3
        with pytest.raises(ConfigError, match=r"is 5000, but .* set vocab_size=(\d+) or less") as e:
            train_sentencepiece(texts, 5000)
        most = int(e.value.message.split("vocab_size=")[1].split()[0])
        assert train_sentencepiece(texts, most).tokenizer.vocab_size == most
        with pytest.raises(ConfigError, match=f"vocab_size={most} or less"):
            train_sentencepiece(texts, most + 1)
        with pytest.raises(ConfigError, match=r"is 265, .* set vocab_size=(\d+) or more") as e:
            train_sentencepiece(texts, 265)
        least = int(e.value.message.split("set vocab_size=")[1].split()[0])
        assert least == FIXED_PIECES + len(set(texts[0]))
        assert train_sentencepiece(texts, least).tokenizer.vocab_size == least
        with pytest.raises(ConfigError, match=f"vocab_size={least} or more"):
            train_sentencepiece(texts, least - 1)

    @pytest.mark.parametrize("texts", [[], ["", "\n\t\n"]])
    def test_no_text(self, texts: list[str]) -> None:
        with pytest.raises(ConfigError, match="is empty"):
            train_sentencepiece(texts, 400)

    def test_what_the_texts_raise_comes_out(self) -> None:
        def texts() -> Iterator[str]:
            yield "some text"
            raise InputError("the table ends here")

        with pytest.raises(InputError, match="the table ends here"):
            train_sentencepiece(texts(), 400)

    def test_library_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sentencepiece", None)
        with pytest.raises(ConfigError, match=r"pip install 'regrow\[data\]', or use kind=bytes"):
            train_sentencepiece(["text"], 400)

    def test_space_marks_need_bytes(self, tmp_path: Path) -> None:
        inner = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(inner))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({SPACE_MARK_AS_BYTES: True}))
        with pytest.raises(InputError, match="has no token <0xE2>"):
            Tokenizer.load(tmp_path)
