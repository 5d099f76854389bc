"""Records with ids of their own: the table does not depend on what file holds which."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.core.run import Run
from regrow.data.config import CurateConfig
from regrow.data.document import GATHERED, Document, Rejected, document_id
from regrow.data.jobs import curate
from regrow.data.settings.sources import FolderSource
from regrow.data.sources.folder import units
from regrow.data.sources.pool import FULL_ENOUGH, File, split_files
from regrow.data.sources.record import path_date
from regrow.data.sources.settle import OTHER_TEXT, SAME_TEXT, settle

Rows = list[dict[str, Any]]


def gather(root: Path, path: Path, cap: int | None = None, **options: Any) -> tuple[Rows, Rows]:
    """What the source gives once it is settled: documents and rejects, sorted."""
    (unit,) = units(FolderSource(name="mine", path=str(path), max_bytes=cap, **options))
    root.mkdir(parents=True, exist_ok=True)
    tables, rejected = [], []
    for number, part in enumerate(unit.parts()):
        rows = []
        for item in pickle.loads(pickle.dumps(part)).read():  # as a worker process gets it
            if isinstance(item, Document):
                rows.append({"id": item.id, **{k: v for k, v in item.row().items() if k != "id"}})
            else:
                rejected.append(item)
        tables.append(root / f"{number}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=GATHERED), tables[-1])
    settled = settle(unit.name, tables, unit.max_bytes)
    rejected += settled.rejected
    kept = [
        row
        for path, keep in zip(tables, settled.keep, strict=True)
        for row in pq.read_table(path).filter(pa.array(keep)).to_pylist()
    ]
    kept.sort(key=lambda row: row["id"])
    return kept, sorted((told(item) for item in rejected), key=lambda r: sorted(r.items()))


def told(item: Rejected) -> dict[str, Any]:
    return {"id": item.id, "file": item.file, "reason": item.reason, "broken": item.broken}


def write(root: Path, files: Sequence[Sequence[dict[str, Any]]]) -> Path:
    """The same records in files of three kinds."""
    root.mkdir(parents=True)
    for number, records in enumerate(files):
        raw = "".join(json.dumps(one) + "\n" for one in records).encode()
        stem = root / f"f{number:03d}"
        if number % 3 == 0:
            stem.with_suffix(".jsonl").write_bytes(raw)
        elif number % 3 == 1:
            stem.with_suffix(".jsonl.gz").write_bytes(gzip.compress(raw))
        else:
            stem.with_suffix(".jsonl.zst").write_bytes(pa.compress(raw, "zstd", asbytes=True))
    return root


RECORDS = [
    {"id": f"doc-{i}", "text": f"text {i} " + "word " * (i % 7), "date": f"20{i % 20:02d}-01-01"}
    for i in range(60)
]
RECORDS += [
    {"id": "doc-3", "text": "another text of the same id"},
    {"id": "doc-4", "text": RECORDS[4]["text"], "date": RECORDS[4]["date"]},
    {"id": "doc-4", "text": RECORDS[4]["text"], "date": "1999-01-01"},
    {"id": "empty", "text": "  "},
    {"id": "list", "text": ["no"]},
    {"id": "lone", "text": "\ud800"},
]


@given(st.randoms(use_true_random=False), st.integers(1, 9), st.sampled_from([None, 400]))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_split_over_files_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, files: int, cap: int | None
) -> None:
    root = tmp_path_factory.mktemp("split")
    reference = gather(root / "a", write(root / "one", [RECORDS]), cap)
    shuffled = rng.sample(RECORDS, len(RECORDS))
    split = [shuffled[i::files] for i in range(files)]
    assert gather(root / "b", write(root / "many", split), cap) == reference
    kept, rejected = reference
    assert len(kept) + len(rejected) == len(RECORDS)


def test_repeated_ids_are_settled_by_their_text(tmp_path: Path) -> None:
    kept, rejected = gather(tmp_path / "t", write(tmp_path / "one", [RECORDS]))
    assert len({row["id"] for row in kept}) == len(kept) == 60
    reasons = [(item["reason"], item["broken"]) for item in rejected]
    assert sorted(reasons) == sorted(
        [
            (OTHER_TEXT, True),
            (SAME_TEXT, False),
            (SAME_TEXT, False),
            ("empty", False),
            ("field 'text' holds no text", True),
            ("lone surrogate", True),
        ]
    )
    row = next(row for row in kept if row["file"] == "mine#doc-5")
    assert row["id"] == document_id("mine", "mine#doc-5", 0)
    repeats = [item for item in rejected if item["reason"] in (OTHER_TEXT, SAME_TEXT)]
    assert {item["file"] for item in repeats} == {"mine#doc-3", "mine#doc-4"}
    assert len({item["id"] for item in repeats} | {row["id"] for row in kept}) == 63


def test_ids_may_be_numbers_and_are_left_out_where_they_are_null(tmp_path: Path) -> None:
    records = [{"id": 7, "text": "a"}, {"id": None, "text": "b"}, {"id": "", "text": "c"}]
    records += [{"id": 1.5, "text": "d"}, {"id": True, "text": "e"}, {"id": [1], "text": "f"}]
    kept, rejected = gather(tmp_path / "t", write(tmp_path / "in", [records]))
    assert {row["text"]: row["file"] for row in kept} == {
        "a": "mine#7",
        "b": "mine/f000.jsonl",
        "c": "mine/f000.jsonl",
    }
    assert [item["reason"] for item in rejected] == ["field 'id' holds no id"] * 3
    kept, rejected = gather(tmp_path / "u", tmp_path / "in", fields={"id": None})
    assert len(kept) == 6
    assert {row["file"] for row in kept} == {"mine/f000.jsonl"}


def test_the_cap_takes_ids_in_order(tmp_path: Path) -> None:
    everything, _ = gather(tmp_path / "t", write(tmp_path / "in", [RECORDS[:60]]))
    sizes = [len(row["text"].encode()) for row in everything]
    for cap in (1, 9, 100, 333, 700, 10_000):
        kept, rejected = gather(tmp_path / "t", tmp_path / "in", cap)
        used, passed_over, expected = 0, False, []
        for row, size in zip(everything, sizes, strict=True):  # one by one
            if used + size > cap:
                passed_over = True
            elif not passed_over or used < FULL_ENOUGH * cap:
                expected.append(row)
                used += size
        assert kept == expected
        assert {item["reason"] for item in rejected} <= {"over max_bytes"}
        assert {i["id"] for i in rejected} | {r["id"] for r in kept} == {
            r["id"] for r in everything
        }


def test_fields_are_found_by_their_names_and_inside_others(tmp_path: Path) -> None:
    record = {
        "content": "text",
        "key": "k1",
        "meta": {"when": "2020-05-06", "where": "http://x", "lang": "de"},
        "meta.lic": "CC0-1.0",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    table = {name: [value] for name, value in record.items()} | {"key": ["k2"]}
    pq.write_table(pa.table(table), tmp_path / "b.parquet")
    fields = {
        "text": "content",
        "id": "key",
        "date": "meta.when",
        "url": "meta.where",
        "language": "meta.lang",
        "licence": "meta.lic",
    }
    kept, rejected = gather(tmp_path / "t", tmp_path, fields=fields)
    assert not rejected
    assert sorted(row["file"] for row in kept) == ["mine#k1", "mine#k2"]
    for row in kept:
        assert (row["date"], row["url"]) == ("2020-05-06", "http://x")
        assert (row["language"], row["licence"]) == ("de", "CC0-1.0")


def test_dates_of_tables_and_years(tmp_path: Path) -> None:
    import datetime

    stamp = datetime.datetime(2021, 2, 3, 4, 5)
    pq.write_table(pa.table({"text": ["a"], "date": [stamp]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "b", "date": 1999}\n{"text": "c", "date": 5}')
    kept, _ = gather(tmp_path / "t", tmp_path)
    dates = {row["text"]: row["date"] for row in kept}
    assert dates == {"a": "2021-02-03T04:05:00", "b": "1999", "c": None}


def test_dates_from_paths(tmp_path: Path) -> None:
    for snapshot in ("CC-MAIN-2023-50", "CC-MAIN-2024-18", "other"):
        (tmp_path / "in" / snapshot).mkdir(parents=True)
        (tmp_path / "in" / snapshot / "a.txt").write_text(snapshot)
    kept, _ = gather(tmp_path / "t", tmp_path / "in", date_from="path")
    assert {row["text"]: row["date"] for row in kept} == {
        "CC-MAIN-2023-50": "2023-50",
        "CC-MAIN-2024-18": "2024-18",
        "other": None,
    }
    with pytest.raises(ConfigError, match=r"date_from is path, but no path has a date"):
        gather(tmp_path / "t", tmp_path / "in" / "other", date_from="path")
    with pytest.raises(ConfigError, match=r"date_from is warc, but .* no \.warc"):
        gather(tmp_path / "t", tmp_path / "in" / "other", date_from="warc")


@pytest.mark.parametrize(
    ("path", "date"),
    [
        ("a/2024-05-17/x.jsonl", "2024-05-17"),
        ("a/20240517.jsonl", "2024-05-17"),
        ("dump_2019.txt", "2019"),
        ("2023/06/x", "2023-06"),
        ("crawl-1234567890/x", None),
        ("v1.2/x", None),
    ],
)
def test_the_date_of_a_path(path: str, date: str | None) -> None:
    assert path_date(path) == date


def test_a_source_without_the_field_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[]\n{"content": "x", "n": 1}\n')
    pq.write_table(pa.table({"txt": ["x"], "m": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"no field 'text' in a\.jsonl.*content, n, txt, m"):
        gather(tmp_path / "t", tmp_path)


def test_broken_groups_and_values_of_a_table_cost_themselves(tmp_path: Path) -> None:
    texts = [f"{i} " + "x" * 400 for i in range(900)]
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(
        pa.table({"text": texts}),
        path,
        row_group_size=300,
        compression="none",
        use_dictionary=False,
    )
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
        start, size = column.data_page_offset, column.total_compressed_size
    raw = bytearray(path.read_bytes())
    raw[start : start + size // 2] = b"\xff" * (size // 2)
    path.write_bytes(raw)
    kept, rejected = gather(tmp_path / "t", path.parent)
    assert {row["text"] for row in kept} >= set(texts[:300]) | set(texts[600:])
    assert [item["broken"] for item in rejected] == [True] * len(rejected)
    assert rejected
    bad = pa.array([b"fine", b"\xff\xfe", b"too"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), path)
    kept, rejected = gather(tmp_path / "t", path.parent)
    assert sorted(row["text"] for row in kept) == ["fine", "too"]
    assert [item["reason"] for item in rejected] == ["not UTF-8"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8", "shift_jis"])
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    text = "Grüße" if encoding != "shift_jis" else "日本語"
    (tmp_path / "a.txt").write_bytes((text + "\n").encode(encoding))
    kept, _ = gather(tmp_path / "t", tmp_path, encoding=encoding)
    assert [row["text"] for row in kept] == [text + "\n"]


def test_encodings_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße".encode("latin-1"))
    _, rejected = gather(tmp_path / "t", path)
    assert [item["reason"] for item in rejected] == ["not UTF-8"]
    _, rejected = gather(tmp_path / "t", path, encoding="ascii")
    assert [item["reason"] for item in rejected] == ["not ASCII"]
    with pytest.raises(ConfigError, match=r"'utf-9' is no encoding"):
        load_config(
            CurateConfig,
            base={"sources": [{"kind": "folder", "name": "a", "path": "x", "encoding": "utf-9"}]},
        )


def test_the_old_name_of_the_text_field(tmp_path: Path) -> None:
    source = {"kind": "folder", "name": "a", "path": "x", "text_column": "body"}
    config = load_config(CurateConfig, base={"sources": [source]})
    assert config.sources[0].fields.text == "body"  # type: ignore[union-attr]
    source["fields"] = {"text": "other"}  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"keep fields\.text"):
        load_config(CurateConfig, base={"sources": [source]})


def test_parts_hold_all_files_in_order_and_about_equal_bytes() -> None:
    rng = random.Random(0)
    files = [File(str(i), list, rng.randrange(10_000_000)) for i in range(500)]
    parts = split_files(files)
    assert [file for part in parts for file in part.files] == files
    held = [sum(file.bytes for file in part.files) for part in parts]
    assert max(held) <= 2 * sum(held) / len(held) + 10_000_000
    assert 40 <= len(parts) <= 65
    assert len(split_files(files[:1])) == 1
    assert split_files([]) == []


def test_the_verb_writes_the_same_bytes_for_any_split(
    tmp_path: Path, claim: Callable[..., Run]
) -> None:
    pytest.importorskip("daft")
    written = []
    for name, files in (("one", 1), ("many", 7)):
        shuffled = random.Random(files).sample(RECORDS, len(RECORDS))
        path = write(tmp_path / name, [shuffled[i::files] for i in range(files)])
        source = {"kind": "folder", "name": "mine", "path": str(path), "max_bytes": 900}
        settings = {"sources": [source], "steps": ["exact", "split"]}
        run = claim("curate run", load_config(CurateConfig, base=settings), name=f"run-{name}")
        curate.run(run.config, run)
        documents = run.path / "documents"
        written.append({p.name: p.read_bytes() for p in documents.iterdir()})
    assert written[0] == written[1]
    assert b"id stands twice" in written[0]["quarantine.jsonl"]
