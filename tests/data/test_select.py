"""The step select: who is drawn, from which target, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from regrow.core.errors import ConfigError, InputError
from regrow.core.run import Run
from regrow.data import dsir, engine
from regrow.data.config import CurateConfig
from regrow.data.jobs import curate
from regrow.data.steps.select import Select
from tests.data.test_dsir import plain_counts

pytest.importorskip("daft")

_GOOD = [f"river{i}" for i in range(40)]
_BAD = [f"engine{i}" for i in range(40)]


def text(seed: int, share: float, tokens: int) -> str:
    """A text of which a share of the words is of the good kind."""
    rng = np.random.default_rng(seed)
    good = rng.random(tokens) < share
    return " ".join(str(rng.choice(_GOOD if one else _BAD)) for one in good)


def pool(count: int = 60, sources: tuple[str, ...] = ("web",)) -> list[dict[str, Any]]:
    """Documents of rising goodness, of lengths that have nothing to do with it."""
    rows = []
    for source in sources:
        for number in range(count):
            length = 110 + (number * 37 % 10) * 30
            rows.append(
                {
                    "id": f"{source}{number:03d}",
                    "text": text(number, number / count, length),
                    "source": source,
                    "goodness": number,
                }
            )
    return rows


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("target")
    (root / "good.txt").write_text(text(1000, 0.95, 12_000))
    return root


def configured(**settings: Any) -> CurateConfig:
    words = {"steps": ["select", "split"], "select": settings}
    return CurateConfig.model_validate_json(json.dumps(words, default=str))


def run(rows: list[dict[str, Any]], folder: Path, **settings: Any) -> Any:
    """Reasons by id, scores by id, exhibits."""
    step = Select(configured(**settings))
    names = dict.fromkeys(("id", *step.reads()))
    folder.mkdir()
    frame = engine.from_columns({name: [row[name] for row in rows] for name in names})
    scores = engine.collected(step.score(frame, folder))
    verdict = {r["id"]: (r["reason"], r["value"]) for r in engine.rows(step.judge(scores, folder))}
    found = {row["id"]: row for row in engine.rows(scores)}
    shown = step.exhibits(scores, folder)
    assert [path.name for path in folder.iterdir()] == ["target.json"]
    return verdict, found, shown


def kept(verdict: dict[str, Any]) -> set[str]:
    return {id for id, (reason, _) in verdict.items() if reason is None}


def test_log_weights_are_those_of_the_formula(target: Path, tmp_path: Path) -> None:
    rows = pool(40, ("web", "book"))
    q = plain_counts((target / "good.txt").read_text())
    for scope in ("per_source", "global"):
        given = {"target": {"files": [target]}, "keep_fraction": 0.5, "scope": scope}
        _, scores, _ = run(rows, tmp_path / scope, **given)
        for row in rows[::7]:
            rivals = [r for r in rows if scope == "global" or r["source"] == row["source"]]
            p = sum(plain_counts(rival["text"]) for rival in rivals)
            expected = plain_counts(row["text"]) @ (
                np.log(q / q.sum() + 1e-8) - np.log(p / p.sum() + 1e-8)
            )
            found = scores[row["id"]]
            assert found["select_log_weight"] == pytest.approx(expected, rel=1e-9)
            assert found["select_tokens"] == len(row["text"].split())
            assert found["select_group"] == ("all" if scope == "global" else row["source"])


@pytest.mark.parametrize("length", ["bucketed", "mean", "sum"])
def test_the_likest_stay(length: str, target: Path, tmp_path: Path) -> None:
    given = {"target": {"files": [target]}, "keep_fraction": 0.4, "noise": False, "length": length}
    rows = pool()
    verdict, scores, shown = run(rows, tmp_path / "x", **given)
    stay = kept(verdict)
    assert len(stay) == 24
    tokens = {id: row["select_tokens"] for id, row in scores.items()}
    weights = {id: row["select_log_weight"] for id, row in scores.items()}
    if length == "bucketed":  # six of each of the ten lengths, of which 2.4 stay
        for size in set(tokens.values()):
            same = sorted((id for id in tokens if tokens[id] == size), key=lambda id: -weights[id])
            assert stay & set(same) in (set(same[:2]), set(same[:3]))
    else:
        keys = {id: weights[id] / (1 if length == "sum" else 2 * tokens[id] - 1) for id in weights}
        assert stay == set(sorted(keys, key=lambda id: -keys[id])[:24])
    gone = next(id for id in sorted(verdict) if id not in stay)
    assert verdict[gone] == ("select_log_weight not among the 40 % kept", weights[gone])
    assert shown[1]["rows"][0][:4] == ["web", 60, 0, 24]


def test_noise_is_of_the_ids_not_of_the_order(target: Path, tmp_path: Path) -> None:
    given = {"target": {"files": [target]}, "keep_fraction": 0.3, "length": "mean"}
    rows = pool()
    first = kept(run(rows, tmp_path / "a", **given)[0])
    assert kept(run(rows[::-1], tmp_path / "b", **given)[0]) == first
    assert kept(run(rows, tmp_path / "c", **given, noise=False)[0]) != first
    step = Select(configured(**given))
    scores = engine.from_columns(
        {
            "id": [f"{i}" for i in range(3000)],
            "select_group": ["web"] * 3000,
            "select_tokens": [150] * 3000,
            "select_log_weight": [0.0, 1.0] * 1500,
        }
    )
    step.settings = step.settings.model_copy(update={"length": "sum", "keep_fraction": 0.001})
    drawn = kept(
        {r["id"]: (r["reason"], 0) for r in engine.rows(step.judge(scores, tmp_path / "none"))}
    )
    assert len(drawn) == 3  # of 3,000, though half of all weigh more than the other half


def test_sources_that_are_not_named_are_left_alone(target: Path, tmp_path: Path) -> None:
    rows = pool(20, ("web", "book"))
    rows.append({"id": "tiny", "text": "too short", "source": "web"})
    rows.append({"id": "tiny book", "text": "too short", "source": "book"})
    config = configured(target={"files": [target]}, keep_fraction={"web": 0.5})
    source = {"kind": "folder", "name": "web", "path": str(target)}
    other = {"kind": "folder", "name": "book", "path": str(target)}
    config = CurateConfig.model_validate_json(
        json.dumps({**config.model_dump(mode="json"), "sources": [source, other]})
    )
    step = Select(config)
    frame = engine.from_columns({n: [row[n] for row in rows] for n in ("id", "text", "source")})
    scores = engine.collected(step.score(frame, tmp_path))
    verdict = {
        r["id"]: (r["reason"], r["value"]) for r in engine.rows(step.judge(scores, tmp_path))
    }
    stay = kept(verdict)
    assert sum(id.startswith("web") for id in stay) == 10
    assert sum(id.startswith("book") for id in stay) == 20
    assert verdict["tiny"] == ("select_tokens below 100", 2.0)
    assert "tiny book" in stay


def test_a_target_among_the_documents(tmp_path: Path) -> None:
    rows = pool()
    given = {"target": {"where": "goodness >= 50"}, "keep_fraction": 0.5, "noise": False}
    verdict, scores, shown = run(rows, tmp_path / "x", **given)
    wanted = [row for row in rows if row["goodness"] >= 50]
    tokens = sum(len(row["text"].split()) for row in wanted)
    assert shown[0]["rows"][:3] == [["target", "goodness >= 50"], ["texts", 10], ["tokens", tokens]]
    assert shown[0]["rows"][3][0] == "warning"  # below 10,000 tokens
    q = sum(plain_counts(row["text"]) for row in wanted)
    p = sum(plain_counts(row["text"]) for row in rows)
    for row in (rows[0], rows[55]):
        z = plain_counts(row["text"])
        rest = q - z if row in wanted else q
        ratio = np.log(rest / rest.sum() + 1e-8) - np.log(p / p.sum() + 1e-8)
        assert scores[row["id"]]["select_log_weight"] == pytest.approx(z @ ratio, rel=1e-9)
    mean = np.mean([row["goodness"] for row in rows if verdict[row["id"]][0] is None])
    assert mean > 40


def test_a_target_that_is_among_the_documents_is_refused(target: Path, tmp_path: Path) -> None:
    rows = pool(5)
    rows.append({**rows[0], "id": "same", "text": (target / "good.txt").read_text() + " \n"})
    with pytest.raises(InputError, match="1 of its texts are documents as well") as error:
        run(rows, tmp_path / "x", target={"files": [target]}, keep_fraction=0.5)
    assert error.value.problems == ("same",)


def test_a_target_that_holds_evaluation_text_is_refused(tmp_path: Path) -> None:
    question = text(5, 0.5, 30)
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": question}))
    (tmp_path / "target.txt").write_text(f"{text(6, 0.9, 200)}\n\n{question.upper()}!")
    words = {
        "steps": ["select", "decontaminate", "split"],
        "select": {"target": {"files": [str(tmp_path / "target.txt")]}, "keep_fraction": 0.5},
        "decontaminate": {"against": [str(tmp_path / "exam.jsonl")]},
    }
    step = Select(CurateConfig.model_validate_json(json.dumps(words)))
    frame = engine.from_columns({n: [r[n] for r in pool(5)] for n in ("id", "text", "source")})
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"hold words of 1 items of the sets") as error:
        step.score(frame, tmp_path / "x")
    assert error.value.problems == ("exam:1",)


def test_a_target_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="goodness > 99 gives no text; loosen the condition"):
        run(pool(5), tmp_path / "x", target={"where": "goodness > 99"}, keep_fraction=0.5)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"keep_fraction": 0.5}, "select.target says nothing"),
        ({"target": {"where": "words > 1"}}, "select.keep_fraction is not set"),
        ({"target": {"where": "words >"}, "keep_fraction": 0.5}, "select.target.where: 'words >'"),
        (
            {"target": {"where": "words > 1"}, "keep_fraction": {"cod": 0.5}},
            "no source 'cod', did you mean code?",
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        Select(configured(**settings))
    assert part in str(error.value)


def test_a_missing_target_and_a_small_one(tmp_path: Path) -> None:
    given = {"target": {"files": [tmp_path / "none"]}, "keep_fraction": 0.5}
    with pytest.raises(InputError, match=r"select\.target\.files"):
        Select(configured(**given))
    (tmp_path / "few.txt").write_text("a few words only")
    step = Select(configured(target={"files": [tmp_path / "few.txt"]}, keep_fraction=0.5))
    assert step.notes()[0].startswith("select.target has 4 tokens, fewer than 10,000")


def test_a_whole_run(target: Path, tmp_path: Path, claim: Callable[..., Run]) -> None:
    """Through the job: thresholds move without scoring again, and bytes are the same each time."""
    folder = tmp_path / "pool"
    folder.mkdir()
    lines = [json.dumps({"text": row["text"]}) for row in pool()]
    for number in range(6):
        (folder / f"{number}.jsonl").write_text("\n".join(lines[number::6]))

    def made(name: str, **settings: Any) -> tuple[Run, Any]:
        words = {
            "sources": [{"kind": "folder", "name": "web", "path": str(folder)}],
            "steps": ["select", "split"],
            "select": {"target": {"files": [str(target)]}, "keep_fraction": 0.5, **settings},
        }
        if name == "again":
            words["reuse"] = str(tmp_path / "first")
        run = claim("curate run", CurateConfig.model_validate_json(json.dumps(words)), name)
        return run, curate.run(run.config, run)

    first, result = made("first")
    assert result["steps"][1]["out"] == 30
    second, _ = made("second")
    same = [(run.path / "documents" / "train.parquet").read_bytes() for run in (first, second)]
    assert same[0] == same[1]
    again, less = made("again", keep_fraction=0.2)
    assert less["steps"][1]["out"] == 12
    counts = json.loads(next((again.path / "stages").glob("*-select-*/counts.json")).read_text())
    assert counts["reused"] == 60
    names = pq.read_schema(again.path / "documents" / "train.parquet").names
    assert {"select_log_weight", "select_tokens", "select_group"} < set(names)


def test_real_text_finds_its_like(data_folder: Path) -> None:
    """Half a play tells the other half from source code, speech by speech."""
    plays = sorted((data_folder / "tinyshakespeare").rglob("*.txt"))
    if not plays:
        pytest.skip("no text of tinyshakespeare in REGROW_DATA")
    speeches = plays[0].read_text().split("\n\n")
    others = ["\n".join(speeches[i : i + 40]) for i in range(3000, 4000, 40)]
    code = [path.read_text() for path in sorted(Path(dsir.__file__).parent.glob("*.py"))[:10]]
    hasher = dsir.Hasher()
    target = hasher.features(["\n".join(speeches[:2000])]).counts()
    pool = hasher.features([*others, *code])
    ratio = dsir.log_ratio(target, pool.counts())
    parts = np.split(pool.buckets, pool.first[1:-1])
    means = [dsir.log_weight(part, ratio) / len(part) for part in parts]
    assert min(means[: len(others)]) > max(means[len(others) :])
