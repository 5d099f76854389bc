"""The verb ``curate`` from end to end, on folders made for the test."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.run import Run
from regrow.data import engine
from regrow.data.config import CurateConfig
from regrow.data.document import DOCUMENTS, DROPPED, SPLITS
from regrow.data.jobs import curate
from regrow.data.settings.sources import FolderSource
from regrow.data.steps import STEPS

pytest.importorskip("daft")


def config(*paths: Path, **options: Any) -> CurateConfig:
    sources = [{"kind": "folder", "name": p.name, "path": str(p)} for p in paths]
    steps = ["exact", "split"]
    return load_config(CurateConfig, base={"sources": sources, "steps": steps, **options})


def tables(run: Run) -> dict[str, list[dict[str, Any]]]:
    folder = run.path / "documents"
    return {split: pq.read_table(folder / f"{split}.parquet").to_pylist() for split in SPLITS}


def bytes_of(run: Run) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run.path / "documents").iterdir())}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Records with every fate: kept, empty, broken, duplicate within and across files."""
    root = tmp_path / "mixed"
    root.mkdir()
    for number in range(12):
        lines: list[Any] = [{"text": f"record {number} {i}"} for i in range(4)]
        lines += [{"text": "same  everywhere"}, {"text": "same\neverywhere"}, {"text": " "}, [1]]
        (root / f"{number}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "bad.txt").write_bytes(b"\xff")
    return root


def test_every_record_is_accounted_for(
    mixed: Path, corpus: Path, claim: Callable[..., Run]
) -> None:
    run = claim("curate", config(mixed, corpus, max_bad=0.2))
    result = curate.run(run.config, run)
    gather, exact, split = result["steps"]
    assert gather == {
        "step": "gather",
        "in": 12 * 8 + 1 + 30,
        "out": 12 * 6 + 30,
        "dropped": {"empty": 12},
        "quarantined": {"not UTF-8": 1, "not a JSON object but list": 12},
        "masked": {},
    }
    assert sum(exact["dropped"].values()) == 23 + 1
    assert all(reason.startswith("same text as one that is ") for reason in exact["dropped"])
    assert (exact["in"], exact["out"], split["out"]) == (102, 78, 78)
    for step in result["steps"]:
        lost = sum(step["dropped"].values()) + sum(step["quarantined"].values())
        assert step["in"] == step["out"] + lost
    rows = [row for part in tables(run).values() for row in part]
    assert len(rows) == result["total_documents"] == 78
    counts = Counter((row["source"], row["split"]) for row in rows)
    sizes: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sizes[row["source"], row["split"]] += len(row["text"].encode())
    for source in ("mixed", "corpus"):
        assert result["documents"][source] == {s: counts[source, s] for s in SPLITS}
        assert result["bytes"][source] == {s: sizes[source, s] for s in SPLITS}
    dropped = pq.read_table(run.path / "documents" / "dropped.parquet")
    assert dropped.schema.equals(DROPPED)
    assert Counter(dropped["step"].to_pylist()) == {"gather": 12, "exact": 24}
    quarantine = (run.path / "documents" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 13
    assert set(result["seconds_by_step"]) == {"gather", "exact", "split", "documents"}
    json.dumps(result)


def test_tables_are_sorted_split_by_file_and_free_of_duplicates(
    mixed: Path, corpus: Path, claim: Callable[..., Run]
) -> None:
    run = claim("curate", config(mixed, corpus, max_bad=0.2))
    curate.run(run.config, run)
    found = tables(run)
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    kept: dict[str, str] = {}
    for split, rows in found.items():
        schema = pq.read_schema(run.path / "documents" / f"{split}.parquet")
        assert schema.names == [*DOCUMENTS.names, "exact_copies"]
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        for row in rows:
            assert row["split"] == split
            assert split_of.setdefault(row["file"], split) == split
            plain = " ".join(row["text"].split())
            assert plain not in seen
            seen.add(plain)
            kept[row["id"]] = row["text"]
    # Brute force: of the equal ones exactly one stays.
    dropped = pq.read_table(run.path / "documents" / "dropped.parquet").to_pylist()
    same = [i for i, text in kept.items() if text.split() == ["same", "everywhere"]]
    rivals = [r["id"] for r in dropped if r["step"] == "exact" and r["source"] == "mixed"]
    assert len(same) == 1
    assert len(rivals) == 23
    assert same[0] not in rivals


def test_same_input_same_bytes(corpus: Path, tmp_path: Path, claim: Callable[..., Run]) -> None:
    first = claim("curate", config(corpus), "first")
    curate.run(first.config, first)
    # A copy with other times and in another order of creation.
    moved = tmp_path / "elsewhere" / "corpus"
    moved.mkdir(parents=True)
    for path in sorted(corpus.iterdir(), reverse=True):
        shutil.copyfile(path, moved / path.name)
    second = claim("curate", config(moved), "second")
    curate.run(second.config, second)
    assert bytes_of(first) == bytes_of(second)
    # Columns stay, so that another run may use them; texts are stored once.
    stages = [path.name.split("-")[1] for path in sorted((first.path / "stages").iterdir())]
    assert stages == ["exact", "split"]


def test_seed_moves_files_and_nothing_else(corpus: Path, claim: Callable[..., Run]) -> None:
    runs = [claim("curate", config(corpus, seed=seed), f"seed{seed}") for seed in (0, 1)]
    results = [curate.run(run.config, run) for run in runs]
    assert results[0]["total_bytes"] == results[1]["total_bytes"]
    assert [r["id"] for r in tables(runs[0])["test"]] != [r["id"] for r in tables(runs[1])["test"]]


def test_a_finished_run_answers_from_its_files(corpus: Path, claim: Callable[..., Run]) -> None:
    run = claim("curate", config(corpus))
    first = curate.run(run.config, run)
    before = bytes_of(run)
    assert curate.run(run.config, run) == first
    assert bytes_of(run) == before


def test_examples_are_short_texts_of_each_source(
    corpus: Path, mixed: Path, claim: Callable[..., Run]
) -> None:
    run = claim("curate", config(mixed, corpus, max_bad=0.2))
    examples = curate.run(run.config, run)["examples"]
    train = {row["file"]: row["text"] for row in tables(run)["train"]}
    assert set(examples) == {"mixed", "corpus"}
    for source, shown in examples.items():
        assert len(shown) == 3
        for example in shown:
            assert len(example["text"]) <= 601
            assert example["file"].startswith(source)
            if source == "corpus":
                assert train[example["file"]].startswith(example["text"].removesuffix("…"))


def test_stops_between_units_and_goes_on(
    corpus: Path, claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = claim("curate", config(corpus))
    monkeypatch.setattr(Run, "stop_requested", True, raising=False)
    run.stop_requested = True
    with pytest.raises(Interrupted, match="before source corpus"):
        curate.run(run.config, run)
    run.stop_requested = False
    assert curate.run(run.config, run)["total_documents"] == 29


class Short:
    """A step of a third party: scores texts by their length, and drops the short ones."""

    name = "short"
    version = 1
    per_document = True
    loses = False
    below = 420
    scored: list[int] = []

    def __init__(self, config: CurateConfig) -> None:
        del config

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def makes(self) -> pa.Schema:
        return pa.schema([("score", pa.int64())])

    def key(self) -> Any:
        return {}

    def score(self, frame: Any, folder: Path) -> Any:
        (folder / "note.txt").write_text("no column")
        self.scored.append(engine.num_rows(frame))
        found = frame.select("id", frame["text"].length_bytes().alias("score"))
        return found.limit(3) if self.loses else found

    def judge(self, scores: Any, folder: Path) -> Any:
        assert (folder / "note.txt").read_text() == "no column"
        short = scores["score"] < self.below
        value = scores["score"].cast("float64").alias("value")
        return scores.select("id", engine.when(short, "too short").alias("reason"), value)

    def exhibits(self, scores: Any, folder: Path) -> list[dict[str, Any]]:
        return [
            {
                "kind": "table",
                "title": "rows",
                "columns": ["n"],
                "rows": [[engine.num_rows(scores)]],
            }
        ]


class TestSteps:
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        targets = {**STEPS._targets, "short": f"{__name__}:Short"}
        monkeypatch.setattr(STEPS, "_targets", targets)

    def test_a_new_step_is_a_class_and_a_line(
        self, corpus: Path, claim: Callable[..., Run]
    ) -> None:
        run = claim("curate", config(corpus, steps=["short", "exact", "split"]))
        result = curate.run(run.config, run)
        sizes = [p.stat().st_size for p in corpus.iterdir()]
        gone = sum(size < 420 for size in sizes)
        assert 0 < gone < 30
        assert result["steps"][1] == {
            "step": "short",
            "in": 30,
            "out": 30 - gone,
            "dropped": {"too short": gone},
            "quarantined": {},
        }
        rows = [row for part in tables(run).values() for row in part]
        assert all(row["score"] == len(row["text"].encode()) >= 420 for row in rows)

    def test_a_step_that_loses_rows_is_caught(
        self, corpus: Path, claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Short, "loses", True)
        run = claim("curate", config(corpus, steps=["short", "split"]))
        with pytest.raises(RuntimeError, match="step short was given 30 rows, scored 3"):
            curate.run(run.config, run)

    def test_thresholds_move_without_scoring_again(
        self, corpus: Path, claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Short, "scored", [])
        first = claim("curate", config(corpus, steps=["short", "exact", "split"]), "first")
        curate.run(first.config, first)
        monkeypatch.setattr(Short, "below", 440)
        settings = {"steps": ["short", "exact", "split"], "reuse": str(first.path)}
        second = claim("curate", config(corpus, **settings), "second")
        curate.run(second.config, second)
        assert Short.scored == [30]
        fresh = claim("curate", config(corpus, steps=["short", "exact", "split"]), "fresh")
        curate.run(fresh.config, fresh)
        assert Short.scored == [30, 30]
        assert bytes_of(second) == bytes_of(fresh)
        assert bytes_of(second) != bytes_of(first)

    def test_scores_of_other_documents_are_added(
        self, corpus: Path, claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Short, "scored", [])
        first = claim("curate", config(corpus, steps=["exact", "short", "split"]), "first")
        curate.run(first.config, first)
        settings = {"steps": ["short", "split"], "reuse": str(first.path)}
        second = claim("curate", config(corpus, **settings), "second")
        curate.run(second.config, second)
        assert Short.scored == [29, 1]  # the one that was a duplicate
        fresh = claim("curate", config(corpus, steps=["short", "split"]), "fresh")
        curate.run(fresh.config, fresh)
        assert bytes_of(second) == bytes_of(fresh)

    def test_a_step_that_drops_all_is_named(
        self, tmp_path: Path, claim: Callable[..., Run]
    ) -> None:
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "a.txt").write_text("short")
        run = claim("curate", config(tmp_path / "tiny", steps=["short", "split"]))
        with pytest.raises(InputError, match=r"(?s)step short left no document.*too short"):
            curate.run(run.config, run)


class TestPlan:
    def test_says_what_will_be_read(self, corpus: Path) -> None:
        plan = curate.plan(
            load_config(
                CurateConfig,
                base={
                    "sources": [
                        {"kind": "python", "max_bytes": {"code": 4_000_000}},
                        {"kind": "folder", "name": "mine", "path": str(corpus)},
                    ]
                },
            )
        )
        assert plan.figures["code"] == "at most 4,000,000 bytes"
        assert plan.figures["packages"] == "all"
        assert str(corpus) in plan.figures["mine"]

    def test_a_run_to_reuse_that_is_none(self, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"reuse: .*elsewhere is no run folder of curate run"):
            curate.plan(config(corpus, reuse=str(tmp_path / "elsewhere")))

    def test_a_cluster_that_does_not_answer(self, corpus: Path) -> None:
        pytest.importorskip("ray")
        given = {"runner": "ray", "address": "127.0.0.1:1"}
        with pytest.raises(ConfigError, match=r"engine.address: no Ray cluster at 127.0.0.1:1"):
            curate.plan(config(corpus, engine=given))

    def test_a_cluster_without_its_extra(
        self, corpus: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"needs the extra \[cluster\]"):
            curate.plan(config(corpus, engine={"runner": "ray"}))

    def test_a_missing_folder_is_an_error_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            curate.plan(config(tmp_path / "none"))


class TestErrors:
    def test_no_usable_document(self, tmp_path: Path, claim: Callable[..., Run]) -> None:
        root = tmp_path / "bad"
        root.mkdir()
        (root / "a.txt").write_bytes(b"\xff")
        (root / "b.jsonl").write_text('{"body": "wrong field"}\n{"text": ""}\n')
        run = claim("curate", config(root))
        with pytest.raises(InputError, match="'bad' gave no usable document") as caught:
            curate.run(run.config, run)
        assert set(caught.value.problems) == {
            "1 quarantined: not UTF-8",
            "1 quarantined: no field 'text'",
            "1 dropped: empty",
        }
        assert not (run.path / "documents").exists()

    @pytest.mark.parametrize(
        ("overrides", "problem"),
        [
            (["steps=[exat,split]"], "unknown step 'exat', did you mean exact"),
            (["steps=[exact]"], "'split' must stand once, as the last step"),
            (["steps=[split,exact]"], "'split' must stand once, as the last step"),
            (["steps=[split]", "language.keep=[en]"], "language: settings of a step that is not"),
            (["filter.preset=gopher", "steps=[exact,split]"], r"filter: .*\(exact, split\)"),
            (["split.train=0.5"], "train \\+ validation \\+ test is 0.58"),
            (["sources=[]"], "sources"),
            (["sources=[{kind: python},{kind: python}]"], "'code' stands twice"),
            (["sources=[{kind: pyhton}]"], "kind"),
            (["sources=[{kind: python,max_bytes: {cod: 5}}]"], "code"),
            (["sources=[{kind: folder,name: a/b,path: x}]"], "name"),
        ],
    )
    def test_settings_that_cannot_be(self, overrides: list[str], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            load_config(CurateConfig, [], overrides)


def test_defaults_take_the_python_installation() -> None:
    made = load_config(CurateConfig)
    assert made.source_names() == ["code", "docstrings", "reference", "packages"]
    assert made.steps == ("language", "exact", "fuzzy", "filter", "split")
    assert made.split.shares() == {"train": 0.92, "validation": 0.04, "test": 0.04}
    assert FolderSource(name="a", path="x").fields.text == "text"
