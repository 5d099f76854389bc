"""Evaluation sets: public ones by name, files of several kinds by path."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regrow.core.errors import ConfigError, InputError
from regrow.data.evaluation_sets import PUBLIC, Asked, open_sets
from regrow.data.settings.decontaminate import EvaluationSetConfig, OverlapConfig

RECORDS = [
    {"id": "q1", "question": "one?", "choices": ["a", "b"], "gold": 1, "meta": {"why": "since"}},
    {"id": "q2", "question": "two?", "choices": [], "gold": 0, "meta": {"why": "as"}},
]


def items(data: Path | None = None, **settings: Any) -> list[Asked]:
    (one,) = open_sets([EvaluationSetConfig(**settings)], data)
    return list(one.read())


def test_the_same_records_in_any_kind_of_file(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, RECORDS)) + "\n"
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        path = str(tmp_path / name)
        everything = items(name="x", path=path)
        assert everything == [
            Asked("1", ["q1", "one?", "a", "b", "since"]),
            Asked("2", ["q2", "two?", "as"]),
        ]
        some = items(name="x", path=path, fields=("question", "meta.why"))
        assert some == [Asked("1", ["one?", "since"]), Asked("2", ["two?", "as"])]
    both = items(name="x", path=str(tmp_path))
    assert [one.id for one in both] == [
        *("a.jsonl:1", "a.jsonl:2", "b.jsonl.gz:1", "b.jsonl.gz:2", "c.parquet:1", "c.parquet:2")
    ]


def test_paragraphs_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufefffirst\r\nline\r\n\r\nsecond\n\n\n\n".encode())
    assert items(name="x", path=str(tmp_path / "a.txt")) == [
        Asked("1", ["first\nline"]),
        Asked("2", ["second"]),
    ]


def test_a_word_is_a_name_or_a_path() -> None:
    given = ["gsm8k", "./mine", "tests/some set.v2.jsonl", "s3://b/*.parquet", {"name": "n"}]
    config = OverlapConfig.model_validate_json(json.dumps({"against": given}))
    assert [(one.name, one.path) for one in config.sets()] == [
        ("gsm8k", None),
        ("mine", "./mine"),
        ("some-set", "tests/some set.v2.jsonl"),
        ("set", "s3://b/*.parquet"),
        ("n", None),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"against": ["gsm8k", "x/gsm8k.jsonl"]}, "the set 'gsm8k' stands twice"),
        ({"against": [{"name": "mmlu", "fields": ["q"]}]}, "fields: has no effect without path"),
        ({"short_words": 14}, "short_words: 14 is more than words, 13"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OverlapConfig.model_validate_json(json.dumps(settings))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGROW_DATA", raising=False)
    with pytest.raises(ConfigError, match="names no evaluation set; give names of public ones"):
        open_sets([], None)
    with pytest.raises(ConfigError, match="no public set 'gsm8', did you mean gsm8k"):
        items(name="gsm8")
    with pytest.raises(ConfigError, match="set data or REGROW_DATA"):
        items(name="gsm8k")
    with pytest.raises(InputError, match=r"eval-gsm8k/test.jsonl does not exist"):
        items(tmp_path, name="gsm8k")
    with pytest.raises(InputError, match=r"against\.x: .*nothing\.jsonl does not exist"):
        items(name="x", path=str(tmp_path / "nothing.jsonl"))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no \.jsonl, \.parquet, \.txt file"):
        items(name="x", path=str(tmp_path / "a.png"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.jsonl is empty"):
        items(name="x", path=str(tmp_path / "empty.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"question": "one"}\n{"question": \n')
    with pytest.raises(InputError, match=r"no field 'questio'.*did you mean question"):
        items(name="x", path=str(tmp_path / "a.jsonl"), fields=("questio",))
    with pytest.raises(InputError, match=r"a\.jsonl:2: not JSON"):
        items(name="x", path=str(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_text('{"question": "one"}\n')
    with pytest.raises(InputError, match=r"no record of .* has the field 'answer'"):
        items(name="x", path=str(tmp_path / "b.jsonl"), fields=("question", "answer"))
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"c\.txt is not UTF-8"):
        items(name="x", path=str(tmp_path / "c.txt"))
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match=r"d\.parquet cannot be read"):
        items(name="x", path=str(tmp_path / "d.parquet"))


@pytest.mark.parametrize(
    ("name", "count", "begins"),
    [
        ("gsm8k", 1319, "Janet\u2019s ducks lay 16 eggs per day"),
        ("hellaswag", 10_042, "Roof shingle removal: A man is sitting on a roof."),
        ("humaneval", 164, "from typing import List"),
        ("mmlu", 14_042, "Find the degree for the given field extension"),
        ("lambada", 5153, "In my palm is a clear stone"),
        ("openbookqa", 500, "A person wants to start saving money"),
        ("piqa", 1838, "Question: How do I ready a guinea pig cage"),
        ("winogrande", 1267, "Sarah was a much better surgeon than Maria so Sarah"),
    ],
)
def test_public_sets_are_whole(data_folder: Path, name: str, count: int, begins: str) -> None:
    assert set(PUBLIC) >= {name}
    found = items(data_folder, name=name)
    assert len(found) == count
    assert len({one.id for one in found}) == count
    assert found[0].texts[0].startswith(begins), found[0]
    assert all(any(text.strip() for text in one.texts) for one in found)
