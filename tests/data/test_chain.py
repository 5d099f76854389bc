"""Steps in a row: what each makes, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.core.run import Run
from regrow.data.chain import chained
from regrow.data.config import CurateConfig
from regrow.data.jobs import curate
from tests.data.test_perplexity import scrambled, sentences

pytest.importorskip("daft")

ALL = ["language", "exact", "fuzzy", "filter", "perplexity", "classifier", "select"]
ALL += ["decontaminate", "split"]


def config(folder: Path, steps: list[str], **settings: Any) -> CurateConfig:
    source = {"kind": "folder", "name": "web", "path": str(folder), "language": "en"}
    return load_config(CurateConfig, base={"sources": [source], "steps": steps, **settings})


def select(where: str) -> dict[str, Any]:
    return {"select": {"target": {"where": where}, "keep_fraction": 0.9}}


def perplexity(where: str) -> dict[str, Any]:
    return {"perplexity": {"target": {"where": where}}}


@pytest.mark.parametrize(("step", "given"), [("select", select), ("perplexity", perplexity)])
def test_a_condition_is_read_before_anything_is(
    step: str, given: Callable[[str], dict[str, Any]], corpus: Path
) -> None:
    def refused(where: str, *before: str) -> str:
        with pytest.raises(ConfigError) as error:
            curate.plan(config(corpus, [*before, step, "split"], **given(where)))
        return "\n".join([str(error.value), *error.value.problems])

    for where in ("source = 'web' AND id != 'x'", "language = 'en'"):
        curate.plan(config(corpus, [step, "split"], **given(where)))
    curate.plan(config(corpus, ["filter", step, "split"], **given("words > 100")))
    no_step = f"the step {step} reads the column 'words', which no step before it makes"
    assert no_step in refused("words > 100")
    assert no_step in refused("words > 100", "language")
    assert "'sorce', which no step before it makes, did you mean source?" in refused("sorce = 'a'")
    assert "words (double)" in refused("words = 'many'", "filter")
    assert f"{step}.target.where: 'words >', at 'its end'" in refused("words >", "filter")
    assert "quality is told by a classifier of quality" in refused("quality = 'High'")


def test_the_best_copy_by_a_column_that_is_not_there(corpus: Path) -> None:
    keep = {"duplicates": {"keep": {"highest": "words"}}}
    curate.plan(config(corpus, ["filter", "exact", "split"], **keep))
    with pytest.raises(ConfigError, match="the step exact reads the column 'words'"):
        curate.plan(config(corpus, ["exact", "filter", "split"], **keep))


def test_steps_make_what_they_say(tmp_path: Path, claim: Callable[..., Run]) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(sentences(i, 20) if i % 5 else scrambled(i, 20))
    (tmp_path / "good.txt").write_text(sentences(999, 2000))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": sentences(1, 5)}))
    given = config(
        folder,
        ALL,
        filter={"rules": {"common_words": [0, None], "repeated_5gram": None, "top_2gram": None}},
        **perplexity("words > 90 AND language_score >= 0 AND fuzzy_copies = 1"),
        classifier={"positive": [str(tmp_path / "good.txt")], "keep": 0.9, "min_macro_f1": 0},
        **select("ppl > 1 AND exact_copies = 1 AND classifier_score >= 0"),
        decontaminate={"against": [str(tmp_path / "exam.jsonl")]},
    )
    run = claim("curate run", given)
    curate.run(run.config, run)
    folders = sorted((run.path / "stages").glob("??-*"))
    assert len(folders) == len(ALL)
    for step, made in zip(chained(run.config), folders, strict=True):
        assert f"-{step.name}-" in made.name
        found = pq.read_schema(made / "scores.parquet")
        wanted = pa.schema([("id", pa.string()), *step.makes()])
        assert {f.name: f.type for f in found} == {f.name: f.type for f in wanted}, step.name
