"""Web archives: every record comes out once, and damage costs only what is damaged."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.io.warc import Capture, read_captures

pytest.importorskip("fastwarc")


def record(
    number: int,
    block: bytes,
    kind: str = "response",
    content_type: str = "application/http; msgtype=response",
) -> bytes:
    """A record as WARC 1.0 says that one is written."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Date: 2020-01-02T03:04:{number % 60:02d}Z\r\nWARC-Target-URI: http://x/{number}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def response(body: bytes, headers: str = "Content-Type: text/html; charset=utf-8\r\n") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + body


def opener(raw: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(raw)


def read(raw: bytes, **options: int) -> list[Capture]:
    found = list(read_captures(opener(raw), **options))
    assert [capture.number for capture in found] == list(range(len(found)))
    return found


BODIES = [b"<p>page %d</p>" % i * (i + 1) for i in range(6)]
RECORDS = [record(i, response(body)) for i, body in enumerate(BODIES)]
PACKED = [gzip.compress(one) for one in RECORDS]


@pytest.mark.parametrize("parts", [RECORDS, PACKED], ids=["plain", "gzip"])
def test_records_come_with_their_headers(parts: list[bytes]) -> None:
    found = read(b"".join(parts))
    assert [capture.body for capture in found] == BODIES
    first = found[1]
    assert (first.kind, first.status, first.content_type) == ("response", 200, "text/html")
    assert (first.id, first.url) == ("<urn:uuid:1>", "http://x/1")
    assert (first.date, first.charset) == ("2020-01-02T03:04:01Z", "utf-8")


def test_bodies_are_decoded() -> None:
    blocks = [
        response(gzip.compress(b"zip"), "Content-Encoding: gzip\r\n"),
        response(b"3\r\nchu\r\n3\r\nnks\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
        response(b"no gzip", "Content-Encoding: gzip\r\n"),
        response(b"no gzip either", "Content-Encoding: gzip\r\n"),
        response(b"zz\r\nchunk", "Transfer-Encoding: chunked\r\n"),
    ]
    found = read(b"".join(record(i, block) for i, block in enumerate(blocks)))
    assert [capture.body for capture in found[:2]] == [b"zip", b"chunks"]
    for number in (2, 3, 4):  # each told by itself, with its id
        assert found[number].error.startswith("HTTP body cannot be decoded")
        assert found[number].id == f"<urn:uuid:{number}>"


def test_other_kinds_hold_no_body_and_resources_do() -> None:
    raw = record(0, b"software: x\r\n", "warcinfo", "application/warc-fields")
    raw += record(1, b"GET / HTTP/1.1\r\n\r\n", "request", "application/http; msgtype=request")
    raw += record(2, b"text", "conversion", "text/plain") + record(
        3, b"<p>r", "resource", "Text/HTML"
    )
    found = read(raw)
    assert [(c.kind, c.content_type, c.body) for c in found] == [
        ("warcinfo", "", b""),
        ("request", "", b""),
        ("conversion", "text/plain", b"text"),
        ("resource", "text/html", b"<p>r"),
    ]


@pytest.mark.parametrize("parts", [RECORDS, PACKED], ids=["plain", "gzip"])
@pytest.mark.parametrize("at", range(1, 6))
def test_garbage_between_records_costs_no_record(parts: list[bytes], at: int) -> None:
    found = read(b"".join(parts[:at]) + b"garbage \x00 of any kind\r\n" + b"".join(parts[at:]))
    assert [c.body for c in found if not c.error] == BODIES
    assert sum(bool(c.error) for c in found) == 1


@pytest.mark.parametrize("at", range(6))
def test_a_broken_member_costs_itself(at: int) -> None:
    broken = bytearray(PACKED[at])
    broken[len(broken) // 2] ^= 0xFF
    found = read(b"".join([*PACKED[:at], bytes(broken), *PACKED[at + 1 :]]))
    assert [c.body for c in found if not c.error] == BODIES[:at] + BODIES[at + 1 :]
    assert sum(bool(c.error) for c in found) == 1


@pytest.mark.parametrize("parts", [RECORDS, PACKED], ids=["plain", "gzip"])
def test_cut_files_give_what_is_whole_and_say_so(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    for cut in range(1, len(whole), 7):
        found = read(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [c.body for c in found if not c.error][:complete] == BODIES[:complete]
        errors = sum(bool(c.error) for c in found)
        # Without its last bytes (blank lines, a checksum) a record may be whole as it is.
        assert errors == 1 or (errors == 0 and any(end - 12 <= cut <= end for end in ends))
        assert len(found) - errors <= complete + 1


def test_a_length_that_lies_costs_its_record() -> None:
    lies = [re.sub(rb"(?<=\nContent-Length: )\d+", n, RECORDS[2]) for n in (b"99999999999", b"7")]
    for lie in lies:
        found = read(b"".join([*RECORDS[:2], lie, *RECORDS[3:]]))
        bodies = [c.body for c in found if not c.error]
        assert [b for b in bodies if b in BODIES] == BODIES[:2] + BODIES[3:]
        assert any(c.error for c in found)


def test_long_records_are_told_one_by_one_and_not_held() -> None:
    raw = record(0, response(b"x" * 5000)) + record(1, response(b"y" * 5000)) + RECORDS[2]
    found = read(raw, max_record_bytes=1000)
    assert [c.error for c in found] == ["record longer than 1000 bytes"] * 2 + [""]
    bomb = response(gzip.compress(b"0" * 3_000_000), "Content-Encoding: gzip\r\n")
    (only,) = read(record(0, bomb), max_record_bytes=100_000)
    assert "more than 100000 bytes" in only.error


def test_nothing_and_no_archive() -> None:
    assert read(b"") == []
    for raw in (b"no archive at all\n" * 9, gzip.compress(b"no archive"), b"\x1f\x8b", b"\0" * 99):
        (only,) = read(raw)
        assert only.error

    def gone() -> BinaryIO:
        raise OSError("no such disk")

    (only,) = read_captures(gone)
    assert only.error == "unreadable from here on (no such disk)"


@given(
    st.sampled_from([RECORDS, PACKED]),
    st.lists(
        st.tuples(st.integers(0, 5000), st.binary(max_size=9), st.integers(0, 40)), max_size=4
    ),
)
@settings(max_examples=150, deadline=None)
def test_any_damage_is_survived(parts: list[bytes], edits: list[tuple[int, bytes, int]]) -> None:
    raw = b"".join(parts)
    for at, new, gone in edits:
        at %= len(raw) + 1
        raw = raw[:at] + new + raw[at + gone :]
    found = read(raw)
    assert found or not raw
    if not edits:
        assert [c.body for c in found] == BODIES


def test_samples_of_real_archives(data_folder: Path) -> None:
    folder = data_folder / "warc-samples"
    counts = {}
    for path in sorted(folder.rglob("*.warc*")):
        if path.is_file():
            found = list(read_captures(lambda path=path: path.open("rb")))  # type: ignore[misc]
            counts[path.name] = (len(found), sum(bool(c.error) for c in found))
    # Records as warcio's own documentation of its samples has them.
    assert counts["example.warc.gz"] == (6, 0)
    assert counts["example.warc"] == (6, 0)
    assert counts["example-trunc.warc"] == (5, 1)
    assert counts["whirlwind.warc.gz"] == (4, 0)
    assert counts["post-test.warc.gz"] == (6, 0)
    assert sum(errors for _, errors in counts.values()) == 1
