"""From the bytes of a page to the text that a reader came for."""

from __future__ import annotations

import codecs
import importlib.util
import re

from regrow.core.errors import ConfigError
from regrow.data.settings.sources import Extractor

MAX_PAGE_BYTES = 8 << 20
# The time for nested blocks grows with the square of their depth: 0.04 s at 2,000, 4 s at 20,000.
# Depth is only looked at in pages of so many tags that it could take more than a second.
MAX_DEPTH = 1000
_MANY_TAGS = 8000
_MAX_REPLACED = 0.01  # of the characters; above it the charset is not what it says

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
_NEVER_OPEN = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr")
)
# Closed by their next sibling where their own end is left out.
_CLOSED_BY_NEXT = frozenset(("p", "li", "dt", "dd", "tr", "td", "th", "option", "thead", "tbody"))
_PAGE_START = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(
    rb"<meta[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?\s{0,8}([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE
)

HTML_TYPES = frozenset(("text/html", "application/xhtml+xml"))


class PageError(Exception):
    """A page gives no text.

    Args:
        reason: short and countable.
        broken: whether the page is damaged, rather than of no use.
        detail: what exactly was wrong.
    """

    def __init__(self, reason: str, broken: bool = False, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.broken, self.detail = reason, broken, detail


def require(extractor: Extractor) -> None:
    """Make sure that the extractor is installed.

    Raises:
        ConfigError: it is not, with the extra that brings it.
    """
    needed = {"resiliparse": ("resiliparse",), "trafilatura": ("trafilatura", "lxml_html_clean")}
    missing = [name for name in needed[extractor] if importlib.util.find_spec(name) is None]
    if missing:
        extra = {"resiliparse": "data", "trafilatura": "extract"}[extractor]
        raise ConfigError(
            f"extractor: {extractor} needs {', '.join(missing)}; "
            f"install it with pip install 'regrow[{extra}]'"
        )


def looks_like_page(raw: bytes) -> bool:
    """Whether bytes of an unknown type begin as HTML does."""
    return _PAGE_START.search(raw, 0, 1024) is not None


def decode(raw: bytes, charset: str | None = None, fallback: str | None = None) -> str:
    """The characters of a page.

    A byte order mark decides, then ``charset``, then what the page declares, then ``fallback``,
    then a guess from the bytes; what a charset cannot be is passed over.

    Args:
        raw: the page.
        charset: as HTTP tells it.
        fallback: for a page that declares nothing.

    Raises:
        PageError: too many bytes are no character in any of them.
    """
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    for mark, name in _MARKS:
        if raw.startswith(mark):
            return _with_replacements(raw, name)
    named = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    declared = named or _declared(raw) or fallback or "utf-8"
    try:
        return raw.decode(declared)
    except UnicodeDecodeError:
        # Trust in UTF-8 is earned: other bytes are hardly ever valid in it.
        guess = detect_encoding(raw) or "utf-8"
        try:
            return raw.decode(guess)
        except UnicodeDecodeError:
            return _with_replacements(raw, declared)


def _declared(raw: bytes) -> str | None:
    from resiliparse.parse.encoding import map_encoding_to_html5

    found = _META.search(raw, 0, 2048)
    if not found:
        return None
    name = map_encoding_to_html5(found[1].decode("ascii"), fallback_utf8=False)
    # A declaration that can be read as ASCII stands in no UTF-16 page (HTML standard, 13.2.3.2).
    return "utf-8" if name and name.startswith("utf-16") else name


def _with_replacements(raw: bytes, name: str) -> str:
    text = raw.decode(name, "replace")
    replaced = text.count("\ufffd")
    if replaced > _MAX_REPLACED * len(text):
        detail = f"{replaced} of {len(text)} characters, read as {name}"
        raise PageError("not text in its charset", True, detail)
    return text


def main_text(page: str, extractor: Extractor = "resiliparse") -> str:
    """The main content of a page as plain text, without navigation, headers and footers.

    Args:
        page: HTML.
        extractor: what finds it.

    Raises:
        PageError: nothing found, or nested so deeply that it would take minutes.
    """
    if page.count("<") > _MANY_TAGS and _depth(page) > MAX_DEPTH:
        raise PageError("page nested too deeply", True, f"more than {MAX_DEPTH} open elements")
    text = _trafilatura(page) if extractor == "trafilatura" else _resiliparse(page)
    if not text.strip():
        raise PageError("no main text")
    return text


def _depth(page: str) -> int:
    """Elements that are open at once at most, as far as counting tags can tell."""
    depth = deepest = 0
    for match in _TAG.finditer(page):
        name = match[2].lower()
        if name in _NEVER_OPEN or name in _CLOSED_BY_NEXT:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _resiliparse(page: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(page, main_content=True))


def _trafilatura(page: str) -> str:
    import trafilatura

    return trafilatura.extract(page, include_comments=False, with_metadata=False) or ""
