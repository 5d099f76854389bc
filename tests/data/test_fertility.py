"""Fertility against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrow.core.errors import InputError
from regrow.data.fertility import Fertility, measure, table
from regrow.data.sample import Group
from regrow.io.tokenizer import Tokenizer, train_byte_level
from tests.data.test_sample import write_table

EN, DE, NONE = Group("web", "en"), Group("web", "de"), Group("notes", "")
TRAIN = [(EN, "seen before"), (DE, "schon gesehen"), (NONE, "one two\nthree")]
HELD_OUT = [(EN, "the cat sat"), (EN, "on it"), (DE, "größer")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_level(iter(["the cat sat on the mat", "größer als zuvor"]), 290)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    write_table(tmp_path / "train.parquet", TRAIN)
    write_table(tmp_path / "validation.parquet", HELD_OUT)
    return tmp_path


def test_counts_by_source_and_language(tokenizer: Tokenizer, documents: Path) -> None:
    counts = measure(tokenizer, documents)
    length = {text: len(tokenizer.encode(text)) for _, text in [*TRAIN, *HELD_OUT]}
    assert counts == {
        EN: Fertility(16, 16, 5, length["the cat sat"] + length["on it"]),
        DE: Fertility(8, 6, 1, length["größer"]),
        NONE: Fertility(13, 13, 3, length["one two\nthree"]),  # nothing of it was held out
    }
    figures = table(counts, {EN: 11, NONE: 13})
    assert set(figures["by_source"]) == {"web", "notes"}
    assert set(figures["by_language"]) == {"en", "de", "unknown"}
    german = figures["by_language"]["de"]
    assert german["tokens_per_byte"] == length["größer"] / 8
    assert german["tokens_per_character"] == length["größer"] / 6
    assert german["tokens_per_word"] == length["größer"]
    assert german["trained_bytes"] == 0
    web = figures["by_source"]["web"]
    assert (web["text_bytes"], web["trained_bytes"]) == (24, 11)
    assert web["tokens"] == counts[EN].tokens + counts[DE].tokens
    assert figures["all"]["tokens"] == sum(count.tokens for count in counts.values())
    assert figures["all"]["tokens_per_word"] == figures["all"]["tokens"] / 9
    assert figures["all"]["trained_bytes"] == 24


def test_each_group_up_to_its_bound(
    tokenizer: Tokenizer, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrow.data.fertility._MEASURED_BYTES", 5)
    counts = measure(tokenizer, documents)
    assert counts[EN].bytes in (5, 11)  # the first of the two reaches it
    assert counts[DE].bytes == 8


def test_no_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_table(tmp_path / f"{split}.parquet", [])
    with pytest.raises(InputError, match="holds no text"):
        measure(tokenizer, tmp_path)
