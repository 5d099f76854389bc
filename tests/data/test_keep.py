"""Which copy stays: the policies, their ties, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.data import engine
from regrow.data.config import CurateConfig
from regrow.data.keep import Keep, date_key, figure_key

pytest.importorskip("daft")

SOURCES = [{"kind": "folder", "name": name, "path": "/none"} for name in ("web", "books", "wiki")]


def config(keep: Any = None, **duplicates: Any) -> CurateConfig:
    return load_config(
        CurateConfig, base={"sources": SOURCES, "duplicates": {"keep": keep, **duplicates}}
    )


def choose(keep: Any, copies: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Rows of one cluster, or of several where ``component`` is given; sorted by id."""
    policy = Keep(config(keep))
    plain = {"source": "web", "date": None, "text": "x", "score": None, "component": "c"}
    rows = [{**plain, **copy} for copy in copies]
    frame = engine.from_columns({name: [row[name] for row in rows] for name in ("id", *plain)})
    frame = frame.with_column("score", frame["score"].cast("float64"))
    frame = frame.with_column("date", frame["date"].cast("string"))
    marks = frame.select("id", "component", *policy.columns(frame))
    policy.check(marks)
    return engine.rows(policy.choose(marks, folder / "keys").sort("id"))


def kept(keep: Any, copies: list[dict[str, Any]], folder: Path) -> tuple[str, dict[str, str]]:
    rows = choose(keep, copies, folder)
    (winner,) = {row["kept_id"] for row in rows}
    return winner, {row["id"]: row["why"] for row in rows}


def test_older_newer_longest(tmp_path: Path) -> None:
    copies = [
        {"id": "a", "date": "2020-05-01", "text": "xxx"},
        {"id": "b", "date": "2019", "text": "x"},
        {"id": "c", "date": None, "text": "xxxxx"},
        {"id": "d", "date": "2021-01-01T00:00:00Z", "text": "xx"},
    ]
    assert kept("older", copies, tmp_path / "1") == (
        "b",
        {"a": "older", "b": "kept", "c": "older", "d": "older"},
    )
    assert kept("newer", copies, tmp_path / "2")[0] == "d"
    winner, why = kept("longest", copies, tmp_path / "3")
    assert (winner, why["a"]) == ("c", "longer")


def test_by_default_dates_then_sources(tmp_path: Path) -> None:
    dated = [{"id": "a", "source": "web"}, {"id": "b", "source": "wiki", "date": "2020"}]
    assert kept(None, dated, tmp_path / "1") == ("b", {"a": "older", "b": "kept"})
    undated = [{"id": "a", "source": "wiki"}, {"id": "b", "source": "books"}]
    assert kept(None, undated, tmp_path / "2") == (
        "b",
        {"a": "of an earlier source", "b": "kept"},
    )


def test_source_priority_puts_the_unnamed_after(tmp_path: Path) -> None:
    copies = [{"id": name, "source": name} for name in ("web", "books", "wiki")]
    assert kept({"source_priority": ["wiki"]}, copies, tmp_path / "1")[0] == "wiki"
    assert kept({"source_priority": ["wiki"]}, copies[:2], tmp_path / "2")[0] == "web"


def test_highest_takes_the_largest_number_and_no_missing_one(tmp_path: Path) -> None:
    copies = [{"id": f"{i}", "score": s} for i, s in enumerate([0.5, None, math.nan, 0.7, -3.0])]
    winner, why = kept({"highest": "score"}, copies, tmp_path / "1")
    assert winner == "3"
    assert set(why.values()) == {"kept", "higher in score"}
    unknown = [{"id": "0", "score": math.nan}, {"id": "1", "score": -1e300}]
    assert kept({"highest": "score"}, unknown, tmp_path / "2")[0] == "1"


def test_ties_go_by_content_then_by_id(tmp_path: Path) -> None:
    hashes = engine.from_columns({"text": ["one", "two", "three"]})
    hashed = hashes.select("text", engine.expressions().hash(hashes["text"]).alias("h"))
    smallest = min(engine.rows(hashed), key=lambda row: row["h"])["text"]
    copies = [{"id": str(i), "text": t} for i, t in enumerate(("one", "two", "three"))]
    winner, why = kept(None, copies, tmp_path / "1")
    assert copies[int(winner)]["text"] == smallest
    assert set(why.values()) == {"kept", "first by hash"}
    same = [{"id": name} for name in "cab"]
    assert kept(None, same, tmp_path / "2") == (
        "a",
        {"a": "kept", "b": "first by id", "c": "first by id"},
    )


def test_each_cluster_keeps_exactly_one(tmp_path: Path) -> None:
    copies = [
        {"id": f"{i:03d}", "component": f"c{i % 7}", "date": f"20{i * 37 % 90:02d}"}
        for i in range(100)
    ]
    rows = choose("older", copies, tmp_path)
    for cluster in {row["component"] for row in rows}:
        inside = [row for row in rows if row["component"] == cluster]
        (winner,) = {row["kept_id"] for row in inside}
        assert [row["id"] for row in inside if row["why"] == "kept"] == [winner]
        dates = {c["id"]: c["date"] for c in copies if c["component"] == cluster}
        assert dates[winner] == min(dates.values())


class TestKeys:
    @given(st.floats(allow_nan=False), st.floats(allow_nan=False))
    def test_larger_figures_sort_first(self, one: float, other: float) -> None:
        assert (figure_key(one) < figure_key(other)) == (one > other)
        assert figure_key(one) < figure_key(None)

    @given(st.datetimes(), st.datetimes())
    def test_earlier_dates_sort_first(self, one: Any, other: Any) -> None:
        one, other = (moment.replace(microsecond=0) for moment in (one, other))
        first, second = date_key(one.isoformat()), date_key(f"{other.isoformat()}Z")
        assert (first < second) == (one < other)
        newest = date_key(one.isoformat(), True), date_key(other.isoformat(), True)
        assert (newest[0] < newest[1]) == (one > other)
        assert max(first, *newest) < date_key(None)

    @pytest.mark.parametrize("date", [None, "", "unknown", "12 May 2020", "May 2020"])
    def test_what_is_no_date_is_last(self, date: str | None) -> None:
        assert date_key(date) > date_key("9999-12-31T23:59:59")


class TestRefusals:
    @pytest.mark.parametrize("keep", ["older", "newer"])
    def test_no_date_at_all(self, keep: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=rf"keep: {keep}, but no document has a date; set"):
            choose(keep, [{"id": "a"}, {"id": "b"}], tmp_path)

    @pytest.mark.parametrize("keep", ["older", "newer"])
    def test_sources_that_have_no_dates(self, keep: str) -> None:
        """Known before anything is read."""
        base = {"sources": [{"kind": "python"}], "duplicates": {"keep": keep}}
        with pytest.raises(ConfigError, match=rf"keep: {keep}, but texts of the Python"):
            Keep(load_config(CurateConfig, base=base))

    def test_highest_of_no_numbers(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"date is a column of .*string, not of numbers"):
            choose({"highest": "date"}, [{"id": "a", "date": "2020"}], tmp_path)

    def test_an_unknown_source(self) -> None:
        with pytest.raises(ConfigError, match=r"no source 'boks', did you mean books"):
            Keep(config({"source_priority": ["boks"]}))

    @pytest.mark.parametrize(
        "keep", ["oldest", {"source_priority": []}, {"highest": ""}, {"lowest": "x"}]
    )
    def test_settings_that_cannot_be(self, keep: Any) -> None:
        with pytest.raises(ConfigError, match="keep"):
            config(keep)

    def test_scope(self) -> None:
        with pytest.raises(ConfigError, match="scope"):
            config(scope="per-source")
