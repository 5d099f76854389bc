"""The steps exact and fuzzy from documents to verdicts, on the driver and by the engine's verbs."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from regrow.core.config import load_config
from regrow.data import components, engine
from regrow.data.clusters import CLUSTERS, SCHEMA
from regrow.data.config import CurateConfig
from regrow.data.steps.exact import Exact
from regrow.data.steps.fuzzy import Fuzzy

pytest.importorskip("daft")

Rows = list[dict[str, Any]]
SOURCES = [{"kind": "folder", "name": name, "path": "/none"} for name in ("old", "new")]


def config(**values: Any) -> CurateConfig:
    steps = ["exact", "fuzzy", "split"]
    return load_config(CurateConfig, base={"sources": SOURCES, "steps": steps, **values})


class Outcome:
    """What a step said of some documents."""

    def __init__(self, step: Exact | Fuzzy, documents: Rows, folder: Path) -> None:
        folder.mkdir(parents=True)
        columns = ("id", *step.reads())
        frame = engine.from_columns({name: [d[name] for d in documents] for name in columns})
        scores = engine.collected(step.score(frame, folder))
        self.copies = {row["id"]: row[f"{step.name}_copies"] for row in engine.rows(scores)}
        verdicts = engine.rows(step.judge(scores, folder))
        assert sorted(self.copies) == sorted(row["id"] for row in verdicts)
        assert sorted(self.copies) == sorted(d["id"] for d in documents)
        self.reasons = {row["id"]: row["reason"] for row in verdicts}
        self.values = {row["id"]: row["value"] for row in verdicts}
        self.gone = {name for name, reason in self.reasons.items() if reason is not None}
        assert pq.read_schema(folder / CLUSTERS).equals(SCHEMA)
        self.table = pq.read_table(folder / CLUSTERS).to_pylist()
        self.bytes = (folder / CLUSTERS).read_bytes()
        assert sorted(p.name for p in folder.iterdir()) == [CLUSTERS, "summary.json"]
        self.exhibits = {e["title"]: e for e in step.exhibits(scores, folder)}

    def clusters(self) -> set[frozenset[str]]:
        groups = defaultdict(set)
        for row in self.table:
            groups[row["component"]].add(row["id"])
        assert all(min(group) == name for name, group in groups.items())
        return {frozenset(group) for group in groups.values()}


def document(name: str, text: str, source: str = "old", date: str | None = None) -> dict[str, Any]:
    return {"id": name, "text": text, "source": source, "date": date}


def words(rng: random.Random, count: int = 150) -> list[str]:
    return [f"w{rng.randrange(10**6)}" for _ in range(count)]


def edited(rng: random.Random, text: list[str]) -> str:
    """The text with one word changed: a similarity of 0.93 or more."""
    changed = list(text)
    changed[rng.randrange(len(changed))] = "edited"
    return " ".join(changed)


@pytest.fixture(scope="module")
def families() -> Rows:
    """Families of one to six near copies, dates and sources at random, and texts of no words."""
    rng = random.Random(5)
    made = []
    for family in range(30):
        text = words(rng)
        for member in range(1 + family % 6):
            date = (
                None if rng.random() < 0.2 else f"20{rng.randrange(10, 25)}-0{rng.randrange(1, 9)}"
            )
            name = f"{rng.getrandbits(64):016x}-{family}"
            body = " ".join(text) if member == 0 else edited(rng, text)
            made.append(document(name, body, rng.choice(["old", "new"]), date))
    made += [document(f"void{i}", text) for i, text in enumerate(["", "...", " \n ", "?"])]
    rng.shuffle(made)
    return made


def family(name: str) -> str:
    return name.rpartition("-")[2] if "-" in name else name


class TestFuzzy:
    def test_keep_older_keeps_the_older_of_every_cluster(
        self, families: Rows, tmp_path: Path
    ) -> None:
        found = Outcome(Fuzzy(config(duplicates={"keep": "older"})), families, tmp_path / "run")
        expected = defaultdict(set)
        for row in families:
            expected[family(row["id"])].add(row["id"])
        assert found.clusters() == {frozenset(g) for g in expected.values() if len(g) > 1}
        dates = {row["id"]: row["date"] or "9999" for row in families}
        for group in found.clusters():
            (stays,) = group - found.gone
            assert dates[stays] == min(dates[name] for name in group)
            for name in group - {stays}:
                assert found.values[name] == len(group)
                tie = dates[name] == dates[stays]
                ending = "first by hash" if tie else "older"
                assert found.reasons[name] == f"near duplicate of one that is {ending}"
        assert found.copies == {n: len(expected[family(n)]) for n in found.copies}
        assert not any(name.startswith("void") for name in found.gone)

    def test_order_of_rows_does_not_matter(self, families: Rows, tmp_path: Path) -> None:
        runs = []
        for seed in (1, 2):
            shuffled = list(families)
            random.Random(seed).shuffle(shuffled)
            runs.append(Outcome(Fuzzy(config()), shuffled, tmp_path / str(seed)))
        assert runs[0].bytes == runs[1].bytes
        assert runs[0].reasons == runs[1].reasons

    @pytest.mark.parametrize("scope", ["global", "per_source"])
    def test_the_engine_gives_what_the_driver_gives(
        self, families: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
    ) -> None:
        step = Fuzzy(config(duplicates={"scope": scope}))
        driver = Outcome(step, families, tmp_path / "driver")
        monkeypatch.setattr(components, "DRIVER_KEYS", 0)
        monkeypatch.setattr(components, "DRIVER_EDGES", 0)
        verbs = Outcome(step, families, tmp_path / "verbs")
        assert driver.bytes == verbs.bytes
        assert driver.exhibits == verbs.exhibits
        assert len(driver.clusters()) > 10

    def test_both_scopes_are_counted(self, families: Rows, tmp_path: Path) -> None:
        runs = {
            scope: Outcome(Fuzzy(config(duplicates={"scope": scope})), families, tmp_path / scope)
            for scope in ("global", "per_source")
        }
        for run in runs.values():
            rows = dict(run.exhibits["near duplicates: copies that would go"]["rows"])
            assert rows == {scope: len(other.gone) for scope, other in runs.items()}
        sources = {row["id"]: row["source"] for row in families}
        for group in runs["per_source"].clusters():
            assert len({sources[name] for name in group}) == 1
        assert 0 < len(runs["per_source"].gone) < len(runs["global"].gone)

    def test_characters(self, tmp_path: Path) -> None:
        """Text without blanks: one word to the default, many shingles of characters."""
        rng = random.Random(0)
        text = "".join(chr(0x4E00 + rng.randrange(2000)) for _ in range(300))
        pair = [document("a", text), document("b", text[:150] + text[153:]), document("c", "无关")]
        shingle = {"unit": "character", "n": 5}
        found = Outcome(Fuzzy(config(fuzzy={"shingle": shingle})), pair, tmp_path / "characters")
        assert found.clusters() == {frozenset("ab")}
        assert not Outcome(Fuzzy(config()), pair, tmp_path / "words").gone

    def test_exhibits_show_the_curve_and_the_clusters(self, families: Rows, tmp_path: Path) -> None:
        step = Fuzzy(config(fuzzy={"threshold": 0.7}))
        found = Outcome(step, families, tmp_path / "run")
        curve = next(e for e in found.exhibits.values() if e["kind"] == "curve")
        assert curve["marks"]["threshold"] == 0.7
        assert curve["lines"]["found"] == pytest.approx(step.lsh.found(curve["x"]).tolist())
        sizes = found.exhibits["near duplicates: size of clusters"]["rows"]
        assert sizes == [["2", 5, 10], ["3", 5, 15], ["4", 5, 20], ["5 to 8", 10, 55]]
        why = found.exhibits["near duplicates: how the copy that stays differs from those that go"]
        assert sum(count for _, count in why["rows"]) == len(found.gone)
        largest = found.exhibits["near duplicates: largest clusters, of 25"]["rows"]
        assert [row[1] for row in largest] == sorted((row[1] for row in largest), reverse=True)

    def test_thresholds_of_who_stays_are_part_of_the_key(self) -> None:
        keys = [
            str(Fuzzy(config(**values)).key())
            for values in (
                {},
                {"seed": 1},
                {"duplicates": {"keep": "longest"}},
                {"duplicates": {"scope": "per_source"}},
                {"fuzzy": {"preset": "strict"}},
                {"fuzzy": {"threshold": 0.9}},
                {"fuzzy": {"verify": "exact"}},
            )
        ]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("verbs", [False, True])
@pytest.mark.parametrize("texts", [["", "...", " "], ["one text alone"], ["two", "texts"]])
def test_nothing_to_compare(
    texts: list[str], verbs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if verbs:
        monkeypatch.setattr(components, "DRIVER_KEYS", 0)
        monkeypatch.setattr(components, "DRIVER_EDGES", -1)
    rows = [document(f"d{i}", text) for i, text in enumerate(texts)]
    step = Fuzzy(config(fuzzy={"verify": "exact"}))
    found = Outcome(step, rows, tmp_path / "run")
    assert found.table == []
    assert found.gone == set()
    assert set(found.copies.values()) == {1}


class TestVerify:
    """A chain: each text shares most with the next, the ends share next to nothing."""

    def chain(self, links: int) -> Rows:
        rng = random.Random(2)
        long = words(rng, 200 + 14 * links)
        return [document(f"{i:02d}", " ".join(long[14 * i : 14 * i + 200])) for i in range(links)]

    def similarity(self, one: dict[str, Any], other: dict[str, Any]) -> float:
        a, b = ({tuple(row["text"].split()[i : i + 5]) for i in range(196)} for row in (one, other))
        return len(a & b) / len(a | b)

    def test_members_far_from_the_root_are_cut(self, tmp_path: Path) -> None:
        rows = self.chain(12)
        assert self.similarity(rows[0], rows[1]) > 0.85
        assert self.similarity(rows[0], rows[11]) < 0.2
        plain = Outcome(Fuzzy(config()), rows, tmp_path / "plain")
        assert plain.clusters() == {frozenset(row["id"] for row in rows)}
        by_id = {row["id"]: row for row in rows}
        step = Fuzzy(config(fuzzy={"verify": "exact"}))
        found = Outcome(step, rows, tmp_path / "verified")
        assert len(found.clusters()) > 1
        for group in found.clusters():
            root = by_id[min(group)]
            assert all(self.similarity(by_id[name], root) >= 0.7 for name in group)
        # What was cut off is put together anew: the rest of the chain is no set of single texts.
        clustered = set().union(*found.clusters())
        assert len(clustered) >= len(rows) - 1
        table = dict(found.exhibits["copies verified"]["rows"])
        assert table["pairs cut"] > 0
        assert table["rounds"] > 1

    def test_true_copies_are_left_alone(self, families: Rows, tmp_path: Path) -> None:
        plain = Outcome(Fuzzy(config()), families, tmp_path / "plain")
        found = Outcome(Fuzzy(config(fuzzy={"verify": "exact"})), families, tmp_path / "verified")
        assert found.bytes == plain.bytes
        assert dict(found.exhibits["copies verified"]["rows"])["pairs cut"] == 0

    def test_verified_characters(self, tmp_path: Path) -> None:
        rows = [document("a", "abcdefgh" * 20), document("b", "abcdefgh" * 19 + "abcxefgh")]
        fuzzy = {
            "verify": "exact",
            "shingle": {"unit": "character", "n": 4},
            "bands": 60,
            "rows": 1,
        }
        # 8 different shingles; the second has 4 more.
        kept = Outcome(Fuzzy(config(fuzzy={**fuzzy, "threshold": 0.7})), rows, tmp_path / "kept")
        cut = Outcome(Fuzzy(config(fuzzy={**fuzzy, "threshold": 0.95})), rows, tmp_path / "cut")
        assert kept.clusters() == {frozenset("ab")}
        assert cut.clusters() == set()
        assert cut.table == []


class TestExact:
    def test_equal_up_to_white_space(self, tmp_path: Path) -> None:
        rows = [
            document("a", "same  text", date="2020"),
            document("b", " same\ttext\n", "new", "2019"),
            document("c", "same\u00a0text", date="2021"),
            document("d", "Same text"),
            document("e", "same, text"),
            document("f", ""),
            document("g", "  "),
        ]
        found = Outcome(Exact(config()), rows, tmp_path / "run")
        assert found.clusters() == {frozenset("abc"), frozenset("fg")}
        assert found.gone == {"a", "c", "g"} or found.gone == {"a", "c", "f"}
        assert found.reasons["a"] == "same text as one that is older"
        assert found.copies["d"] == 1
        assert found.copies["b"] == 3

    def test_the_engine_gives_what_the_driver_gives(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = random.Random(1)
        rows = [
            document(f"{i:03d}", f"text {rng.randrange(60)}", rng.choice(["old", "new"]))
            for i in range(200)
        ]
        driver = Outcome(Exact(config()), rows, tmp_path / "driver")
        groups = defaultdict(set)
        for row in rows:
            groups[row["text"]].add(row["id"])
        assert driver.clusters() == {frozenset(g) for g in groups.values() if len(g) > 1}
        monkeypatch.setattr(components, "DRIVER_KEYS", 0)
        monkeypatch.setattr(components, "DRIVER_EDGES", 0)
        verbs = Outcome(Exact(config()), rows, tmp_path / "verbs")
        assert driver.bytes == verbs.bytes
        within = {(row["text"], row["source"]) for row in rows}
        counts = dict(driver.exhibits["equal texts: copies that would go"]["rows"])
        assert counts == {"global": 200 - len(groups), "per_source": 200 - len(within)}

    def test_nothing_twice(self, tmp_path: Path) -> None:
        rows = [document("a", "one"), document("b", "two")]
        found = Outcome(Exact(config()), rows, tmp_path / "run")
        assert found.gone == set()
        assert found.table == []
        assert found.copies == {"a": 1, "b": 1}
