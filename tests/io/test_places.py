"""Files wherever they lie: listed the same from folders, globs and URLs, read in streams."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrow.core.errors import ConfigError, InputError
from regrow.io.places import Place, decompressed, find, local_paths, plain_suffix, unreadable

fsspec = pytest.importorskip("fsspec")
pa = pytest.importorskip("pyarrow")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two folders with a file each, a hidden one, and a link out."""
    root = tmp_path / "tree"
    (root / "2023" / "deep").mkdir(parents=True)
    (root / "2024").mkdir()
    (root / "2023" / "deep" / "a.txt").write_text("one")
    (root / "2024" / "b.txt").write_text("twos")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "c.txt").write_text("no")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "d.txt").write_text("no")
    (root / "link").symlink_to(tmp_path / "outside")
    return root


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def names(where: Path | str) -> dict[str, int]:
    return {place.name: place.bytes for place in find(str(where))}


def test_a_folder_a_glob_and_a_url_list_the_same(tree: Path, monkeypatch: Any) -> None:
    both = {"2023/deep/a.txt": 3, "2024/b.txt": 4}
    assert names(tree) == both
    assert names(f"{tree}/20*") == both
    assert names(f"{tree}/**/*.txt") == both
    assert names(f"file://{tree}") == both
    assert names(f"file://{tree}/**/*.txt") == both
    assert names(f"{tree}/2024/?.txt") == {"b.txt": 4}
    assert names(tree / "2024" / "b.txt") == {"b.txt": 4}
    monkeypatch.chdir(tree)
    assert names("*") == both
    assert names("2024") == {"b.txt": 4}
    assert local_paths("20*") == [Path("2023"), Path("2024")]
    assert local_paths(str(tree)) == [tree]
    assert local_paths("s3://bucket/key") == []


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "[x]").mkdir()
    (tmp_path / "[x]" / "a?.txt").write_text("1")
    assert names(tmp_path / "[x]") == {"a?.txt": 1}
    assert names(tmp_path / "[x]" / "a?.txt") == {"a?.txt": 1}


def test_files_behind_fsspec(memory: Any) -> None:
    memory.pipe("/bucket/x/a.jsonl.gz", gzip.compress(b"lines\n"))
    memory.pipe("/bucket/b.txt", b"plain")
    found = find("memory://bucket")
    assert [place.name for place in found] == ["b.txt", "x/a.jsonl.gz"]
    with found[0].open_plain() as plain, found[1].open_plain() as packed:
        assert (plain.read(), packed.read()) == (b"plain", b"lines\n")
    assert names("memory://bucket/b.txt") == {"b.txt": 5}
    assert list(names("memory://bucket/**/*.gz")) == ["x/a.jsonl.gz"]
    assert all(place.is_regular for place in found)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("s3://bucket/key", "pip install s3fs"),
        ("gs://bucket/key", "pip install gcsfs"),
        ("nosuch://x", "nothing that can be read from"),
        ("hf://datasets/a/b", "HF_HUB_OFFLINE=0"),
    ],
)
def test_what_is_missing_for_a_url(where: str, message: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=message):
        find(where)


@pytest.mark.parametrize("where", ["{}/none", "{}/*.none", "memory://none", "memory://none/*.txt"])
def test_nothing_there(tmp_path: Path, memory: Any, where: str) -> None:
    with pytest.raises(InputError, match=r"none"):
        find(where.format(tmp_path))


def test_pipes_and_dangling_links_are_listed_and_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "there.txt").write_text("x")
    assert {p.name: p.is_regular for p in find(str(tmp_path))} == {
        "pipe.txt": False,
        "gone.txt": False,
        "there.txt": True,
    }


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "A.JSONL.ZST", "a.jsonl"])
def test_streams_give_back_what_was_packed(name: str) -> None:
    raw = b"".join(b"line %d\n" % i for i in range(20_000))
    packed = raw
    if name.lower().endswith(".gz"):
        packed = gzip.compress(raw[:999]) + gzip.compress(raw[999:])
    elif name.lower().endswith(".zst"):
        packed = b"".join(pa.compress(part, "zstd", asbytes=True) for part in (raw[:9], raw[9:]))
    below = io.BytesIO(packed)
    with decompressed(below, name) as stream:
        assert b"".join(stream) == raw
    assert below.closed


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_stream_that_breaks_off_gives_what_came_before(name: str) -> None:
    raw = b"".join(b"line %d\n" % (i * 7919 % 100_003) for i in range(60_000))
    packed = gzip.compress(raw) if name == "a.gz" else pa.compress(raw, "zstd", asbytes=True)
    got: list[bytes] = []
    broken = io.BytesIO(packed[: len(packed) // 2])
    with decompressed(broken, name) as stream, pytest.raises(unreadable()):
        got.extend(stream)
    assert raw.startswith(b"".join(got))
    assert sum(map(len, got)) > len(raw) / 3


def test_suffixes() -> None:
    assert plain_suffix("a.b.JSONL.gz") == ".jsonl"
    assert plain_suffix("x/README") == ""
    assert plain_suffix("t.parquet") == ".parquet"
    assert Place("/x/y", "y", 0).is_regular is False
