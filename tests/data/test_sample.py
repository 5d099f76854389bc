"""The sample of documents: bounded, seeded, in the proportions that weights ask for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.data.document import DOCUMENTS, Document
from regrow.data.sample import DocumentSample, Group
from regrow.io.parquet import TableWriter

EN, DE, JA = Group("web", "en"), Group("web", "de"), Group("news", "ja")


def write_table(path: Path, texts: list[tuple[Group, str]]) -> Path:
    """A split's table, sorted by id."""
    rows: list[dict[str, Any]] = []
    for number, (group, text) in enumerate(texts):
        made = Document(text, group.source, "prose", f"{number}", language=group.language)
        rows.append({**made.row(), "split": "train"})
    rows.sort(key=lambda row: row["id"])
    with TableWriter(path, DOCUMENTS, rows=50) as writer:
        writer.write_rows(rows)
    return path


TEXTS = [
    *((EN, f"the number {i} " + "and so on " * (i % 7)) for i in range(300)),
    *((DE, f"die größte Zahl {i}") for i in range(60)),
    *((JA, f"数 {i}") for i in range(40)),
]
SIZES = Counter[Group]()
for _group, _text in TEXTS:
    SIZES[_group] += len(_text.encode())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "train.parquet", TEXTS)


def rows(table: Path) -> list[str]:
    return list(DocumentSample(table, 1 << 30).texts())


def test_everything_when_there_is_room(table: Path) -> None:
    sample = DocumentSample(table, 1 << 30)
    assert sorted(sample.texts()) == sorted(text for _, text in TEXTS)
    assert sample.taken == dict(SIZES)
    assert sample.documents == len(TEXTS)
    assert sample.bytes == sum(SIZES.values())


@pytest.mark.parametrize("size", [1, 30, 500, 5000])
def test_documents_are_taken_in_order_as_they_fit(table: Path, size: int) -> None:
    sample = DocumentSample(table, size)
    taken = list(sample.texts())
    first, *others = rows(table)
    expected = [first[:size]]  # of the first what fits, of the others those that do
    total = len(expected[0])
    for text in others:
        if total + len(text.encode()) <= size:
            expected.append(text)
            total += len(text.encode())
    assert taken == expected
    assert sample.bytes == sum(len(t.encode()) for t in taken) <= size


def test_a_seed_starts_elsewhere_and_wraps_around(table: Path) -> None:
    whole = rows(table)
    turned = list(DocumentSample(table, 1 << 30, seed=3).texts())
    start = whole.index(turned[0])
    assert start > 0
    assert turned == whole[start:] + whole[:start]
    again = list(DocumentSample(table, 2000, seed=3).texts())
    assert again == list(DocumentSample(table, 2000, seed=3).texts())
    assert again != list(DocumentSample(table, 2000, seed=4).texts())


def test_weights_repeat_what_there_is(table: Path) -> None:
    sample = DocumentSample(table, 1 << 30, 0, {"news": 2.0}, {"de": 3.0})
    given_out = Counter(sample.texts())
    assert {given_out[text] for group, text in TEXTS if group == EN} == {1}
    assert {given_out[text] for group, text in TEXTS if group == DE} == {3}
    assert {given_out[text] for group, text in TEXTS if group == JA} == {2}
    assert sample.taken == {EN: SIZES[EN], DE: 3 * SIZES[DE], JA: 2 * SIZES[JA]}


def test_weights_multiply_and_take_out(table: Path) -> None:
    sample = DocumentSample(table, 1 << 30, 0, {"web": 0.0, "news": 1.5}, {"ja": 2.0})
    list(sample.texts())
    assert sample.taken == {JA: 3 * SIZES[JA]}


def test_within_a_bound_the_shares_hold(table: Path) -> None:
    weights = {EN: 1.0, DE: 4.0, JA: 2.0}
    sample = DocumentSample(table, 4000, 0, {"news": 2.0}, {"de": 4.0})
    taken = list(sample.texts())
    assert max(Counter(taken).values()) == 1  # the bound is met before anything is repeated
    wanted = {group: weights[group] * SIZES[group] for group in SIZES}
    for group, amount in wanted.items():
        share = 4000 * amount / sum(wanted.values())
        assert share - 90 < sample.taken[group] <= share
    assert 3800 < sample.bytes <= 4000


@given(
    size=st.integers(1, 20_000),
    seed=st.integers(0, 5),
    en=st.floats(0, 20),
    de=st.floats(0.01, 20),
)
@settings(max_examples=60, deadline=None)
def test_never_over_the_bound(table: Path, size: int, seed: int, en: float, de: float) -> None:
    sample = DocumentSample(table, size, seed, None, {"en": en, "de": de})
    total = sum(len(text.encode()) for text in sample.texts())
    assert total == sample.bytes <= size
    wanted = {EN: en * SIZES[EN], DE: de * SIZES[DE], JA: float(SIZES[JA])}
    scale = min(1, size / sum(wanted.values()))
    for group, amount in wanted.items():
        assert sample.taken.get(group, 0) <= scale * amount + 1e-6
        assert sample.taken.get(group, 0) >= min(scale * amount - 100, scale * amount - 4)


def test_a_group_of_one_long_document_gets_a_part(tmp_path: Path) -> None:
    long = "ä" * 5000
    table = write_table(tmp_path / "t.parquet", [(EN, "a" * 10_000), (DE, long)])
    sample = DocumentSample(table, 999, 0, None, {"de": 1.0})
    assert sorted(len(text) for text in sample.texts()) == [249, 499]
    assert sample.taken == {EN: 499, DE: 498}


def test_unknown_names_and_no_weight_at_all(table: Path) -> None:
    sample = DocumentSample(table, 100, 0, {"wep": 1.0, "web": 2.0}, {"dee": 1.0})
    with pytest.raises(ConfigError, match="fit no document") as error:
        sample.check()
    assert error.value.problems == (
        "weights.wep: no document has this source, did you mean web? (known: 'news', 'web')",
        "language_weights.dee: no document has this language, did you mean de? "
        "(known: 'de', 'en', 'ja')",
    )
    DocumentSample(table, 100, 0, {"web": 2.0}, {"de": 1.0}).check()
    with pytest.raises(ConfigError, match="has weight 0"):
        list(DocumentSample(table, 100, 0, {"web": 0.0, "news": 0.0}).texts())
