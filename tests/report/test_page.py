"""The page: every figure from the files, nothing from outside, never a crash."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.report import format as written
from regrow.report.page import write_page
from tests.report.family_run import (
    CURATE,
    family_models,
    records,
    training_result,
    write_family,
    write_json,
    write_stage,
)
from tests.report.reading import Page

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="a()"> & "q" \'s\' \x00\x1b]0; \ud800'
VERBS = ("curate run", "tokenizer", "tokenize", "pretrain", "continue", "importance", "prune",
         "distill", "evaluate", "sweep", "grow")  # fmt: skip


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("runs") / "family")


@pytest.fixture(scope="module")
def page(family: Path) -> Page:
    return Page.read(write_page(family))


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def known_numbers(folder: Path) -> set[float]:
    found: set[float] = set()
    for path in folder.rglob("*.json"):
        found |= set(numbers_in(json.loads(path.read_text())))
    return found


def test_every_figure_is_in_the_files_or_says_how_it_was_computed(family: Path, page: Page) -> None:
    known = known_numbers(family)
    assert len(page.figures) > 150
    for value, title, _ in page.figures:
        if re.search(r"computed:|summed", title):
            continue
        assert float(value) in known, (value, title)


def look_up(value: Any, path: str) -> Any:
    """The entry that ``models[0].bits_per_byte.code`` names."""
    for name, index in re.findall(r"([\w\-]+)|\[(\d+)\]", path):
        value = value[name] if name else value[int(index)]
    return value


def test_every_figure_stands_where_its_title_says(family: Path, page: Page) -> None:
    checked = 0
    for value, title, _ in page.figures:
        match = re.search(r"· ([\w/\-]+\.json): ([\w.\[\]\-]+)$", title)
        if match:
            content = json.loads((family / match[1]).read_text())
            assert float(value) == look_up(content, match[2]), title
            checked += 1
    assert checked > 150


def test_the_tables_against_the_result(family: Path, page: Page) -> None:
    result = json.loads((family / "result.json").read_text())
    base = result["models"][0]["non_embedding_parameters"]
    for model in result["models"]:
        cost, quality = page.rows(model["name"])[:2]
        assert cost[1:] == [
            model["kind"],
            written.amount(model["parameters"]),
            written.amount(model["non_embedding_parameters"]),
            written.percent(model["non_embedding_parameters"] / base),
            written.amount(model["tokens"]),
            written.scientific(model["flops"]),
            written.seconds(model["seconds"]),
            written.size(model["bytes"]),
            written.count(model["decode_tokens_per_second"]),
        ]
        bits = model["bits_per_byte"]
        assert quality[1:] == [written.decimals(v) for v in [model["loss"], *bits.values()]]
    for name, entry in result["baselines"].items():
        (row,) = page.rows(f"{name} (baseline)")
        assert row[1] == written.decimals(entry["loss"])
        assert row[-1] == written.decimals(entry["bits_per_byte"]["all"])


def test_twins_are_compared_by_their_figures(page: Page) -> None:
    row = next(row for row in page.rows("child-50") if "better" in row)
    assert row[1:5] == ["3.842300k tokens", "4.102300k tokens", "\N{MINUS SIGN}0.260", "better"]
    assert next(row for row in page.rows("child-30") if "worse" in row)[3] == "+0.019"


def test_all_sections_are_there(page: Page) -> None:
    assert page.ids == [
        "tree", "models", "twins", "front", "curves", "price", "samples", "stages", "text", "place",
        "settings",
    ]  # fmt: skip
    for words in ("continue", "prune", "distill", "child-50", "scratch-30-2x"):
        assert words in page.svg_texts
    for words in ("Common Processor", "0 in every stage", "regrow grow", "too short: 96",
                  "that of Python", "torch 2.13.0"):  # fmt: skip
        assert words in page.text


def test_links_lead_to_files_of_the_run(family: Path, page: Page) -> None:
    for _, target in page.references:
        if target.startswith("#"):
            assert target[1:] in page.ids
        elif target != "data:,":
            made_later = target.endswith("report.html")
            assert made_later or (family / target).exists(), target


def test_nothing_comes_from_outside(family: Path, page: Page) -> None:
    html = (family / "report.html").read_text()
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "base", "form"}
    for forbidden in ("http:", "https:", "//", "url(", "src=", "@import", "javascript:"):
        assert forbidden not in html, forbidden
    assert "default-src 'none'" in html
    assert {tag for tag, _ in page.references} <= {"a", "link"}


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    models = family_models()
    for at, model in enumerate(models):
        model["name"] = f"{HOSTILE} {at}"
        model["samples"] = [{"prompt": HOSTILE, "text": HOSTILE}, HOSTILE, [HOSTILE, "x"], 7]
    models[1] |= {"parent": models[0]["name"], "kind": HOSTILE, "path": "../../etc/export"}
    models[2] |= {"path": "javascript:alert(1)/x/export", "bits_per_byte": {HOSTILE: 1.5}}
    folder = write_family(tmp_path / "family")
    result = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", result | {"models": models, "name": HOSTILE})
    (folder / "config.yaml").write_text("verb: grow\nname: '<script>'\n")
    page = Page.read(write_page(folder))
    assert not page.tags & {"script", "img"}
    assert "<script>alert(1)</script>" in page.text
    assert not any("javascript:" in target for _, target in page.references)


def test_a_page_needs_no_torch() -> None:
    script = "import sys, regrow.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_same_files_give_the_same_bytes(family: Path) -> None:
    first = write_page(family).read_bytes()
    assert write_page(family).read_bytes() == first


@pytest.mark.parametrize("verb", VERBS)
def test_minimal_results(tmp_path: Path, verb: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert Page.read(write_page(folder)).text  # not even a result
    write_json(folder / "result.json", {"verb": verb, "run": "runs/x", "seconds": 1.5})
    assert "1.5s" in Page.read(write_page(folder)).text
    write_json(folder / "result.json", {"verb": verb, "models": [{}]})
    assert "model 1" in Page.read(write_page(folder)).text
    for torn in ("", "[1, 2", "[]", "null", '{"models": 3}'):
        (folder / "result.json").write_text(torn)
        (folder / "env.json").write_text(torn)
        (folder / "inputs.json").write_text(torn)
        (folder / "config.yaml").write_text(torn)
        (folder / "metrics.jsonl").write_text(torn)
        assert Page.read(write_page(folder)).text


def test_nesting_without_end(tmp_path: Path) -> None:
    for name, depth in (("result.json", 5000), ("metrics.jsonl", 5000), ("config.yaml", 1000)):
        (tmp_path / name).write_text("[" * depth)
    assert Page.read(write_page(tmp_path)).text


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["base", "scratch", "distilled", "runs/x/base/export", "optim.lr"]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "kind", "parent", "twin", "loss", "losses", "bits_per_byte", "all", "models", "cost",
     "family", "flops", "tokens", "seconds", "samples", "prompt", "text", "baselines", "bigram",
     "sweep", "trials", "key", "best", "ledger", "schedule", "phases", "weights", "first_token",
     "documents", "bytes", "steps", "dropped", "verb", "path", "stage_seconds", "evaluation",
     "threads", "parameters", "non_embedding_parameters", "decode_tokens_per_second", "scores"]
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=40,
)


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(KEYS, TREES, max_size=12), st.lists(TREES, max_size=6))
def test_whatever_a_result_holds_a_page_comes_out(
    tmp_path: Path, result: dict[str, Any], metrics: list[Any]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    write_json(folder / "result.json", result)
    lines = "".join(json.dumps(record) + "\n" for record in metrics)
    (folder / "metrics.jsonl").write_text(lines)
    write_json(folder / "inputs.json", metrics)
    Page.read(write_page(folder))


def test_ten_thousand_records_are_quick_and_small(tmp_path: Path) -> None:
    models = family_models()
    folder = write_stage(
        tmp_path, "long", "pretrain", training_result(3.9, 10**9, 999.0, 10**6),
        records(10**9, 8.3, 3.9, seed=0, rows=10_000),
    )  # fmt: skip
    root = write_family(tmp_path / "family", models, rows=1500)
    for path in (folder, root):
        began = time.perf_counter()
        page = write_page(path)
        assert time.perf_counter() - began < 2.0
        assert page.stat().st_size < 2_000_000


def test_training_page(tmp_path: Path) -> None:
    result = training_result(3.741, 300_000, 60.0, 1_183_744)
    result["schedule"]["phases"] = [
        {"name": "general", "weights": {"code": 1.0}, "first_token": 0},
        {"name": "explaining", "weights": {"code": 0.4, "docstrings": 0.6}, "first_token": 240_000},
    ]
    folder = write_stage(
        tmp_path, "continued", "continue", result, records(300_000, 3.95, 3.741, seed=1),
        reads=(("model", "base"),),
    )  # fmt: skip
    page = Page.read(write_page(folder))
    assert page.ids == ["figures", "curves", "domains", "data", "inputs", "place", "settings"]
    assert "blend: explaining" in page.svg_texts
    assert "explaining, from token 240,000: 40 % code and 60 % docstrings" in page.text
    assert page.rows("code")[0] == ["code", "3.217", "1.593"]
    assert page.rows("model")[0][1:3] == ["runs/family/base/export", "4.73 MB"]
    assert "held-out loss" in page.svg_texts
    assert "regrow continue --config" in page.text


def test_distillation_is_not_called_training_loss(tmp_path: Path) -> None:
    result = training_result(3.842, 300_000, 60.0, 597_120)
    metrics = records(300_000, 6.9, 3.842, seed=2, kl=True)
    page = Page.read(write_page(write_stage(tmp_path, "child", "distill", result, metrics)))
    assert "divergence from the teacher" in page.svg_texts
    assert "training loss" not in page.svg_texts


def test_curation_page(tmp_path: Path) -> None:
    page = Page.read(write_page(write_stage(tmp_path, "corpus", "curate run", CURATE)))
    assert page.rows("code")[0][:5] == ["code", "900", "40", "38", "4.34 MB"]
    assert page.rows("gather")[0] == [
        "gather",
        "4,610",
        "4,500",
        "110",
        "too short: 96, not UTF-8: 14",
    ]


def test_sweep_page_marks_what_was_kept(tmp_path: Path) -> None:
    root = write_family(tmp_path / "family")
    page = Page.read(write_page(root / "scratch-50"))
    assert page.rows("0.002")[0][-1] == "kept"
    assert page.rows("0.004")[0][-1] == written.MISSING
    assert "best of 2 trials" in page.text
    assert "regrow pretrain --config" in page.text


def test_unknown_keys_are_shown(tmp_path: Path) -> None:
    result = {
        "seconds": 2.0,
        "importance": {"layers": [0.4, 0.1, 0.3, 0.9]},
        "bytes_per_token": {"code": 3.1, "all": 3.3},
        "tokens": {"train": {"code": 10_000}, "test": {"code": 900}},
        "odd": [{"a": [1]}],
    }
    page = Page.read(write_page(write_stage(tmp_path, "scores", "importance", result)))
    assert page.rows("train") == [["train", "10.0k tokens"]]
    assert "3.3" in page.text
    assert "Importance layers" in page.svg_texts
    assert "As it stands in the file" in page.text


def test_evaluation_page(tmp_path: Path) -> None:
    scores = {"loss": 3.9, "bits_per_byte": {"code": 1.7, "all": 1.9}, "tokens": 17_749}
    model = {**scores, "parameters": 1_970_176, "decode_tokens_per_second": 640.0}
    model["samples"] = [{"prompt": "def ", "text": "spam():\n    return 1"}]
    result = {
        "models": {"base": model, "child": model | {"loss": 4.2}},
        "baselines": {"bigram": scores | {"trained_tokens": 59_392}},
        "split": "test",
        "threads": 1,
    }
    page = Page.read(write_page(write_stage(tmp_path, "evaluation", "evaluate", result)))
    assert page.rows("base") == [
        ["base", "1.97M", "640", written.MISSING, "3.900", "1.700", "1.900"]
    ]
    assert page.rows("bigram") == [
        ["bigram", written.MISSING, written.MISSING, "59.4k", "3.900", "1.700", "1.900"]
    ]
    assert "1 thread" in page.text
    assert "def spam(): return 1" in page.text
