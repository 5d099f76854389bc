"""The curation experiment: its pool keeps what it promises, its figures are what they say."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from experiments.curate import arms, junk, prepare, report, run, score, texts, world
from experiments.curate.texts import File
from experiments.results import read

from regrow.core.config import load_config
from regrow.data.config import CurateConfig
from regrow.io.tokenizer import Tokenizer
from regrow.report.format import MINUS

WORDS = ["the", "of", "and", "to", *(f"{a}{b}lor" for a in "bcdfgkmnpr" for b in "aeiouy")]


def _text(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words)) + "."


def _files() -> dict[str, list[File]]:
    """Files of every kind; each docstring page has the name of a file of code."""
    random = Random(0)
    found = {}
    for kind in (*texts.POOL, *texts.FAR):
        prefix = "stdlib" if kind in ("code", "docstrings") else kind
        found[kind] = [
            File(kind, f"{prefix}/{n}", tuple(_text(random, 60) for _ in range(5)))
            for n in range(40)
        ]
    return found


SMALL = world.Size(set_bytes=3000, label_bytes=1500, page=600)


def test_every_file_is_on_one_side() -> None:
    sides = world.split(_files(), Random(1), SMALL)
    where: dict[str, set[str]] = {}
    for side, files in sides.items():
        for file in files:
            where.setdefault(file.name, set()).add(side)
    # Code of a module and its docstrings have one name: never on two sides, whatever the kind.
    assert {len(found) for found in where.values()} == {1}
    kinds = {side: {file.kind for file in files} for side, files in sides.items()}
    assert kinds["target"] == kinds["held_in"] == set(world.TARGET_KINDS)
    assert kinds["held_out"] == set(world.OUT_KINDS)
    assert kinds["far"] == set(texts.FAR)
    assert kinds["pool"] == set(texts.POOL)
    assert sides != world.split(_files(), Random(2), SMALL)


def test_pages_keep_every_paragraph() -> None:
    file = File("a", "a", tuple(f"{n} " + "x" * 90 for n in range(41)))
    pages = texts.pages(file, 1000)
    assert tuple(part for page in pages for part in page) == file.paragraphs
    assert len(pages) == 4  # what is left at the end is too short to be a page


def test_edits_and_families_have_the_sizes_that_are_stated() -> None:
    random = Random(0)
    body = tuple(" ".join(f"w{n}-{m}" for m in range(200)) for n in range(50))
    changed = junk.edited(body, 0.01, random)
    before, after = (Counter(" ".join(b).split()) for b in (body, changed))
    # A replacement changes two counts, a loss or a doubling one.
    moved = sum(abs(before[w] - after[w]) for w in before)
    expected = 0.01 * 10_000 * 4 / 3
    assert 0.7 * expected < moved < 1.3 * expected
    sizes = [junk.family_size(random, 1.1, 40) for _ in range(20_000)]
    for least in (2, 5, 40):
        share = sum(size >= least for size in sizes) / len(sizes)
        assert share == pytest.approx(least**-1.1, abs=4 * math.sqrt(least**-1.1 / 20_000))
    assert max(sizes) == 40


def test_a_page_has_its_text_within_furniture() -> None:
    site = junk.Site("a.example", Random(3))
    markup = site.page("A title", ("First <part>.", "def f():\n    pass"), ["Other & page"])
    whole = world.whole_text(markup)
    for shown in ("First <part>.", "def f():\n    pass", "Other & page", site.menu[0]):
        assert shown in whole
    long = site.page("A title", (_text(Random(0), 300),), ["Other & page"])
    main = world.main_text(long)
    assert "Other & page" not in main
    assert len(main) > 1000


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small pool of generated files."""
    monkeypatch.setattr(world, "_all_files", lambda data: _files())
    monkeypatch.setattr(texts, "check", lambda data: None)
    size = world.Size(kind_bytes={}, farms=20, page=600, set_bytes=3000, label_bytes=1500)
    world.build(tmp_path, tmp_path / "world", 5, size)
    return tmp_path / "world"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_index_names_each_raw_document_and_nothing_else(pool: Path) -> None:
    index = _lines(pool / "index.jsonl")
    pages = {path.relative_to(pool).as_posix() for path in pool.glob("pages/*/*.html")}
    dump = [line for path in pool.glob("dump/*.jsonl") for line in _lines(path)]
    named = [line["file"] for line in index]
    assert len(set(named)) == len(named)
    assert set(named) == pages | {f"dump#{line['id']}" for line in dump}
    kinds = Counter(line["kind"] for line in index)
    assert 0 < kinds["farm"] <= 20
    families = Counter(line["family"] for line in index)
    assert max(families.values()) > 3
    assert sum(line["copy"] for line in index) == len(index) - len(families)
    aside = _lines(pool / "sets" / "random.jsonl")
    assert not {line["id"] for line in aside} & {name[-16:] for name in named}
    wanted = (pool / "sets" / "target.jsonl").stat().st_size
    assert sum(len(line["text"]) for line in aside) >= 0.8 * wanted
    raw = "\n".join(line["text"] for line in dump)
    for name in world.SETS:
        assert not any(
            line["text"][:400] in raw for line in _lines(pool / "sets" / f"{name}.jsonl")
        )
    labels = Counter(line["label"] for line in _lines(pool / "labels.jsonl"))
    assert set(labels) == set(world.QUALITY)


def test_a_copy_of_a_held_out_text_leaves_the_pool(tmp_path: Path) -> None:
    random = Random(7)
    unlike = [" ".join(f"w{random.randrange(5000)}" for _ in range(200)) for _ in range(5)]
    near = junk.edited((unlike[0],), 0.01, random)[0]
    given = {
        "target": [unlike[4]], "held_in": [unlike[0]], "held_out": [unlike[1]], "far": [unlike[3]],
        "pages": [unlike[2]], "dump": [near, unlike[2], unlike[3] + " w1", "w9 " * 50],
        "archives": [" ".join(reversed(unlike[3].split()))],
    }  # fmt: skip
    for source, found in given.items():
        lines = [{"id": f"{source}{n}", "text": text} for n, text in enumerate(found)]
        path = tmp_path / f"{source}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [f"sources.{n}.path={tmp_path / s}.jsonl" for n, s in enumerate(given)]
    words.append("sources.4.date_from=record")
    prepare.curate(tmp_path / "run", "contamination", *words)
    assert prepare.contaminated(tmp_path / "run") == {"dump#dump0", "dump#dump2"}


class _Seed:
    """What drawing needs of a seed."""

    seed = 3

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder / "tokenizer" / "export")


def test_drawing_is_whole_documents_epoch_by_epoch(tmp_path: Path) -> None:
    random = Random(1)
    for source in prepare.RAW:
        lines = [{"id": f"{source}{n}", "text": _text(random, 30)} for n in range(40)]
        path = tmp_path / f"{source}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [f"sources.{n}.path={tmp_path / s}.jsonl" for n, s in enumerate(prepare.RAW)]
    words.append("sources.0.date_from=record")
    prepare.curate(tmp_path / "run", "raw", *words)
    documents = str(tmp_path / "run")
    prepare.do("tokenizer", tmp_path / "tokenizer", documents=documents, vocab_size=300)
    seed: Any = _Seed(tmp_path)
    found = arms.drawn(seed, tmp_path / "part", tmp_path / "run", {}, 2000)
    longest = max(map(len, found.documents))
    assert abs(found.tokens - 2000) <= 3 * longest / 2
    assert len(set(found.files)) == len(found.files) > 10
    end = seed.tokenizer().end
    assert all(ids[-1] == end and end not in ids[:-1] for ids in found.documents)
    texts = {row["file"]: row["text"] for row in prepare.rows(tmp_path / "run", ("file", "text"))}
    for ids, file in zip(found.documents, found.files, strict=True):
        assert seed.tokenizer().decode(ids[:-1].tolist()) == texts[file]
    whole = 2000 / found.epochs["all"]
    twice = arms.drawn(seed, tmp_path / "twice", tmp_path / "run", {}, round(2.5 * whole))
    assert twice.epochs["all"] == pytest.approx(2.5, abs=0.05)
    assert set(Counter(twice.files).values()) == {2, 3}
    assert len(set(twice.files)) == 120


def test_each_arm_is_the_one_before_and_one_thing_more() -> None:
    configs = {path.stem: load_config(CurateConfig, [path]) for path in prepare.ARMS.glob("*.yaml")}
    steps = {name: config.steps[:-1] for name, config in configs.items()}
    assert steps["raw"] == steps["random"] == ()
    assert steps["dedup"] == ("exact", "fuzzy")
    assert steps["filter"] == ("language", *steps["dedup"], "filter")
    assert steps["dsir"] == steps["dsir-target-shuffled"] == (*steps["filter"], "select")
    assert steps["attr"] == (*steps["filter"], "attributes", "select")
    assert {arm.config for arm in arms.ARMS.values()} | {"sets", "contamination"} == set(configs)
    pools = {"raw", "random", "dedup", "filter", "dsir", "dsir-target-shuffled", "attr"}
    assert {configs[name].sources for name in pools} == {configs["raw"].sources}
    for name in ("dsir", "attr", "dsir-target-shuffled"):
        assert (configs[name].select.keep_fraction, configs[name].select.scope) == (
            0.5, "per_source",
        )  # fmt: skip


def test_figures_are_those_of_all_tokens() -> None:
    found = score.figures({"a": (10.0, 4, 20), "b": (2.0, 6, 10)})
    assert found["nats"] == pytest.approx(1.2)
    assert found["bits"] == pytest.approx(12 / math.log(2) / 30)
    assert found["kinds"] == {"a": 2.5, "b": pytest.approx(1 / 3)}


def test_what_was_removed_adds_up() -> None:
    line = {"kind": "farm", "copy": False}
    assert arms.class_of(line) == "links"
    assert arms.class_of({**line, "copy": True}) == "copies"
    every = [kind for kinds in arms.groups().values() for kind in kinds]
    assert sorted(every) == sorted([*texts.POOL, "farm", "archives"])


def _result(arm: str, seed: int, held_in: float, held_out: float) -> dict[str, Any]:
    values = {"held_in": held_in, "held_out": held_out, "far": 5.0}
    sets = {k: {"nats": v, "bits": v / 2, "kinds": {f"{k}-kind": v}} for k, v in values.items()}
    line = {
        "part": "ngram", "arm": arm, "seed": seed, "sets": sets, "tokens": 100, "bytes": 10**6,
        "epochs": {"all": 0.5}, "mixture": {"kinds": {"farm": 25, "code": 75}, "copies": 5},
        "cpu_s": 1.0, "prepared_s": 1.0, "contaminated": 2,
    }  # fmt: skip
    if arm == "attr":
        line["classifier"] = 0.9
    if arm == "dsir":
        pool = {"copies": 10, "links": 4, "foreign": 5, "code": 2, "english": 20}
        line["removed"] = {"pool": pool, "steps": {"fuzzy": {"copies": 8, "english": 1}}}
    return line


LOSSES = {
    "raw": 5.0, "dedup": 5.1, "filter": 4.8, "dsir": 4.6, "attr": 4.5, "random": 5.0,
    "shuffled": 4.7, "attr-filter": 4.6, "raw-2": 5.0, "dedup-2": 4.9,
}  # fmt: skip


def _results(**changed: float) -> list[dict[str, Any]]:
    return [
        _result(arm, seed, loss + 0.01 * seed, changed.get(arm, loss) + 0.01 * (seed % 2))
        for seed in range(5)
        for arm, loss in LOSSES.items()
    ]


def test_the_first_line_says_whether_the_bounds_are_met(tmp_path: Path) -> None:
    assert report.verdict([]).startswith("**Not measured yet:**")
    met = report.verdict(_results())
    assert met.startswith("**All required bounds are met** (5 seeds")
    assert "-0.500 nats/token on held_in" in met.replace(MINUS, "-")
    assert "control" in report.verdict(_results(shuffled=4.4))
    assert "on held_out fails" in report.verdict(_results(shuffled=4.4))
    assert report.verdict(_results(attr=4.9)).startswith("**Not all required bounds are met")
    assert "+ filter below raw on held_out" in report.verdict(_results(filter=5.2))
    # A gap that is large and uncertain is no gap: 0.3 in the mean, but 0.2 standard errors.
    noisy = _results()
    for line in noisy:
        if line["arm"] == "attr":
            line["sets"]["held_in"]["nats"] += (line["seed"] - 2) * 2.0
    bound = report.BOUNDS[0]
    assert (bound.set, bound.arm, bound.other) == ("held_in", "attr", "raw")
    assert report.holds(noisy, bound) is False
    assert report.error([1.0, 2.0, 3.0]) == pytest.approx(1 / math.sqrt(3))
    marks = ("verdict", "bounds", "arms", "kinds", "mixture", "removed", "twice", "decoder", "cost")
    page = tmp_path / "README.md"
    page.write_text("\n".join(f"<!-- {m} -->\n<!-- /{m} -->\nkept {m}" for m in marks))
    report.write(_results(), tmp_path)
    written = page.read_text()
    assert all(f"kept {mark}" in written for mark in marks)
    assert "| fuzzy | 80.0% | 0.0% | 0.0% | 0.0% | 5.0% |" in written
    assert "| left | 20.0% | 100.0% |" in written
    first = written
    report.write(_results(), tmp_path)
    assert page.read_text() == first


def test_the_house_page_has_every_mark() -> None:
    page = (run.FOLDER / "README.md").read_text(encoding="utf-8")
    for name in ("verdict", "bounds", "arms", "mixture", "removed", "kinds", "twice", "decoder"):
        assert page.count(f"<!-- {name} -->") == page.count(f"<!-- /{name} -->") == 1


@pytest.mark.slow
def test_the_whole_experiment_at_its_smallest(data_folder: Path, tmp_path: Path) -> None:
    size = prepare.Size(
        world=world.Size(scale=0.04, farms=1500, set_bytes=8000, label_bytes=20_000),
        small=0.5, tokenizer_bytes=300_000, vocab=600, tokens=12_000, decoder_tokens=4096,
        hidden=32, layers=1, sequence=32, batch=256,
    )  # fmt: skip
    results = tmp_path / "results.jsonl"
    todo = run.due(results, run.PARTS, 1)
    assert len(todo) == 2 * len(arms.ARMS)
    shown = [t for t in todo if t[0] == "ngram" or t[2] in ("raw", "attr")]
    run.run(data_folder, tmp_path / "work", results, size, shown, 1)
    found = read(results)
    assert [(r["part"], r["seed"], r["arm"]) for r in found] == shown
    assert not run.due(results, ["ngram"], 1)
    by_arm = {r["arm"]: r for r in found if r["part"] == "ngram"}
    for name, line in by_arm.items():
        assert line["tokens"] == sum(line["mixture"]["kinds"].values()), name
        assert line["tokens"] == pytest.approx(12_000, rel=0.2) or name.endswith("-2")
        assert all(0 < line["sets"][s]["nats"] < math.log(600) + 1 for s in ("held_in", "held_out"))
    assert by_arm["filter"]["mixture"]["kinds"].get("foreign", 0) < by_arm["raw"]["mixture"][
        "kinds"]["foreign"]  # fmt: skip
    assert by_arm["raw-2"]["epochs"]["all"] == pytest.approx(2, abs=0.05)
    assert by_arm["dedup-2"]["epochs"]["all"] > 2
    removed = by_arm["dsir"]["removed"]
    for kind, total in removed["pool"].items():
        assert sum(step.get(kind, 0) for step in removed["steps"].values()) <= total
    decoder = [r for r in found if r["part"] == "decoder"]
    assert all(np.isfinite(r["sets"]["held_out"]["bits"]) for r in decoder)
    report.write(found, _page(tmp_path))


def _page(folder: Path) -> Path:
    text = (run.FOLDER / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder
