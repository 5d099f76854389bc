"""Web archives record by record: a damaged one costs what is damaged, not the rest of the file.

FastWARC reads records and HTTP; what is here finds the next whole record after a damaged place.
ARC, the older format, is not read: ``warcio recompress`` converts it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from regrow.io.places import unreadable

MAX_RECORD_BYTES = 64 << 20
_GZIP = b"\x1f\x8b\x08"
_PLAIN = b"WARC/1."
_WINDOW = 1 << 20
_DATE = re.compile(r"\d{4}(-\d{2}){0,2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?Z?)?")


@dataclass(frozen=True, slots=True)
class Capture:
    """One record.

    Args:
        number: counted from 0 in its file, damaged places included.
        kind: ``response``, ``resource``, ``conversion``, ``request`` and so on.
        error: what is damaged; then only ``number`` and, where it could be read, ``id`` is set.
        id: WARC-Record-ID.
        url: WARC-Target-URI.
        date: WARC-Date, where it is a date.
        status: of HTTP; None for a record without.
        content_type: of the body, in lower case, without parameters; empty where none is given.
        charset: of HTTP.
        body: decoded of chunks and compression; empty for kinds that hold no document.
    """

    number: int
    kind: str = ""
    error: str = ""
    id: str | None = None
    url: str | None = None
    date: str | None = None
    status: int | None = None
    content_type: str = ""
    charset: str | None = None
    body: bytes = b""


HOLDS_DOCUMENTS = ("response", "resource", "conversion")


def read_captures(
    open_file: Callable[[], BinaryIO], max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[Capture]:
    """Every record of a ``.warc`` or ``.warc.gz`` file, and one error for each damaged place.

    Args:
        open_file: opens it as it lies; it has to be seekable.
        max_record_bytes: a longer record is an error, and is never held.
    """
    number = 0
    try:
        with open_file() as file:
            for capture in _all(file, max_record_bytes):
                yield Capture(number, **capture)
                number += 1
    except unreadable() as error:
        yield Capture(number, error=f"unreadable from here on ({error})")


def _all(file: BinaryIO, limit: int) -> Iterator[dict[str, Any]]:
    """Records from the first to the last; after damage from the next place that looks like one."""
    from fastwarc.warc import ArchiveIterator

    magic = _GZIP if file.read(2) == _GZIP[:2] else _PLAIN
    start = 0  # where the iterator began
    last = 0  # where the record that was read last begins
    lost = False  # whether what was read last was no record
    while True:
        file.seek(start)
        resume = False
        try:
            for record in ArchiveIterator(file, parse_http=False, fsspec_args=False):
                last = record.stream_pos
                yield _record(record, limit)
                lost = False
        except _WrongLengthError as error:
            yield error.found
            lost, resume = False, True
        except OSError as error:
            if not lost:  # one damaged place is told once, however often reading it fails
                yield {"error": f"no WARC record ({error})"}
            lost = resume = True
        else:
            if not lost and (what := _left_over(file, last, magic)):
                yield {"error": what}
        following = _next(file, max(last, start) + 1, magic) if resume else None
        if following is None:
            return
        start = last = following


class _WrongLengthError(Exception):
    """A record is not as long as it says, or too long to be read: the next has to be looked for."""

    def __init__(self, error: str, record_id: str | None) -> None:
        super().__init__(error)
        self.found = {"error": error, "id": record_id}


def _record(record: Any, limit: int) -> dict[str, Any]:
    kind = str(record.record_type).rpartition(".")[2]
    headers = record.headers
    date = headers.get("WARC-Date") or ""
    found: dict[str, Any] = {
        "kind": kind,
        "id": headers.get("WARC-Record-ID"),
        "url": (headers.get("WARC-Target-URI") or "").strip("<>") or None,
        "date": date if _DATE.fullmatch(date) else None,
    }
    length = record.content_length
    if not (headers.get("Content-Length") or "").strip().isdecimal():
        raise _WrongLengthError("no WARC record (a header without a length)", None)
    if length > limit:
        raise _WrongLengthError(f"record longer than {limit} bytes", found["id"])
    block = record.reader.read()
    if len(block) != length:
        detail = f"{len(block)} of {length} bytes"
        raise _WrongLengthError(f"record cut short ({detail})", found["id"])
    if kind not in HOLDS_DOCUMENTS:
        return found
    if not record.is_http:
        named = headers.get("Content-Type") or ""
        return {**found, "content_type": _media_type(named), "body": block}
    try:
        return {**found, **_http(block, limit)}
    except OSError as error:
        return {"error": f"HTTP body cannot be decoded ({error})", "id": found["id"]}


def _http(block: bytes, limit: int) -> dict[str, Any]:
    from fastwarc.warc import WarcRecord, WarcRecordType

    record = WarcRecord()  # one of its own: the iterator loses its place over a broken body
    record.init_headers(WarcRecordType.response)
    record.set_bytes_content(block)
    record.is_http = True
    record.parse_http(auto_decode="all")
    body = record.reader.read(limit + 1)
    if len(body) > limit:
        raise OSError(f"more than {limit} bytes")
    return {
        "status": record.http_headers.status_code,
        "content_type": _media_type(record.http_content_type or ""),
        "charset": record.http_charset,
        "body": body,
    }


def _media_type(named: str) -> str:
    return named.partition(";")[0].strip().lower()


def _left_over(file: BinaryIO, last: int, magic: bytes) -> str:
    """What lies behind the last record of a gzip file that ended without an error, if anything."""
    if magic != _GZIP:
        return ""
    file.seek(last)
    inflate = zlib.decompressobj(31)
    try:
        while block := file.read(_WINDOW):
            while block and not inflate.eof:
                inflate.decompress(block, _WINDOW)
                block = inflate.unconsumed_tail
            if inflate.eof:
                if inflate.unused_data.strip(b"\0") or file.read(1).strip(b"\0"):
                    return "no WARC record (bytes behind the last one)"
                return ""
    except zlib.error:
        return "no WARC record (broken gzip)"
    return "" if file.tell() == last else "no WARC record (gzip cut short)"


def _next(file: BinaryIO, start: int, magic: bytes) -> int | None:
    """Where something that looks like a record begins, at ``start`` or after it."""
    file.seek(start - 1)
    held = file.read(1)
    at = start - 1
    while block := file.read(_WINDOW):
        held += block
        found = held.find(magic, 0 if at >= start else 1)
        while found >= 0:
            if magic == _GZIP or held[found - 1 : found] == b"\n":
                return at + found
            found = held.find(magic, found + 1)
        at += max(0, len(held) - len(magic))
        held = held[-len(magic) :]
    return None
