"""Rows of the document table."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.data.document import GATHERED, Document, Rejected, clean, document_id


def test_id_tells_where_a_document_came_from() -> None:
    document = Document("text", "web", "prose", "a.jsonl", 3)
    assert document.id == Document("other", "web", "code", "a.jsonl", 3).id
    assert document.id == Rejected("web", "a.jsonl", 3, "empty").id
    others = {("web", "a.jsonl", 4), ("web", "b.jsonl", 3), ("we", "ba.jsonl", 3)}
    assert len({document.id} | {document_id(*o) for o in others}) == 4
    assert len(document.id) == 32
    assert list(document.row()) == GATHERED.names


@given(st.text(), st.sampled_from(["prose", "code"]))
def test_clean_text_is_unicode_without_control_characters(text: str, kind: str) -> None:
    cleaned = clean(text, kind)
    assert clean(cleaned, kind) == cleaned
    assert all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in cleaned)
    if kind == "prose":
        assert unicodedata.is_normalized("NFC", cleaned)


def test_line_ends_marks_and_composition() -> None:
    raw = "\ufeffa\r\nb\rc\x00\x0c\td e\u0301"
    assert clean(raw, "prose") == "a\nb\nc\td \u00e9"
    assert clean(raw, "code").endswith("e\u0301")
    with pytest.raises(UnicodeEncodeError):
        clean("\ud800", "prose")
