"""JSON Lines: every line is either an object or an error, never a crash."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.io.jsonl import open_to_add, read_jsonl, write_jsonl


def test_reads_what_it_wrote(tmp_path: Path) -> None:
    records = [{"text": "ä\n\u2028", "n": 1}, {"nested": {"x": [1, None]}}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert [line.value for line in read_jsonl(tmp_path / "a.jsonl")] == records
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert [line.value for line in read_jsonl(tmp_path / "a.jsonl.gz")] == records


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "not a JSON object but list"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not usable"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "longer than 1000 bytes"),
    ],
)
def test_a_broken_line_costs_one_line(tmp_path: Path, raw: bytes, error: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + raw + b'\n\n{"text": "after"}')
    limit = 1000 if "longer" in error else 1 << 20
    first, broken, last = read_jsonl(path, limit)
    assert (first.value, last.value) == ({"text": "before"}, {"text": "after"})
    assert broken.value is None
    assert error in str(broken.error)
    assert (first.number, broken.number, last.number) == (1, 2, 4)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [line.value for line in read_jsonl(tmp_path / "a.jsonl")] == [{"a": 1}, {"a": 2}]


def test_truncated_gzip_gives_what_it_has(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"{i} {i * 7919 % 1000}"}) + "\n" for i in range(5000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    found = list(read_jsonl(tmp_path / "a.jsonl.gz"))
    assert len(found) > 100
    assert "unreadable from here on" in str(found[-1].error)
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip at all")
    (only,) = read_jsonl(tmp_path / "b.jsonl.gz")
    assert only.error


@given(st.binary(max_size=300))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_read_to_the_end(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(raw + b'\n{"text": "last"}\n')
    found = list(read_jsonl(path))
    assert found[-1].value == {"text": "last"}
    assert all((line.value is None) == bool(line.error) for line in found)


def test_a_growing_file_loses_the_line_that_was_cut_short_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    for number in range(3):
        with open_to_add(path) as file:
            file.write(b'{"n": %d}\n{"torn' % number)
    with open_to_add(path):
        assert [line.value for line in read_jsonl(path)] == [{"n": 0}, {"n": 1}, {"n": 2}]
