"""A user's folder: every record is a document, dropped, or quarantined."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.core.errors import InputError
from regrow.data.document import Document, Rejected
from regrow.data.settings.sources import FolderSource
from regrow.data.sources import plain
from regrow.data.sources.folder import units


def read(path: Path, **options: Any) -> list[Document | Rejected]:
    (unit,) = units(FolderSource(name="mine", path=path, **options))
    return list(unit.read())


def texts(items: list[Document | Rejected]) -> dict[tuple[str, int], str]:
    return {(i.file, i.record): i.text for i in items if isinstance(i, Document)}


def reasons(items: list[Document | Rejected]) -> Counter[tuple[str, bool]]:
    return Counter((i.reason, i.broken) for i in items if isinstance(i, Rejected))


def test_reads_all_kinds_of_files_in_all_folders(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "deep" / "B.MD").write_text("# Mark")
    (tmp_path / "deep" / "er" / "c.jsonl").write_text(
        '{"text": "one", "language": "de"}\n\n{"text": "two"}'
    )
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "zip", "date": "2024-01-02"}\n'))
    pq.write_table(
        pa.table({"text": ["p0", None, ""], "url": ["u", "v", "w"], "x": [1, 2, 3]}),
        tmp_path / "e.parquet",
    )
    (tmp_path / "ignored.csv").write_text("a,b")
    (tmp_path / ".hidden.txt").write_text("hidden")
    items = read(tmp_path, licence="CC0-1.0", language="en")
    assert texts(items) == {
        ("mine/a.txt", 0): "plain",
        ("mine/deep/B.MD", 0): "# Mark",
        ("mine/deep/er/c.jsonl", 1): "one",
        ("mine/deep/er/c.jsonl", 3): "two",
        ("mine/d.jsonl.gz", 1): "zip",
        ("mine/e.parquet", 0): "p0",
    }
    assert reasons(items) == {
        ("field 'text' holds no text", True): 1,
        ("empty", False): 1,
        ("no known kind of file", False): 1,
    }
    by_text = {d.text: d for d in items if isinstance(d, Document)}
    assert (by_text["one"].language, by_text["two"].language) == ("de", "en")
    assert (by_text["zip"].date, by_text["p0"].url) == ("2024-01-02", "u")
    assert {d.licence for d in by_text.values()} == {"CC0-1.0"}


def test_another_text_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "yes"}\n{"text": "no"}\n{"body": 5}\n')
    pq.write_table(pa.table({"body": ["table"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": ["other"], "n": [1]}), tmp_path / "c.parquet")
    items = read(tmp_path, text_column="body")
    assert sorted(texts(items).values()) == ["table", "yes"]
    assert reasons(items) == {("no field 'body'", True): 2, ("field 'body' holds no text", True): 1}
    details = [i.detail for i in items if isinstance(i, Rejected)]
    assert "columns: text, n" in details
    assert "fields: text" in details


MALFORMED = {
    "utf8.txt": b"ok \xff\xfe not",
    "nul.txt": b"a\x00b",
    "bom.md": b"\xef\xbb\xbfmark",
    "crlf.txt": b"a\r\nb\r\n",
    "empty.txt": b"",
    "blank.md": b" \n\t\n",
    "surrogate.jsonl": b'{"text": "\\ud800"}\n{"text": "fine"}\n',
    "wrong.jsonl": b'{"text": ["list"]}\n{"other": 1}\n[]\n"s"\n3\nnull\n{"text": null}\n{bad\n',
    "deep.jsonl": b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
    "nothing.jsonl": b"\n\n",
    "cut.jsonl.gz": gzip.compress(b'{"text": "in the zip"}\n' * 100)[:-20],
    "no.jsonl.gz": b"plain",
    "no.parquet": b"PAR1PAR1",
    "none.parquet": b"",
}


def test_malformed_files_never_crash_and_never_vanish(tmp_path: Path) -> None:
    for name, content in MALFORMED.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.txt").symlink_to(tmp_path / "gone.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    items = read(tmp_path)
    kept = texts(items)
    assert kept["mine/nul.txt", 0] == "ab"
    assert kept["mine/bom.md", 0] == "mark"
    assert kept["mine/crlf.txt", 0] == "a\nb\n"
    assert kept["mine/surrogate.jsonl", 2] == "fine"
    assert {i.file.removeprefix("mine/") for i in items} == {*MALFORMED, "link.txt", "pipe.txt"}
    found = reasons(items)
    assert found["unreadable", True] == 4  # two tables, the link, the pipe
    assert found["not UTF-8", True] == 1
    assert found["lone surrogate", True] == 1
    assert found["empty", False] == 3
    assert len({i.id for i in items}) == len(items)


@given(st.binary(max_size=400), st.sampled_from(["x.txt", "x.jsonl", "x.jsonl.gz", "x.parquet"]))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_in_any_kind_of_file(tmp_path: Path, raw: bytes, name: str) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / name).write_bytes(raw)
    items = read(tmp_path)
    assert items
    for item in items:
        if isinstance(item, Document):
            assert item.text.encode().decode() == item.text
            assert item.text.strip()


@given(st.text(st.sampled_from("ab\nä€😀 "), max_size=400))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_long_texts_are_cut_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(plain, "DOCUMENT_BYTES", 50)
    (tmp_path / "a.txt").write_bytes(text.encode())
    items = read(tmp_path)
    kept = [i.text for i in items if isinstance(i, Document)]
    assert not any(i.broken for i in items if isinstance(i, Rejected))
    assert all(len(part.encode()) <= 50 for part in kept)
    assert "".join("".join(kept).split()) == "".join(text.split())


def test_a_single_file_is_a_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("text")
    assert texts(read(tmp_path / "only.txt")) == {("mine/only.txt", 0): "text"}


def test_missing_and_useless_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source 'mine': .*no-such does not exist"):
        read(tmp_path / "no-such")
    (tmp_path / "a.csv").write_text("a,b")
    for path in (tmp_path, tmp_path / "a.csv"):
        with pytest.raises(InputError, match=r"holds no \.txt, \.md, .*\.jsonl, .*\.warc"):
            read(path)


def test_file_names_that_are_not_unicode(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    ((file, _),) = texts(read(tmp_path))
    assert file.encode().decode() == "mine/\\xff.txt"


def test_records_are_json_objects_from_other_tools(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"ä {i}", "meta": {"n": i}}, ensure_ascii=i % 2 == 0) for i in range(9)
    ]
    (tmp_path / "a.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    assert len(texts(read(tmp_path))) == 9
