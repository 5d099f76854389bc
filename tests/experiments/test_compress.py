"""The compression experiment still runs, at a size of seconds, and reads its results rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.compress import arms, estimate, findings, prepare, report, run, zero
from experiments.compress.findings import FAILS, HOLDS, MISSING, OPEN, Found

from regrow.core.errors import BusyError
from regrow.data.loader import evaluation_batches
from regrow.data.shards import ShardSet
from regrow.model.folder import load

SIZE = prepare.Size(more_rates=2)
TOKENS, SHORT, LONGER, BASE = 1000, 400, 1600, 10_000


def _base(**figures: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "part": "base",
        "name": "base",
        "base": "key",
        "tokens": BASE,
        "test": 3.0,
        "flops": 1000,
        "last_quarter_gain": 0.01,
        "student_tokens": TOKENS,
        "short_tokens": SHORT,
        "equal_compute_tokens": LONGER,
        # As it is read back from a file.
        "size": json.loads(json.dumps(asdict(SIZE))),
        **figures,
    }


def _arm(method: str, lr: float, seed: int, loss: float, tokens: int = TOKENS) -> dict[str, Any]:
    arm = arms.Arm(method, tokens, lr, seed)
    figures = {"validation": loss, "test": loss, "curve": [(tokens, loss)], "base": "key"}
    return {
        "part": "arm",
        "name": arm.name,
        "method": method,
        "tokens": tokens,
        "lr": lr,
        "seed": seed,
        **figures,
    }


def _swept(method: str, *losses: float, tokens: int = TOKENS) -> list[dict[str, Any]]:
    """A whole grid whose middle rate is the best, with these test losses by seed."""
    low, middle, high = arms.first_rates(SIZE, method)
    ends = [_arm(method, lr, 0, losses[0] + 1, tokens) for lr in (low, high)]
    return [*ends, *(_arm(method, middle, s, loss, tokens) for s, loss in enumerate(losses))]


def test_rates_go_on_beyond_an_end_that_is_the_best() -> None:
    method, rates = "importance-kd", SIZE.rates["pruned"]

    def at(*losses: float, rates: tuple[float, ...] = rates) -> list[dict[str, Any]]:
        return [_arm(method, lr, 0, x) for lr, x in zip(rates, losses, strict=False)]

    assert arms.next_rates(at(3.0), method, TOKENS, SIZE) == rates[1:]
    assert arms.next_rates(at(3, 2, 3), method, TOKENS, SIZE) == ()
    assert arms.best_rate(at(3, 2, 3), method, TOKENS, SIZE) == rates[1]
    assert arms.next_rates(at(1, 2, 3), method, TOKENS, SIZE) == (rates[0] / 2,)
    assert arms.best_rate(at(1, 2, 3), method, TOKENS, SIZE) is None, "the end may not be the best"
    assert arms.next_rates(at(3, 2, 1), method, TOKENS, SIZE) == (8e-3,)
    five = (*rates, 8e-3, 16e-3)
    assert arms.best_rate(at(5, 4, 3, 2, 1, rates=five), method, TOKENS, SIZE) == 16e-3
    assert arms.best_rate(at(3, 2, 3), method, SHORT, SIZE) is None, "other tokens, other rate"


def test_a_gap_within_its_spread_is_not_resolved() -> None:
    assert findings.Gap((0.03, 0.05, 0.04)).resolved
    assert not findings.Gap((0.03, 0.08, 0.01)).resolved
    assert not findings.Gap((0.5,)).resolved, "one seed tells nothing of the spread"
    assert findings.Gap((-0.03, -0.05)).resolved


def _seen(results: list[dict[str, Any]], letter: str) -> list[str]:
    return [claim.seen for claim in Found(results).claims() if claim.letter == letter]


def test_claims_follow_from_the_results() -> None:
    bare = [_base()]
    assert {claim.seen for claim in Found(bare).claims()} == {MISSING}
    good = [
        *bare,
        *_swept("importance-kd", 3.10, 3.11, 3.12),
        *_swept("importance-ce", 3.15, 3.16, 3.17),
        *_swept("random-kd", 3.14, 3.14, 3.16),
        *_swept("scratch-kd", 4.8, 4.9, 4.7),
        *_swept("scratch-ce", 5.0, 5.0, 5.0),
        *_swept("depth-kd", 3.2, 3.0, 3.2),
    ]
    assert _seen(good, "c") == [HOLDS, HOLDS, HOLDS]
    assert _seen(good, "d") == [HOLDS]
    assert Found(good).closed() == pytest.approx([1.9 / 2, 1.89 / 2, 1.88 / 2])
    assert _seen(good, "e") == [HOLDS], "two of three seeds"
    assert _seen([*good, *_swept("importance-ce", 3.11, 3.12, 3.13)], "c")[0] == FAILS
    assert _seen([*good, *_swept("importance-ce", 3.09, 3.20, 3.15)], "c")[0] == OPEN
    assert _seen([*good, *_swept("scratch-kd", 3.1, 3.1, 3.1)], "c")[2] == FAILS
    assert _seen([*good, *_swept("importance-kd", 3.4, 3.4, 3.4)], "d") == [FAILS]
    assert _seen([*good, *_swept("depth-kd", 3.0, 3.0, 3.2)], "e") == [FAILS]
    told = report.verdict(Found([*good, *_swept("depth-kd", 3.0, 3.0, 3.2)]))
    assert "(c) and (d) hold; (e) does not hold; (a), (b) and (f) are not measured" in told
    assert "it had reached a plateau" in told
    assert "it had not reached a plateau" in report.verdict(Found([_base(last_quarter_gain=0.03)]))


def _cut(kind: str, seed: int, index: int, loss: float) -> dict[str, Any]:
    cut = zero.Cut(kind, seed, index)
    return {"part": "zero", "name": cut.name, "kind": kind, "seed": seed, "loss": loss}


def test_importance_has_to_be_below_every_random_cut_of_every_seed() -> None:
    lines = [_base(), *(_cut("importance", s, 0, 4.0) for s in range(2))]
    lines += [_cut("random", s, i, 4.1 + i) for s in range(2) for i in range(5)]
    assert _seen(lines, "a") == [HOLDS]
    assert _seen([*lines, _cut("random", 1, 3, 3.99)], "a") == [FAILS]
    assert _seen(lines[:-5], "a") == [HOLDS], "a seed without all its random cuts does not count"


def test_the_twin_grows_until_it_catches_up_or_has_the_teachers_tokens() -> None:
    child = [*_swept("importance-kd", 3.5, 3.5, tokens=SHORT), *_swept("scratch-ce", 5.0, 5.0)]

    class Base:
        result = {"tokens": BASE}

        def tokens(self, share: float) -> int:
            return {SIZE.short: SHORT, SIZE.students: TOKENS}[share]

    def due(lines: list[dict[str, Any]]) -> list[tuple[int, float]]:
        found = arms.twin_due(lines, Base(), SIZE, 2)  # type: ignore[arg-type]
        return [(arm.tokens, arm.lr) for arm in found]

    best = SIZE.rates["scratch"][1]
    assert due(child[:3]) == [], "the child is not whole"
    assert due(child) == [(400, best), (400, best / 2)]
    lines = [*child, _arm("scratch-ce", best, 0, 5.0, 400)]
    lines += [_arm("scratch-ce", best / 2, 0, 4.9, 400)]
    assert due(lines) == [(800, best / 2), (800, best / 4)], "the better rate goes on"
    caught = [*lines, *(_arm("scratch-ce", best / k, 0, 3.4, 800) for k in (2, 4))]
    assert due(caught) == []
    assert Found([_base(), *caught]).caught_up() == 800
    for tokens in (800, 1600):
        lines += [_arm("scratch-ce", best / k, 0, 4.5 + 0.01 * k, tokens) for k in (2, 4)]
    assert due(lines) == [(3200, best / 2)], "no second rate behind four times"
    lines += [_arm("scratch-ce", best / 2, 0, 4.0, tokens) for tokens in (3200, 6400)]
    assert due(lines) == [], "12,800 are more than the teacher's"
    assert Found([_base(), *lines]).caught_up() is None
    assert "is not caught up with by a scratch twin within 6.40k" in report.verdict(
        Found([_base(), *lines])
    )


def test_the_search_is_told_by_its_ranks() -> None:
    def candidate(name: str, before: float, *after: float) -> dict[str, Any]:
        rungs = [{"step": 10 * n, "kld": kld} for n, kld in enumerate(after, 1)]
        return {
            "name": name,
            "shape": {"layers": 4},
            "non_embedding_parameters": 5,
            "zero_shot": {"kld": before},
            "rungs": rungs,
        }

    tried = [candidate(str(n), n, 9 - n, after) for n, after in enumerate((2, 3, 1, 4))]
    line = {
        "part": "search",
        "name": "search",
        "candidates": [*tried, candidate("broke down", 0.5)],
        "ranks": {"by_rung": [{"step": 20, "spearman": 0.4}], "flips": [["a", "b"]]},
        "counted": 77,
        "winner": "2",
        "winner_test": 3.2,
    }
    found = Found([_base(), line])
    assert [c["name"] for c in found.candidates()] == ["2", "0", "1", "3"]
    assert found.rank_correlation() == pytest.approx(1 - 6 * (1 + 1 + 4 + 0) / (4 * 15))
    assert _seen([_base(), line], "f") == [MISSING], "twelve are asked for"
    told = report.search_table(found)
    assert "| 2 | 5 | 2.000 | 7.000 | 1.000 | 3 | 1 |" in told
    assert "1 of 6 pairs change places" in told


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> prepare.Base:
    return prepare.tiny(tmp_path_factory.mktemp("tiny"))


def test_the_whole_experiment_at_its_smallest(
    tmp_path: Path, base: prepare.Base, capsys: pytest.CaptureFixture[str]
) -> None:
    students = prepare.Students(base, tmp_path / "work", prepare.TINY)
    results = tmp_path / "results.jsonl"
    run.run(students, results, run.PARTS, 1)
    lines = results.read_text().splitlines()
    # A kill in the middle of a line costs that line's scoring, not its training.
    torn = max(i for i, line in enumerate(lines) if json.loads(line)["part"] == "arm")
    results.write_text("\n".join(lines[:torn]) + "\n" + lines[torn][:40])
    capsys.readouterr()
    run.run(students, results, run.PARTS, 1)
    again = capsys.readouterr().out.splitlines()
    assert len(again) == len(lines) - torn <= 3, "nothing else is done again"
    found = arms.read_of(results, students.key)
    assert found[torn] == json.loads(lines[torn])
    kinds = [line["part"] for line in found]
    assert (kinds.count("base"), kinds.count("speed"), kinds.count("search")) == (1, 1, 1)
    assert kinds.count("zero") == 1 + 2 + 1 + 9
    _the_arms_are_what_they_say(found, students)
    report.write(found, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("<!-- verdict -->\n**Of the claims below, ")
    assert "not measured yet" not in page.lower()
    for name in ("arms", "ranks", "tokens"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg xmlns=")
    assert report.of_last_base([{"base": "other"}, *found]) == found


def _the_arms_are_what_they_say(found: list[dict[str, Any]], students: prepare.Students) -> None:
    by_name = {line["name"]: line for line in found}
    teacher, base, work = by_name["base"], students.base, students.work
    tokens = teacher["student_tokens"]
    equal = [line for line in found if line["part"] == "arm" and line["tokens"] == tokens]
    assert {line["method"] for line in equal} == set(arms.METHODS)
    assert tokens <= 0.1 * teacher["tokens"]
    assert max(line["steps"] for line in equal) <= 0.1 * teacher["steps"]
    # What the arms without a teacher get more is what the teacher cost the others.
    kd = next(line for line in equal if line["method"] == "importance-kd")
    ce = next(line for line in found if line.get("tokens") == teacher["equal_compute_tokens"])
    step = ce["flops"] / ce["tokens"] * base.batch
    assert kd["flops"] - step < ce["flops"] <= kd["flops"]
    # The search's winner is trained as the child is: equal shapes would be equal models.
    search = by_name["search"]
    assert all(len(one["rungs"]) == 3 for one in search["candidates"]), "none is dropped"
    # Both lessons begin with the same student.
    fresh = load(work / "fresh-0")
    assert not (work / "fresh-0/model.safetensors").samefile(
        work / "pruned-importance-0/export/model.safetensors"
    )
    assert fresh.config == load(work / "pruned-importance-0").config
    verbs = {
        method: arms.settings(arms.Arm(method, 1024, 1e-3, 0), students) for method in arms.METHODS
    }
    assert verbs["scratch-kd"][1]["student"] == verbs["scratch-ce"][1]["model"]
    assert verbs["importance-kd"][1]["student"] == verbs["importance-ce"][1]["model"]
    for _, given in verbs.values():
        assert (given["data"], given["train"]) == tuple(
            verbs["importance-kd"][1][key] for key in ("data", "train")
        )
    # A score is the plain mean over the test text.
    model = load(work / kd["name"])
    nats = count = 0.0
    for shard in ShardSet.open(base.shards / "shards", "test").values():
        for batch in evaluation_batches(shard, base.sequence, 1, prepare.TINY.score_tokens):
            with torch.no_grad():
                logs = torch.log_softmax(model(batch.tokens)[0].double(), -1)
            kept = batch.targets[0] >= 0
            picked = logs[kept].gather(1, batch.targets[0][kept][:, None])
            nats, count = nats - float(picked.sum()), count + int(kept.sum())
    assert kd["test"] == pytest.approx(nats / count, rel=1e-5)


def test_another_process_at_work_is_waited_for(
    tmp_path: Path, base: prepare.Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = prepare.Students(base, tmp_path / "work", prepare.TINY)
    results, tries = tmp_path / "results.jsonl", {"line": 0, "shape": 0}

    def busy(what: str, made: Any) -> Any:
        tries[what] += 1
        if tries[what] < 3:
            raise BusyError("run folder is in use")
        return made

    line = {"part": "base", "name": "base", "test": 1.0}
    monkeypatch.setattr(arms, "teacher", lambda students: busy("line", line))
    shape = property(lambda students: busy("shape", base.shape))
    monkeypatch.setattr(prepare.Students, "config", shape)
    run.run(students, results, ("compute",), 1, poll_s=0.0)
    assert min(tries.values()) >= 3
    assert [line["name"] for line in arms.read_of(results, students.key)] == ["base"]


def test_the_plan_counts_what_is_left(tmp_path: Path, base: prepare.Base) -> None:
    students = prepare.Students(base, tmp_path / "work", prepare.TINY)
    told = estimate.plan([], students, ("arms", "twin"), 3)
    assert f"arms: {5 * (2 + 2)} runs" in told
    tokens = base.tokens(prepare.TINY.students)
    done = [_arm("importance-kd", lr, 0, 1.0, tokens) for lr in prepare.TINY.rates["pruned"]]
    left = estimate.expected(done, students, ("arms",), 3)["arms"]
    assert left.count(("kd", tokens)) == 2 + 4 + 4
    assert left.count(("ce", tokens)) == 4 + 4


def test_nothing_begins_while_the_pause_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = tmp_path / "pause"
    pause.touch()
    monkeypatch.setenv("REGROW_PAUSE_FILE", str(pause))
    monkeypatch.setattr("time.sleep", lambda seconds: pause.unlink())
    run.wait()
    assert "waiting for" in capsys.readouterr().out
    assert not pause.exists()


def test_a_base_that_is_not_there_is_said_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["--base", str(tmp_path / "none"), "--results", str(tmp_path / "r.jsonl")])
    assert stopped.value.code == 2
    assert "regrow grow recipes/base.yaml" in capsys.readouterr().err
