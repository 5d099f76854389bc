"""Pages: the right characters, the main text, and no page that stops a run."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.data import extract
from regrow.data.document import Document, Rejected
from regrow.data.extract import PageError, decode, main_text
from regrow.data.settings.sources import FolderSource
from regrow.data.sources.folder import units

pytest.importorskip("resiliparse")

ARTICLE = "The quick brown fox jumps over the lazy dog, as it has done on every page so far. " * 4
PAGE = f"""<!doctype html><html><head><title>T</title><script>var x = "no";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/b">Navigation</a></li></ul></nav>
<main><article><h1>Heading</h1><p>{ARTICLE}</p><p>Second &amp; last.</p></article></main>
<footer>Copyright notice</footer></body></html>"""


@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
def test_the_main_text_is_what_a_reader_came_for(extractor: Any) -> None:
    if extractor == "trafilatura":
        pytest.importorskip("trafilatura")
    text = main_text(PAGE, extractor)
    assert "Heading" in text
    assert ARTICLE.strip() in text
    assert "Second & last." in text
    for outside in ("Navigation", "Copyright", "var x"):
        assert outside not in text


def test_pages_without_text() -> None:
    for page in ("<html><body></body></html>", "<p> </p>", ""):
        with pytest.raises(PageError) as found:
            main_text(page)
        assert (found.value.reason, found.value.broken) == ("no main text", False)


def test_pages_nested_too_deeply_are_told_in_no_time() -> None:
    started = time.process_time()
    with pytest.raises(PageError, match="nested too deeply"):
        main_text("<div>" * 100_000 + "x")
    assert time.process_time() - started < 2
    # As many tags, but siblings: lists whose items are never closed, and well-formed blocks.
    assert "end" in main_text("<div>a</div>" * 9000 + "<ul>" + "<li>b" * 9000 + "</ul><p>end</p>")


TEXT = "Grüße aus Köln, schöne Straßen, ganz ohne Ärger über Öfen"


@pytest.mark.parametrize(
    ("raw", "charset"),
    [
        (TEXT.encode(), None),
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("latin-1"), "iso-8859-1"),
        (TEXT.encode("latin-1"), "ISO8859-1"),
        (TEXT.encode("latin-1"), "no-such-charset"),
        (TEXT.encode("latin-1"), "utf-8"),  # a server that is wrong
        (b'<meta charset="windows-1252">' + TEXT.encode("cp1252"), None),
        (
            b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-15">'
            + TEXT.encode("iso-8859-15"),
            None,
        ),
        (b'<meta charset="utf-16">' + TEXT.encode(), None),
        (codecs.BOM_UTF8 + TEXT.encode(), "latin-1"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), None),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-8"),
    ],
)
def test_the_right_characters(raw: bytes, charset: str | None) -> None:
    assert decode(raw, charset).endswith(TEXT)
    assert "\ufeff" not in decode(raw, charset)


def test_a_fallback_is_for_pages_that_declare_nothing() -> None:
    raw = "Привет, мир".encode("koi8-r")
    assert decode(raw, None, "koi8-r") == "Привет, мир"
    assert decode(TEXT.encode(), "utf-8", "koi8-r") == TEXT


def test_one_bad_byte_is_replaced_and_many_are_refused() -> None:
    raw = codecs.BOM_UTF8 + TEXT.encode() * 50
    assert decode(raw + b"\xff").count("\ufffd") == 1
    with pytest.raises(PageError) as found:
        decode(codecs.BOM_UTF8 + b"\xff\xfe\xfd" * 50)
    assert (found.value.reason, found.value.broken) == ("not text in its charset", True)


@given(st.binary(max_size=300), st.sampled_from([None, "utf-8", "latin-1", "utf-16", "gbk", "?"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_text_or_refused(raw: bytes, charset: str | None) -> None:
    with contextlib.suppress(PageError):
        page = decode(raw, charset)
        page.encode()
        main_text(page).encode()


def test_extractors_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    monkeypatch.setitem(sys.modules, "lxml_html_clean", None)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "lxml_html_clean" else name
    )
    extract.require("resiliparse")
    with pytest.raises(ConfigError, match=r"trafilatura needs lxml_html_clean.*regrow\[extract\]"):
        units(FolderSource(name="a", path=str(tmp_path), extractor="trafilatura"))


def read(path: Path, **options: Any) -> list[Document | Rejected]:
    (unit,) = units(FolderSource(name="web", path=str(path), content="web", **options))
    return list(unit.read())


def test_page_files(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "b.HTM").write_bytes(PAGE.replace("quick", "größte").encode("latin-1"))
    (tmp_path / "c.html.gz").write_bytes(gzip.compress(PAGE.encode()))
    (tmp_path / "d.html").write_text("<p></p>")
    (tmp_path / "e.html").write_bytes(b"")
    (tmp_path / "f.html").write_bytes(b"<p>" + b"x" * extract.MAX_PAGE_BYTES)
    (tmp_path / "g.html.gz").write_bytes(gzip.compress(PAGE.encode())[:-30])
    items = {item.file: item for item in read(tmp_path)}
    for name in ("a.html", "b.HTM", "c.html.gz"):
        document = items[f"web/{name}"]
        assert isinstance(document, Document)
        assert (document.extractor, document.kind) == ("resiliparse", "web")
    assert "größte brown" in items["web/b.HTM"].text  # type: ignore[union-attr]
    reasons = {k: (v.reason, v.broken) for k, v in items.items() if isinstance(v, Rejected)}
    assert reasons == {
        "web/d.html": ("no main text", False),
        "web/e.html": ("empty", False),
        "web/f.html": ("page longer than 8 MiB", False),
        "web/g.html.gz": ("unreadable", True),
    }
    as_code = FolderSource(name="code", path=str(tmp_path / "a.html"), content="code")
    (only,) = units(as_code)[0].read()
    assert isinstance(only, Document)
    assert (only.text, only.extractor) == (PAGE, None)


def test_archives_of_real_pages(data_folder: Path) -> None:
    pytest.importorskip("fastwarc")
    folder = data_folder / "warc-samples" / "commoncrawl"
    items = read(folder / "*.gz", licence="CC-BY-SA-4.0", language="an")
    kept = [item for item in items if isinstance(item, Document)]
    page, plain = sorted(kept, key=lambda item: item.extractor is None)
    assert (page.extractor, plain.extractor) == ("resiliparse", None)
    for item in (page, plain):
        assert item.url == "https://an.wikipedia.org/wiki/Escopete"
        assert item.date == "2024-05-18T01:58:10Z"
        assert item.file.startswith("web#<urn:uuid:")
        assert (item.language, item.licence) == ("an", "CC-BY-SA-4.0")
        assert "Escopete" in item.text
    # The crawl's own text of the page holds its navigation, what was extracted does not.
    assert len(page.text) < len(plain.text) / 2
    reasons = sorted(item.reason for item in items if isinstance(item, Rejected))
    assert reasons == [
        "WARC metadata",
        "WARC metadata",
        "WARC request",
        "WARC warcinfo",
        "WARC warcinfo",
        "WARC warcinfo",
    ]
