"""Pages: ``.html`` files, and web archives of them."""

from __future__ import annotations

from collections.abc import Iterator

from regrow.data import extract
from regrow.data.settings.sources import FolderSource
from regrow.data.sources.pool import Item
from regrow.data.sources.record import Origin
from regrow.io.places import Place, unreadable
from regrow.io.warc import HOLDS_DOCUMENTS, Capture, read_captures


def read_page(config: FolderSource, place: Place) -> Iterator[Item]:
    """One HTML file as one document."""
    origin = Origin(config, place)
    try:
        with place.open_plain() as file:
            raw = file.read(extract.MAX_PAGE_BYTES + 1)
    except unreadable() as error:
        yield origin.reject(0, "unreadable", True, str(error))
        return
    try:
        text = _text(config, raw, None)
    except extract.PageError as error:
        yield origin.reject(0, error.reason, error.broken, error.detail)
        return
    yield origin.document(
        0, text, config.content, language=config.language, extractor=config.extractor
    )


def _text(config: FolderSource, raw: bytes, charset: str | None) -> str:
    if not raw.strip():
        raise extract.PageError("empty")
    if len(raw) > extract.MAX_PAGE_BYTES:
        raise extract.PageError(f"page longer than {extract.MAX_PAGE_BYTES >> 20} MiB")
    page = extract.decode(raw, charset, config.encoding)
    return extract.main_text(page, config.extractor)


def read_archive(config: FolderSource, place: Place) -> Iterator[Item]:
    """The pages and texts of a ``.warc`` file; every other record with the reason why not."""
    origin = Origin(config, place)
    found = False
    for capture in read_captures(place.open):
        found = True
        if capture.error:
            reason, _, _ = capture.error.partition(" (")
            yield origin.reject(capture.number, reason, True, capture.error, capture.id)
        else:
            yield _captured(config, origin, capture)
    if not found:
        yield origin.reject(0, "empty")


def read_old_archive(config: FolderSource, place: Place) -> Iterator[Item]:
    """An ARC file, which is not read: said once, so that it is not missed in silence."""
    detail = "the format before WARC; convert it: warcio recompress OLD.arc.gz NEW.warc.gz"
    yield Origin(config, place).reject(0, "ARC is not read", True, detail)


def _captured(config: FolderSource, origin: Origin, capture: Capture) -> Item:
    def reject(reason: str, broken: bool = False, detail: str = "") -> Item:
        return origin.reject(capture.number, reason, broken, detail, capture.id)

    if capture.kind not in HOLDS_DOCUMENTS:
        return reject(f"WARC {capture.kind}")
    if capture.status not in (None, 200):
        return reject(f"HTTP status {capture.status}")
    kind = capture.content_type or ("text/html" if extract.looks_like_page(capture.body) else "")
    if kind in extract.HTML_TYPES:
        extractor: str | None = config.extractor
    elif kind == "text/plain":
        extractor = None
    else:
        return reject("no page", detail=kind or "no content type")
    try:
        if extractor:
            text = _text(config, capture.body, capture.charset)
        else:
            text = extract.decode(capture.body, capture.charset, config.encoding)
    except extract.PageError as error:
        return reject(error.reason, error.broken, error.detail)
    return origin.document(
        capture.number,
        text,
        config.content,
        record_id=capture.id,
        language=config.language,
        date=capture.date,
        url=capture.url,
        extractor=extractor,
    )
