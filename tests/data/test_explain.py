"""``curate explain`` on a run with documents of every fate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from regrow.cli.main import main
from regrow.core.config import load_config
from regrow.core.errors import InputError
from regrow.data.config import CurateConfig
from regrow.data.explain import explain, explained
from regrow.grow.execute import execute

pytest.importorskip("daft")

WORDS = "the quick brown fox jumps over a lazy dog and then it runs home to sleep"


def story(number: int, words: int = 120) -> str:
    """A text that is unlike any other."""
    return " ".join(f"{WORDS.split()[i % 16]} n{number * 7919 + i * i}" for i in range(words)) + "."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explain")
    old, new = root / "old", root / "new"
    old.mkdir()
    new.mkdir()
    rows = [{"id": f"o{i}", "text": story(i), "date": "2020-01-01"} for i in range(12)]
    (old / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    near = story(3).split()
    near[100] = "changed"
    rows = [
        {"id": "near", "text": " ".join(near), "date": "2024-01-01"},
        {"id": "same", "text": story(4).replace(" ", "\n"), "date": "2024-01-01"},
        {"id": "short", "text": "too short", "date": "2024-01-01"},
        *({"id": f"n{i}", "text": story(100 + i), "date": "2024-01-01"} for i in range(5)),
    ]
    (new / "b.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n[1]\n")
    (new / "empty.txt").write_text(" ")
    settings: dict[str, Any] = {
        "sources": [
            {"kind": "folder", "name": name, "path": str(root / name), "language": "en"}
            for name in ("old", "new")
        ],
        "steps": ["exact", "fuzzy", "filter", "split"],
        "filter": {"rules": {"digits": None, "non_alphanumeric": None, "ended_lines": None}},
    }
    config = load_config(CurateConfig, base=settings)
    execute("curate run", config, root / "run", quiet=True)
    return root / "run"


def every_row(run: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((run / "documents").glob("*.parquet")):
        yield from pq.read_table(path).to_pylist()


def named(run: Path, name: str) -> dict[str, Any]:
    """The row of the record that had the id ``name``."""
    return next(row for row in every_row(run) if row["file"].endswith(f"#{name}"))


def test_every_document_of_the_tables_is_explained_with_its_own_fate(run: Path) -> None:
    fates: dict[str, int] = {}
    for row in every_row(run):
        told = explain(run, row["id"])
        fates[told["fate"]] = fates.get(told["fate"], 0) + 1
        assert told["id"] == row["id"]
        assert (told["fate"] == "kept") == ("text" in row)
        if "text" in row:
            assert (told["split"], told["source"]) == (row["split"], row["source"])
            assert row["text"].startswith(told["excerpt"])
            assert told["scores"]["filter"]["words"] == row["words"] == len(row["text"].split())
        else:
            assert (told["step"], told["reason"]) == (row["step"], row["reason"])
        assert explained(told)[0].startswith(row["id"])
    assert fates == {"kept": 17, "duplicate": 2, "dropped": 2}


def test_a_dropped_document_has_rule_value_and_bound(run: Path) -> None:
    told = explain(run, named(run, "short")["id"])
    assert (told["fate"], told["step"], told["reason"]) == ("dropped", "filter", "words below 50")
    assert (told["value"], told["bound"]) == (2, 50)
    assert told["scores"]["exact"] == {"exact_copies": 1}
    assert "dropped by the step filter: words below 50 (it has 2)" in explained(told)[0]


def test_a_document_that_went_by_rank_is_told_which_stayed_last(run: Path, tmp_path: Path) -> None:
    settings = load_config(CurateConfig, files=[run / "config.yaml"], verb="curate run")
    ranked = settings.replace(
        steps=["perplexity", "split"],
        filter={},
        perplexity={"target": {"where": "source = 'old'"}, "drop_top": 0.3},
    )
    execute("curate run", ranked, tmp_path / "run", quiet=True)
    rows = list(every_row(tmp_path / "run"))
    gone = [row for row in rows if row.get("reason") == "ppl in the highest 30 %"]
    assert {row["source"] for row in gone} == {"old", "new"}
    for row in gone:
        told = explain(tmp_path / "run", row["id"])
        kept = [one["ppl"] for one in rows if "text" in one and one["source"] == row["source"]]
        assert told["bound"] == max(kept) < told["value"]
        assert "the last that stayed has" in explained(told)[0]


def test_a_file_of_several_documents_tells_the_fate_of_each(tmp_path: Path) -> None:
    record = json.dumps({"id": "twice", "text": "far too short"})
    other = json.dumps({"id": "other", "text": story(1)})
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "all.jsonl").write_text(f"{record}\n{record}\n{other}\n")
    source = {"kind": "folder", "name": "pool", "path": str(tmp_path / "pool"), "language": "en"}
    rules = {"digits": None, "non_alphanumeric": None, "ended_lines": None}
    base = {"sources": [source], "steps": ["filter", "split"], "filter": {"rules": rules}}
    execute("curate run", load_config(CurateConfig, base=base), tmp_path / "run", quiet=True)
    rows = [row for row in every_row(tmp_path / "run") if row["file"].endswith("#twice")]
    told = explain(tmp_path / "run", rows[0]["file"])
    assert {(one["id"], one["step"], one["reason"]) for one in told["documents"]} == {
        (row["id"], row["step"], row["reason"]) for row in rows
    }
    assert {one["step"] for one in told["documents"]} == {"gather", "filter"}
    assert explained(told)[0].endswith("2 documents")


@pytest.mark.parametrize(
    ("copy", "kept", "step"), [("near", "o3", "fuzzy"), ("same", "o4", "exact")]
)
def test_a_duplicate_names_the_copy_that_stays_and_why(
    run: Path, copy: str, kept: str, step: str
) -> None:
    told = explain(run, named(run, copy)["id"])
    (cluster,) = told["clusters"]
    assert told["fate"] == "duplicate"
    assert (cluster["step"], cluster["copies"], cluster["why"]) == (step, 2, "older")
    assert cluster["kept_id"] == named(run, kept)["id"]
    assert [one["why"] for one in cluster["members"]] == ["kept", "older"]
    assert cluster["members"][0]["date"] == "2020-01-01"
    other = explain(run, cluster["kept_id"])
    assert other["fate"] == "kept"
    assert other["clusters"][0]["why"] == "kept"
    assert any(f"{cluster['kept_id']} stays, older" in line for line in explained(told))


def test_names_may_be_short_or_files_and_wrong_ones_are_told(run: Path) -> None:
    row = named(run, "o1")
    assert explain(run, row["id"][:12])["id"] == row["id"]
    assert explain(run, row["file"])["id"] == row["id"]
    line = (run / "documents" / "quarantine.jsonl").read_text()
    broken = explain(run, json.loads(line)["file"])
    assert broken["fate"] == "quarantined"
    assert "not a JSON object" in explained(broken)[0]
    with pytest.raises(InputError, match="did you mean"):
        explain(run, row["file"] + "x")
    with pytest.raises(InputError, match="no document 'ffff'"):
        explain(run, "ffff")
    with pytest.raises(InputError, match="run folder"):
        explain(run / "documents", row["id"])


def test_the_command_prints_an_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = named(run, "short")
    with pytest.raises(SystemExit) as end:
        main(["curate", "explain", str(run), row["id"], "--json"])
    assert end.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["verb"] == "curate explain"
    assert told["reason"] == "words below 50"


def test_documents_of_evaluation_sets_are_explained_too(run: Path, tmp_path: Path) -> None:
    from regrow.data.settings.decontaminate import DecontaminateConfig

    shared = named(run, "o5")
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": shared["text"][:300]}) + "\n")
    settings = {"documents": str(run), "against": [str(tmp_path / "exam.jsonl")]}
    config = load_config(DecontaminateConfig, base=settings)
    execute("curate decontaminate", config, tmp_path / "clean", quiet=True)
    told = explain(tmp_path / "clean", shared["id"])
    assert (told["fate"], told["step"], told["file"]) == (
        "dropped",
        "decontaminate",
        shared["file"],
    )
    assert told["scores"]["decontaminate"]["overlap_words"] > 12
    assert explain(tmp_path / "clean", named(run, "o6")["id"])["fate"] == "kept"
    with pytest.raises(InputError, match=r"what went earlier is explained by .*run"):
        explain(tmp_path / "clean", named(run, "short")["id"])
