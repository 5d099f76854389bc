"""Conditions on columns, against SQLite's answer to the same question."""

from __future__ import annotations

import itertools
import pickle
import sqlite3

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.data.condition import Condition

ROWS = [
    {"quality": quality, "toxicity": toxicity, "words": words}
    for quality, toxicity, words in itertools.product(
        ("High", "Low", "it's", None), (0.1, 0.5, None), (0, 7, -3)
    )
]
BATCH = pa.RecordBatch.from_pylist(ROWS)


def sqlite_says(condition: str) -> list[bool]:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE t (quality TEXT, toxicity REAL, words INT)")
    base.executemany("INSERT INTO t VALUES (:quality, :toxicity, :words)", ROWS)
    return [bool(row[0]) for row in base.execute(f"SELECT ({condition}) FROM t")]


comparisons = st.sampled_from(
    [
        "quality = 'High'",
        "quality != 'Low'",
        "quality <> 'it''s'",
        "quality IN ('High', 'Low')",
        "quality not in ('High')",
        "toxicity < 0.3",
        "0.3 <= toxicity",
        "toxicity > 1e-1",
        "words == -3",
        "words >= 0",
        "words IN (0, 7)",
        "words < toxicity",
    ]
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" AND ", " or ", "\nAND "]), inner).map("".join),
        inner.map("NOT {}".format),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(conditions)
def test_conditions_mean_what_sql_means(text: str) -> None:
    found = Condition.read(text, "where")
    assert found.holds(BATCH).tolist() == sqlite_says(text)
    assert pickle.loads(pickle.dumps(found)) == found
    assert set(found.columns) == {name for name in BATCH.schema.names if name in text}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("quality", "at 'its end': a comparison is missing"),
        ("quality = ", "at 'its end': a column or a value is missing"),
        ("quality = 'High", "this is no part of a condition"),
        ('quality = "High"', "at '\"High\"': this is no part"),
        ("(words > 1", "at 'its end': ) is missing"),
        ("words > 1 words", "at 'words': nothing may stand here"),
        ("words LIKE 'a%'", "LIKE 'a%'\": a comparison is missing"),
        ("lower(quality) = 'high'", "at \"(quality) = 'high'\": a comparison"),
        ("words IN 3", "( is missing"),
        ("3 IN (3)", "only a column can be IN something"),
        ("words; DROP TABLE t", "at '; DROP"),
        ("words > 1 AND", "a column or a value is missing"),
        ("1 = 1", "reads no column"),
        ("", "a column or a value is missing"),
        ("(" * 60 + "words = 1" + ")" * 60, "nested more than 50 deep"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        Condition.read(text, "select.target.where")
    assert part in str(error.value)
    assert str(error.value).startswith("select.target.where: ")


@pytest.mark.parametrize("text", ["quality < 3", "words = 'High'", "words IN ('a')"])
def test_kinds_that_cannot_be_compared(text: str) -> None:
    Condition.read("quality = 'Low' OR words IN (3)", "where").check(BATCH.schema)
    name = text.split()[0]
    kinds = rf"where: .* compares what cannot be compared: .*{name} \({BATCH[name].type}\)"
    with pytest.raises(ConfigError, match=kinds):
        Condition.read(text, "where").check(BATCH.schema)
