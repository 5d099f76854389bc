"""Two hundred broken inputs, made from a seed: what they hold and how much of it is whole."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SEED = 20240611
COUNT = 200


@dataclass(frozen=True)
class Made:
    """One input.

    Args:
        name: of its file.
        whole: texts that have to come out as documents, whatever else is wrong.
        records: how many records it has, kept or not; None where damage leaves that open.
    """

    name: str
    whole: tuple[str, ...] = ()
    records: int | None = None


def lines(*values: bytes) -> bytes:
    return b"".join(value + b"\n" for value in values)


def good(rng: random.Random) -> tuple[str, bytes]:
    """A text that no other has, and its record."""
    text = f"Text {rng.getrandbits(48):012x} that is whole."
    return text, json.dumps({"text": text}).encode()


def zstd(raw: bytes) -> bytes:
    return bytes(pa.compress(raw, "zstd", asbytes=True))


Maker = Callable[[random.Random, Path], Made]
MAKERS: list[Maker] = []


def maker(make: Maker) -> Maker:
    MAKERS.append(make)
    return make


def put(path: Path, raw: bytes, *whole: str, records: int | None = None) -> Made:
    path.write_bytes(raw)
    return Made(path.name, whole, records)


def one_bad_line(bad: Callable[[random.Random], bytes]) -> Maker:
    """A file of records of which one is broken."""

    def make(rng: random.Random, stem: Path) -> Made:
        texts, records = zip(*(good(rng) for _ in range(4)), strict=True)
        at = rng.randrange(5)
        raw = lines(*records[:at], bad(rng), *records[at:])
        suffix, pack = rng.choice(
            [(".jsonl", bytes), (".jsonl.gz", gzip.compress), (".jsonl.zst", zstd)]
        )
        return put(Path(f"{stem}{suffix}"), pack(raw), *texts, records=5)

    return maker(make)


one_bad_line(lambda rng: b'{"text": "bad \xff\xfe utf-8"}')
one_bad_line(lambda rng: b'{"text": "lone \\ud800 surrogate"}')
one_bad_line(lambda rng: b'{"text": "overlong \xc0\x80"}')
one_bad_line(lambda rng: b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}")
one_bad_line(lambda rng: b'{"a":' * 10_000 + b"1" + b"}" * 10_000)
one_bad_line(lambda rng: b'{"other": "no text"}')
one_bad_line(lambda rng: b'{"text": "one", "text": "two"}')
one_bad_line(
    lambda rng: rng.choice([b'{"text": 5}', b'{"text": null}', b'{"text": ["a"]}', b'{"text": {}}'])
)
one_bad_line(lambda rng: rng.choice([b"[]", b'"text"', b"3", b"null", b"true", b"NaN"]))
one_bad_line(lambda rng: b'{"text": "cut')
one_bad_line(lambda rng: b'{"text": "a"} trailing')
one_bad_line(lambda rng: b'{"text": "", "id": "x%d"}' % rng.randrange(999))
one_bad_line(lambda rng: b'{"text": "deep id", "id": ' + b"[" * 500 + b"]" * 500 + b"}")
one_bad_line(lambda rng: b'{"text": "big", "n": 1' + b"0" * 5000 + b"}")
one_bad_line(lambda rng: rng.randbytes(60).replace(b"\n", b"") + b"\x00")


@maker
def nul_in_a_record(rng: random.Random, stem: Path) -> Made:
    raw = lines(b'{"text": "a\\u0000b %d"}' % (n := rng.getrandbits(40)))
    return put(Path(f"{stem}.jsonl"), raw, f"ab {n}", records=1)


@maker
def marks_and_line_ends(rng: random.Random, stem: Path) -> Made:
    (one, first), (two, second) = good(rng), good(rng)
    raw = b"\xef\xbb\xbf" + first + b"\r\n\r\n" + second + b"\r\n"
    return put(Path(f"{stem}.jsonl"), raw, one, two, records=2)


@maker
def a_long_line(rng: random.Random, stem: Path) -> Made:
    text, record = good(rng)
    long = f"{rng.getrandbits(40)} " + "x" * 10_000_000
    raw = lines(json.dumps({"text": long}).encode(), record)
    return put(Path(f"{stem}.jsonl.gz"), gzip.compress(raw, 1), text, long, records=2)


@maker
def nothing(rng: random.Random, stem: Path) -> Made:
    suffix = rng.choice(
        [".jsonl", ".txt", ".md", ".html", ".parquet", ".warc", ".jsonl.gz", ".warc.gz"]
    )
    return put(Path(f"{stem}{suffix}"), b"", records=1)


@maker
def blank(rng: random.Random, stem: Path) -> Made:
    suffix = rng.choice([".jsonl", ".txt", ".md", ".html"])
    return put(Path(f"{stem}{suffix}"), b" \r\n\t \n" * rng.randrange(1, 9), records=1)


@maker
def cut_gzip(rng: random.Random, stem: Path) -> Made:
    raw = lines(*(good(rng)[1] for _ in range(400)))
    packed = gzip.compress(raw)
    return put(Path(f"{stem}.jsonl.gz"), packed[: rng.randrange(12, len(packed) - 1)])


@maker
def cut_zstd(rng: random.Random, stem: Path) -> Made:
    packed = zstd(lines(*(good(rng)[1] for _ in range(400))))
    return put(Path(f"{stem}.jsonl.zst"), packed[: rng.randrange(6, len(packed) - 1)])


@maker
def flipped_bits(rng: random.Random, stem: Path) -> Made:
    raw = bytearray(rng.choice([gzip.compress, zstd])(lines(*(good(rng)[1] for _ in range(99)))))
    suffix = ".gz" if raw[:2] == b"\x1f\x8b" else ".zst"
    for _ in range(3):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return put(Path(f"{stem}.jsonl{suffix}"), bytes(raw))


@maker
def not_what_its_name_says(rng: random.Random, stem: Path) -> Made:
    suffix = rng.choice(
        [".jsonl.gz", ".jsonl.zst", ".parquet", ".warc.gz", ".warc", ".arc", ".txt.gz"]
    )
    return put(Path(f"{stem}{suffix}"), b"plain text\n" * rng.randrange(1, 30), records=1)


@maker
def text_that_is_not_utf8(rng: random.Random, stem: Path) -> Made:
    raw = rng.choice(
        ["Grüße".encode("latin-1"), "日本".encode("utf-16"), b"\xf5\x80", b"ok \xe2\x82"]
    )
    return put(Path(f"{stem}{rng.choice(['.txt', '.md'])}"), raw, records=1)


@maker
def text_with_marks_and_controls(rng: random.Random, stem: Path) -> Made:
    text, _ = good(rng)
    raw = b"\xef\xbb\xbf" + text.encode() + b"\r\nnext\x00\x07\x1b[0m\x7f line\r"
    return put(Path(f"{stem}.txt"), raw, f"{text}\nnext[0m line\n", records=1)


@maker
def a_parquet_of_another_schema(rng: random.Random, stem: Path) -> Made:
    table = rng.choice(
        [
            pa.table({"content": ["a", "b"]}),
            pa.table({"text": [1, 2]}),
            pa.table({"text": [["a"], ["b"]]}),
            pa.table({"text": pa.array([b"a", b"b"])}),
            pa.table({"text": pa.array([None, None], pa.string())}),
            pa.table({"text": pa.array([], pa.string())}),
            pa.table({"text": pa.array([b"\xff", b"\xfe"]).view(pa.string())}),
        ]
    )
    pq.write_table(table, f"{stem}.parquet")
    rows = table.num_rows if "text" in table.column_names else 1
    return Made(f"{stem.name}.parquet", (), max(rows, 1))


@maker
def a_cut_parquet(rng: random.Random, stem: Path) -> Made:
    path = Path(f"{stem}.parquet")
    pq.write_table(pa.table({"text": [good(rng)[0] for _ in range(50)]}), path)
    raw = path.read_bytes()
    return put(path, raw[: rng.randrange(1, len(raw) - 1)], records=1)


@maker
def a_flipped_parquet(rng: random.Random, stem: Path) -> Made:
    path = Path(f"{stem}.parquet")
    pq.write_table(pa.table({"text": [good(rng)[0] for _ in range(50)]}), path)
    raw = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 20])):
        raw[rng.randrange(4, len(raw) - 8)] ^= 1 << rng.randrange(8)
    return put(path, bytes(raw))


@maker
def a_page(rng: random.Random, stem: Path) -> Made:
    raw = rng.choice(
        [
            b"<div>" * 30_000,
            b"<p>\xff\xfe" * 30,
            b"<html><body><script>only()</script>",
            b"\x00" * 400,
            b"<" * 20_000,
            b"<!--" + b"-" * 9000,
            b"<meta charset='\xff'><p>&#xD800; &#0; &bogus;</p>",
            b"<p>" + b"a" * 9_000_000,
            rng.randbytes(3000),
        ]
    )
    return put(Path(f"{stem}.html"), raw, records=1)


def archive(rng: random.Random) -> list[bytes]:
    records = []
    for _ in range(5):
        body = f"<p>{good(rng)[0]}</p>".encode()
        block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:{rng.getrandbits(64)}>\r\n"
        head += f"Content-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
        records.append(head.encode() + block + b"\r\n\r\n")
    return records


@maker
def a_damaged_archive(rng: random.Random, stem: Path) -> Made:
    packed = rng.random() < 0.5
    records = [gzip.compress(one) if packed else one for one in archive(rng)]
    raw = bytearray(b"".join(records))
    damage = rng.randrange(4)
    if damage == 0:
        del raw[rng.randrange(len(raw)) :]
    elif damage == 1:
        at = rng.randrange(len(raw))
        raw[at:at] = rng.randbytes(rng.randrange(1, 80))
    elif damage == 2:
        raw = bytearray(bytes(raw).replace(b"Content-Length: ", b"Content-Length: 9", 1))
    else:
        for _ in range(4):
            raw[rng.randrange(len(raw))] ^= 0xFF
    return put(Path(f"{stem}.warc.gz" if packed else f"{stem}.warc"), bytes(raw))


@maker
def no_regular_file(rng: random.Random, stem: Path) -> Made:
    path = Path(f"{stem}{rng.choice(['.txt', '.jsonl', '.parquet', '.warc'])}")
    if rng.random() < 0.5:
        os.mkfifo(path)
    else:
        path.symlink_to(path.with_name("nothing there"))
    return Made(path.name, (), 1)


@maker
def an_unknown_kind(rng: random.Random, stem: Path) -> Made:
    return put(Path(f"{stem}{rng.choice(['.csv', '.bin', '', '.tar.gz'])}"), b"a,b\n", records=1)


def write(root: Path, count: int = COUNT) -> list[Made]:
    """``count`` inputs below ``root``, every maker about as often as any other."""
    root.mkdir(parents=True)
    return [
        make(random.Random(f"{SEED}-{number}"), root / f"in{number:03d}")
        for number, make in zip(range(count), cycle(MAKERS), strict=False)
    ]
