"""The page of a tokenizer."""

from __future__ import annotations

from pathlib import Path

from regrow.report.page import write_page
from tests.report.family_run import write_stage
from tests.report.reading import Page


def row(tokens: int) -> dict[str, float]:
    return {
        "text_bytes": 12_000,
        "tokens": tokens,
        "tokens_per_byte": tokens / 12_000,
        "tokens_per_character": tokens / 8_000,
        "tokens_per_word": tokens / 2_000,
        "trained_bytes": 3_400_000,
    }


def test_fertility_by_source_and_language(tmp_path: Path) -> None:
    fertility = {"by_source": {"web": row(5000)}, "by_language": {"de": row(6000)}, "all": row(11)}
    result = {"vocab_size": 4096, "fertility": fertility, "bytes_per_token": {"web": 2.4}}
    page = Page.read(write_page(write_stage(tmp_path, "tokenizer", "tokenizer", result)))
    assert page.rows("web") == [["web", "3.40 MB", "12.0 kB", "5.00k", "0.417", "0.625", "2.500"]]
    assert page.rows("de")[0][3:] == ["6.00k", "0.500", "0.750", "3.000"]
    assert len(page.rows("all")) == 2
    assert "More figures" not in page.text


def test_runs_without_it_have_no_such_section(tmp_path: Path) -> None:
    for result in ({"vocab_size": 5}, {"fertility": {}}, {"fertility": {"by_source": {"web": 3}}}):
        page = Page.read(write_page(write_stage(tmp_path, "tokenizer", "tokenizer", result)))
        assert "per character" not in page.text
