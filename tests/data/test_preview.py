"""``curate plan`` against the run that it predicts."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from regrow.cli.main import main
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.data.config import CurateConfig
from regrow.data.preview import preview
from regrow.data.settings.plan import CuratePlanConfig
from regrow.grow.execute import execute

pytest.importorskip("daft")

COMMON = ["the", "be", "to", "of", "and", "that", "have", "with"]
SOURCES = ("crawl", "wiki")


def write_pool(root: Path, documents: int) -> None:
    """Families of copies, equal and nearly so, in two sources; every fourth text is too short."""
    rng = random.Random(5)
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(600)] + COMMON * 12
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in SOURCES}
    made = 0
    while made < documents:
        length = 30 if rng.random() < 0.25 else rng.randint(60, 160)
        base = [rng.choice(words) for _ in range(length)]
        for copy in range(min(12, int(rng.paretovariate(1.3)))):
            text = list(base)
            if copy % 2:
                text[rng.randrange(length)] = "changed"
            source = SOURCES[rng.random() < 0.3]
            rows[source].append({"id": f"d{made}", "text": " ".join(text) + "."})
            made += 1
    for name in SOURCES:
        (root / name).mkdir(parents=True)
        lines = "\n".join(map(json.dumps, rows[name]))
        (root / name / "all.jsonl").write_text(lines + "\n")


def settings(root: Path, **more: Any) -> dict[str, Any]:
    sources = [
        {"kind": "folder", "name": name, "path": str(root / name), "language": "en"}
        for name in SOURCES
    ]
    off = ("repeated_5gram", "top_2gram", "top_3gram", "top_4gram")
    return {
        "sources": sources,
        "steps": ["exact", "fuzzy", "filter", "split"],
        "filter": {"rules": dict.fromkeys(off)},
        "engine": {"workers": 1},
        **more,
    }


def planned(root: Path, **more: Any) -> dict[str, Any]:
    said: list[str] = []
    config = load_config(CuratePlanConfig, base=settings(root, **more))
    told = preview(config, said.append)
    assert said[-1].startswith("runs the steps on")
    return told


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preview")
    write_pool(root, 1200)
    execute("curate run", load_config(CurateConfig, base=settings(root)), root / "run", quiet=True)
    return root


def after(run: Path) -> dict[str, Counter[str]]:
    """Documents of each source after each step, counted in the tables of a finished run."""
    left = Counter[str]()
    for path in (run / "documents").glob("*.parquet"):
        if path.name != "dropped.parquet":
            left.update(pq.read_table(path)["source"].to_pylist())
    gone = pq.read_table(run / "documents" / "dropped.parquet").to_pylist()
    found = {}
    for step in ("split", "filter", "fuzzy", "exact"):
        found[step] = Counter(left)
        left.update(row["source"] for row in gone if row["step"] == step)
    return found


def test_the_run_lies_within_the_printed_intervals(pool: Path) -> None:
    told = planned(pool, sample=300)
    assert 0.15 < told["sample"]["share"] < 0.35
    assert 200 < told["sample"]["documents"] < 420
    true = after(pool / "run")
    for stage in told["stages"]:
        counts = true[stage["step"]]
        assert set(stage["sources"]) == set(SOURCES)
        for name, cell in {**stage["sources"], "all": stage["out"]}.items():
            real = counts[name] if name != "all" else counts.total()
            assert cell["low"] <= real <= cell["high"], (stage["step"], name)
            assert cell["low"] <= cell["estimate"] <= cell["high"]
    exact, fuzzy, filtered, _ = (stage["out"] for stage in told["stages"])
    # Copies are counted, not guessed, and what is guessed is told closely enough to be of use.
    assert exact["low"] == exact["high"] == true["exact"].total() < 1200
    assert fuzzy["low"] == fuzzy["high"] == true["fuzzy"].total() < exact["low"]
    assert 0 < filtered["high"] - filtered["low"] < 0.35 * filtered["estimate"]
    result = json.loads((pool / "run" / "result.json").read_text())
    assert told["text_bytes"]["low"] <= result["total_bytes"] <= told["text_bytes"]["high"]


def test_intervals_hold_where_a_filter_stands_before_the_copies(pool: Path) -> None:
    order = ["filter", "exact", "fuzzy", "split"]
    everything = planned(pool, sample=100_000, steps=order)
    told = planned(pool, sample=0.3, steps=order)
    for stage, true in zip(told["stages"], everything["stages"], strict=True):
        assert true["out"]["low"] == true["out"]["high"]
        for name in SOURCES:
            real = true["sources"][name]["estimate"]
            assert stage["sources"][name]["low"] <= real <= stage["sources"][name]["high"]


def test_copies_that_a_rule_keeps_from_being_copies(tmp_path: Path) -> None:
    # Where prose is too short and the same text as code is not, the copy that the policy would
    # drop is the one that stays: more stay of its source than the copies alone would leave.
    rng = random.Random(1)
    lines = [[f"{chr(97 + rng.randrange(26))}{n}x" for n in range(12)] for _ in range(600)]
    texts = ["\n".join(f"{word} of {word}y" for word in one) for one in lines]
    sources = []
    for name, held, content in (("notes", texts[:400], "prose"), ("code", texts[100:], "code")):
        folder = tmp_path / name
        folder.mkdir()
        rows = [json.dumps({"id": f"{name}{n}", "text": text}) for n, text in enumerate(held)]
        (folder / "all.jsonl").write_text("\n".join(rows) + "\n")
        source = {"kind": "folder", "name": name, "path": str(folder), "content": content}
        sources.append({**source, "language": "en"})
    base = {
        "sources": sources,
        "steps": ["filter", "exact", "split"],
        "filter": {"rules": {"code_comments": None}},
        "duplicates": {"keep": {"source_priority": ["notes", "code"]}},
        "engine": {"workers": 1},
    }
    execute("curate run", load_config(CurateConfig, base=base), tmp_path / "run", quiet=True)
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    told = preview(load_config(CuratePlanConfig, base={**base, "sample": 0.3}), lambda line: None)
    true = {one["step"]: one["sources"] for one in card["yields"]}
    assert true["exact"] == {"notes": 0, "code": 500}  # by the policy alone 400 and 200
    for stage in told["stages"]:
        for name, cell in stage["sources"].items():
            assert cell["low"] <= true[stage["step"]][name] <= cell["high"], (stage["step"], name)
    assert told["stages"][1]["sources"]["code"]["low"] > 350


def test_all_documents_give_what_the_run_gives(pool: Path) -> None:
    told = planned(pool, sample=1e6)
    result = json.loads((pool / "run" / "result.json").read_text())
    assert told["sample"]["share"] == 1
    for stage, step in zip(told["stages"], result["steps"][1:], strict=True):
        assert stage["out"]["estimate"] == step["out"]
        dropped = {reason: count["estimate"] for reason, count in stage["dropped"].items()}
        assert dropped == step["dropped"]
    assert told["text_bytes"]["estimate"] == result["total_bytes"]
    card = json.loads((pool / "run" / "card.json").read_text())
    assert told["examples"] == card["dropped"]
    tables = set((pool / "run" / "documents").glob("*.parquet"))
    written = sum(p.stat().st_size for p in tables if p.name != "dropped.parquet")
    assert told["cost"]["documents_bytes"] == pytest.approx(written, rel=0.1)


def test_nothing_is_left_behind(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    planned(pool, sample=50)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_planned_is_told(pool: Path) -> None:
    with pytest.raises(InputError, match="sample"):
        planned(pool, sample=0.0009, seed=1)
    with pytest.raises(ConfigError, match="sample"):
        planned(pool, sample=0)


def test_the_command_prints_tables_and_objects(
    pool: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(json.dumps(settings(pool)))
    with pytest.raises(SystemExit) as end:
        main(["curate", "plan", str(path), "sample=300"])
    assert end.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["fuzzy"][:2] == ["fuzzy", f"{after(pool / 'run')['fuzzy'].total():,}"]
    assert rows["filter"][3] == "to"
    assert any("filter: words below 50: about" in line for line in lines)
    assert any("found at 0.5: 0.053" in line for line in lines)
    with pytest.raises(SystemExit):
        main(["curate", "plan", str(path), "sample=300", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["verb"] == "curate plan"
    assert told["settings"]["sample"] == 300
    with pytest.raises(SystemExit) as end:
        main(["curate", "plan", "corpus"])
    assert end.value.code == 2
