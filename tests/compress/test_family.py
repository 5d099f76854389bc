"""The family verb on a small trained base: search, chain, costs, resume."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import regrow
from regrow.compress.divergence import Distance
from regrow.compress.family_config import FamilyConfig
from regrow.compress.family_price import recorded_tokens
from regrow.compress.family_record import CANDIDATES
from regrow.compress.family_step import ChildStep
from regrow.compress.family_trials import Lockstep
from regrow.compress.jobs.family import TRIALS_LOG
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.core.lineage import tree
from regrow.data.loader import IGNORED, evaluation_batches
from regrow.data.shards import ShardSet
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.model.shapes import flops_per_token, forward_flops_per_token, non_embedding_parameters
from regrow.search.log import TrialLog
from regrow.train.config import PretrainConfig
from regrow.train.trainer import Trainer
from tests.compress.family_makers import family_config, pretrained, without_times


@pytest.fixture(scope="module")
def base(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(tmp_path_factory.mktemp("base") / "base", shards)


@pytest.fixture(scope="module")
def made(base: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = family_config(base, shards)
    return execute("family", config, tmp_path_factory.mktemp("family") / "run", quiet=True)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / CANDIDATES).read_text().splitlines()]


def test_children_hold_their_budgets_and_load(made: dict[str, Any], base: Path) -> None:
    folder = Path(made["run"])
    whole = non_embedding_parameters(regrow.load(base).config)
    for name, share in (("half", 0.5), ("third", 0.3)):
        child = made["children"][name]
        model = regrow.load(folder / name)
        assert sum(p.numel() for p in model.parameters()) == child["parameters"]
        assert child["non_embedding_parameters"] == pytest.approx(share * whole, rel=0.1)
        assert {k: getattr(model.config, k) for k in child["shape"]} == child["shape"]
        assert child["conditions"] == {
            "latency": "decode", "sequence": 256, "batch": 1, "dtype": "bf16"
        }  # fmt: skip
        assert (folder / name / "report.html").exists()
    assert made["children"]["third"]["source"] == str(folder / "half" / "export")


def test_halving_drops_the_worse_half_and_keeps_the_best(made: dict[str, Any]) -> None:
    found = records(Path(made["run"]))
    assert [r["child"] for r in found] == ["half"] * 3 + ["third"] * 3
    for name in ("half", "third"):
        mine = [r for r in found if r["child"] == name]
        assert all(r["zero_shot"]["kld"] > 0 for r in mine)
        first = sorted(mine, key=lambda r: r["rungs"][0]["kld"])
        assert all(r["rungs"][0]["step"] == 2 for r in mine)
        assert first[2]["status"] == "dropped at step 2"
        second = sorted(first[:2], key=lambda r: r["rungs"][1]["kld"])
        assert second[0]["status"] == "winner"
        assert second[1]["status"] == "dropped at step 4"
        assert [r["rank"] for r in (*second, first[2])] == [1, 2, 3]
        assert second[0]["name"] == made["children"][name]["winner"]
        assert len({tuple(r["shape"].items()) for r in mine}) == 3


def test_scores_are_the_divergence_from_the_original(
    made: dict[str, Any], base: Path, shards: Path
) -> None:
    """``kld`` of both children against softmaxes of whole logits, in float64."""
    teacher = regrow.load(base).double()
    for name in ("half", "third"):
        student = regrow.load(Path(made["run"]) / name).double()
        total, nats, count = 0.0, 0.0, 0
        for shard in ShardSet.open(shards, "validation").values():
            for batch in evaluation_batches(shard, 32, 8, 256):
                with torch.no_grad():
                    ours = student(batch.tokens).log_softmax(-1)
                    theirs = teacher(batch.tokens).log_softmax(-1)
                real = batch.targets != IGNORED
                total += float((theirs.exp() * (theirs - ours)).sum(-1)[real].sum())
                picked = ours.gather(-1, batch.targets.clamp(min=0)[..., None]).squeeze(-1)
                nats -= float(picked[real].sum())
                count += int(real.sum())
        child = made["children"][name]
        assert child["kld"] == pytest.approx(total / count, rel=1e-4)
        assert child["loss"] == pytest.approx(nats / count, rel=1e-4)


def test_the_whole_cost_is_told(made: dict[str, Any], base: Path, shards: Path) -> None:
    """Against a count by hand, from the log of the trials."""
    folder = Path(made["run"])
    teacher = regrow.load(base).config
    sequence, batch, scored = 32, 128, 2 * 256
    forward = forward_flops_per_token(teacher, sequence)
    head = 2 * teacher.vocab_size * teacher.hidden_size
    log = [record for _, record in TrialLog(folder / TRIALS_LOG)]
    whole = 0
    for name, source in (("half", base), ("third", folder / "half")):
        cut = regrow.load(source).config
        shapes = {
            key: cut.replace(**{k: v for k, v in point.items() if v != getattr(cut, k)})
            for record in log
            if record["point"]["child"] == name
            for point in [{k: v for k, v in record["point"].items() if k != "child"}]
            for key in [json.dumps(point)]
        }
        trained = dict.fromkeys(shapes, 0)
        scoring, rungs = 0, set()
        for record in log:
            if record["point"]["child"] != name:
                continue
            key = json.dumps({k: v for k, v in record["point"].items() if k != "child"})
            trained[key] = max(trained[key], record["resource"])
            scoring += scored * forward_flops_per_token(shapes[key], sequence)
            rungs.add(record["resource"])
        scoring += scored * forward * (len(rungs) + 1)
        winner = regrow.load(folder / name).config
        scoring += scored * forward_flops_per_token(winner, sequence)
        steps = sum(trained.values())
        trials = sum(n * batch * flops_per_token(shapes[k], sequence) for k, n in trained.items())
        taught = max(trained.values()) * batch * (forward - head) + steps * batch * head
        measured = (
            16
            * 32
            * (forward_flops_per_token(cut, sequence) - 2 * cut.vocab_size * cut.hidden_size)
        )
        child = made["children"][name]
        assert child["trial_tokens"] == steps * batch
        assert child["scoring_flops"] == scoring
        assert child["trial_flops"] == trials
        assert child["trial_teacher_flops"] == taught
        assert child["importance_flops"] == measured
        assert child["search_flops"] == scoring + trials + taught + measured
        assert child["retraining_flops"] == 1024 * flops_per_token(winner, sequence)
        assert child["teacher_flops"] == 1024 * forward
        whole += child["search_flops"] + 1024 * (flops_per_token(winner, sequence) + forward)
    assert made["flops"] == whole
    assert made["tokens"] == made["trial_tokens"] + 2 * 1024
    scratch = recorded_tokens(base)
    assert scratch == 8192
    assert made["whole"]["family_flops"] == scratch * flops_per_token(teacher, sequence) + whole


def test_only_what_may_be_needed_stays(made: dict[str, Any]) -> None:
    folder = Path(made["run"])
    trials = sorted((folder / "search").glob("*/trials/*"))
    assert len(trials) == 6
    for trial in trials:
        assert (trial / "config.yaml").exists()
        assert not (trial / "checkpoints").exists()
        assert not (trial / "cut").exists()


def test_the_tree_has_the_winners(made: dict[str, Any], base: Path) -> None:
    folder = Path(made["run"])
    found = {str(node.path.relative_to(folder)) for node in _all(tree(folder)) if node.parent}
    assert {"half", "third", "third/pruned"} <= found
    assert not [path for path in found if "/trials/" in path]


def _all(nodes: list[Any]) -> list[Any]:
    return [n for node in nodes for n in (node, *_all(node.children))]


def test_rank_flips_are_told(made: dict[str, Any]) -> None:
    for name in ("half", "third"):
        mine = [r for r in records(Path(made["run"])) if r["child"] == name]
        before = sorted(mine, key=lambda r: r["zero_shot"]["kld"])
        told = made["children"][name]["ranks"]
        pairs = [
            [a["name"], b["name"]]
            for i, a in enumerate(before)
            for b in before[i + 1 :]
            if a["rank"] > b["rank"]
        ]
        assert sorted(told["flips"]) == sorted(pairs)
        assert told["kendall"] == pytest.approx(1 - 2 * len(pairs) / 3)
        assert [rung["candidates"] for rung in told["by_rung"]] == [3, 2]


@pytest.mark.parametrize("where", ["trials", "retraining", "second"])
def test_a_family_that_broke_off_ends_the_same(
    base: Path, shards: Path, made: dict[str, Any], tmp_path: Path, where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "again"
    plain = Trainer._one_step
    steps = {"trials": 4, "retraining": 9, "second": 13}[where]
    count = 0

    def step(self: Trainer, progress: Any) -> None:
        nonlocal count
        final = "trials" not in self.run.path.parts
        count += where == "trials" or final
        if count > steps:
            raise RuntimeError("power cut")
        plain(self, progress)

    config = family_config(base, shards)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", step)
        with pytest.raises(RuntimeError, match="power cut"):
            execute("family", config, folder, quiet=True)
    before = dict(TrialLog(folder / TRIALS_LOG))
    again = execute("family", config, folder, quiet=True)
    assert without_times(again, folder) == without_times(made, Path(made["run"]))
    after = dict(TrialLog(folder / TRIALS_LOG))
    assert before.items() <= after.items()
    assert after == dict(TrialLog(Path(made["run"]) / TRIALS_LOG))
    assert records(folder) == records(Path(made["run"]))


def test_candidates_share_the_teachers_passes(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three candidates of 4, 4 and 2 steps: the teacher reads four batches, results stay."""
    results = []
    plain = ChildStep.lockstep
    for name, shared in (("together", True), ("alone", False)):
        seen: list[Any] = []

        def spy(self: ChildStep, device: Any, shared: bool = shared, seen: Any = seen) -> Any:
            lockstep = plain(self, device)
            if not shared:
                lockstep.teacher.capacity = 0
            seen.append(lockstep.teacher)
            return lockstep

        with monkeypatch.context() as patch:
            patch.setattr(ChildStep, "lockstep", spy)
            config = family_config(base, shards, children={"half": {"budget": BUDGET}})
            execute("family", config, tmp_path / name, quiet=True)
        results.append((seen[0].passes, dict(TrialLog(tmp_path / name / TRIALS_LOG))))
    micro_batches = 128 // (2 * 32)
    assert results[0][0] == 4 * micro_batches
    assert results[1][0] == (4 + 4 + 2) * micro_batches
    assert results[0][1] == results[1][1]


BUDGET = {"non_embedding_parameters": 0.5, "tolerance": 0.1, "hidden_align": 8, "mlp_align": 8}


def test_a_candidate_that_diverges_is_no_winner(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regrow.train import trainer

    plain = Trainer._one_step
    victim: list[str] = []

    def step(self: Trainer, progress: Any) -> None:
        if "trials" in self.run.path.parts and self.step == 1:
            victim.append(self.run.path.name)
            if self.run.path.name == victim[0]:
                raise trainer.RunError("step 1: the loss is not finite")
        plain(self, progress)

    monkeypatch.setattr(Trainer, "_one_step", step)
    config = family_config(base, shards, children={"half": {"budget": BUDGET}})
    result = execute("family", config, tmp_path / "r", quiet=True)
    found = {r["name"]: r for r in records(tmp_path / "r")}
    assert found[victim[0]]["status"] == "failed"
    assert found[victim[0]]["rank"] == 3
    assert result["children"]["half"]["winner"] != victim[0]


def test_a_candidate_whose_logits_overflow_has_failed(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Lockstep.score

    def score(self: Lockstep, models: Sequence[Any]) -> list[Distance]:
        found = plain(self, models)
        return [Distance(math.nan, math.nan), *found[1:]] if len(found) > 1 else found

    monkeypatch.setattr(Lockstep, "score", score)
    config = family_config(base, shards, children={"half": {"budget": BUDGET}})
    result = execute("family", config, tmp_path / "r", quiet=True)
    first, *others = records(tmp_path / "r")
    assert first["status"] == "failed"
    assert first["rank"] == 3
    assert first["zero_shot"] is None
    assert result["children"]["half"]["winner"] in [r["name"] for r in others]


def test_one_candidate_needs_no_trials(base: Path, shards: Path) -> None:
    """Then it does not matter whether the tokens of a trial are enough for one."""
    config = family_config(
        base,
        shards,
        children={"half": {"budget": BUDGET}},
        candidates=1,
        trial={"tokens": 64, "score_tokens": 256},
    )
    assert config.trial.tokens < config.train.batch_tokens
    made = get_verb("family").plan(config)
    assert made.figures["tokens"] == config.train.tokens


def test_a_given_shape_is_just_made(base: Path, shards: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 24, "intermediate_size": 40}
    config = family_config(base, shards, children={"small": {"shape": shape}})
    made = get_verb("family").plan(config)
    result = execute("family", config, tmp_path / "r", quiet=True)
    child = result["children"]["small"]
    assert shape.items() <= child["shape"].items()
    assert child["trial_tokens"] == child["trial_flops"] == 0
    assert child["ranks"]["spearman"] is None
    assert made.figures["flops"] == result["flops"]
    (record,) = records(tmp_path / "r")
    assert record["status"] == "winner"
    assert record["zero_shot"]["kld"] > child["kld"]


def test_children_can_all_be_cut_from_the_original(
    base: Path, shards: Path, tmp_path: Path
) -> None:
    children = {
        "a": {"shape": {"hidden_size": 40}},
        "b": {"budget": {**BUDGET, "non_embedding_parameters": 0.3, "sequence": 64}},
    }
    config = family_config(base, shards, children=children, cut_from="original", candidates=1)
    result = execute("family", config, tmp_path / "r", quiet=True)
    assert {c["source"] for c in result["children"].values()} == {str(base / "export")}
    # Their memory is of different sequences, so on no front it is compared.
    sequences = [c["conditions"]["sequence"] for c in result["children"].values()]
    assert sequences == [256, 64]
    assert {on for point in result["pareto"] for on in point["front"]} == {"parameters", "all"}


def test_a_pretraining_can_take_the_shape_of_a_child(
    made: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    folder = Path(made["run"]) / "third"
    config = load_config(
        PretrainConfig,
        base={
            "model": {"like": str(folder), "init_std": 0.04},
            "data": {"shards": str(shards), "sequence": 32},
            "train": {"tokens": 256, "batch_tokens": 128, "micro_batch": 2},
        },
    )
    result = execute("pretrain", config, tmp_path / "twin", quiet=True)
    child, twin = regrow.load(folder).config, regrow.load(tmp_path / "twin").config
    assert result["parameters"] == made["children"]["third"]["parameters"]
    assert twin == child.replace(init_std=0.04)
    roles = {i["role"] for i in json.loads((tmp_path / "twin" / "inputs.json").read_text())}
    assert "shape" in roles
    shutil.copytree(folder / "export", tmp_path / "gone")
    missing = config.model_copy(
        update={"model": config.model.model_copy(update={"like": tmp_path / "nothing"})}
    )
    with pytest.raises(InputError, match="no such path"):
        get_verb("pretrain").plan(missing)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"children": {"search": {"budget": BUDGET}}}, "children.search: not a name"),
        ({"children": {"a": {}}}, "give one of budget, shape, not none"),
        (
            {"children": {"a": {"budget": {**BUDGET, "non_embedding_parameters": 0.01}}}},
            "children.a.budget.non_embedding_parameters: no legal shape",
        ),
        (
            {"children": {"a": {"shape": {"hidden_size": 400}}}},
            "children.a.shape.hidden_size: 400 is more than the 48",
        ),
        ({"trial": {"tokens": 256}}, "trial.tokens: 256 are 2 steps"),
        ({"children": {"a": {"shape": {"layers": 2}}}, "candidates": 3}, "has no effect"),
        (
            {
                "children": {
                    "small": {"budget": {**BUDGET, "non_embedding_parameters": 0.4}},
                    "large": {"budget": {**BUDGET, "non_embedding_parameters": 0.9}},
                }
            },
            "more than the",
        ),
        (
            {
                "children": {
                    "small": {"budget": {**BUDGET, "non_embedding_parameters": 0.4}},
                    "large": {"budget": {**BUDGET, "non_embedding_parameters": 0.9}},
                }
            },
            "from the largest to the smallest, or set cut_from=original",
        ),
        ({"samples": 100_000}, "use fewer"),
        ({"depth": {"drop": [1]}}, "depth.drop names layers of one cut"),
        ({"top_k": 100_000}, "top_k: 100000 of "),
        (
            {"children": {"a": {"shape": {"layers": 2}}}, "hidden": {"pairs": [[2, 2]]}},
            "student layer 2 is not there; it has 0 to 1",
        ),
        (
            {
                "children": {"a": {"shape": {"layers": 2}}},
                "depth": {"task": "winogrande", "data": "/nowhere"},
            },
            "winogrande.jsonl is missing",
        ),
        (
            {"children": {"a": {"shape": {"layers": 2}}}, "depth": {"samples": 10_000_000}},
            "depth.samples: the train split of",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    base: Path, shards: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, InputError)) as caught:
        execute("family", family_config(base, shards, **settings), tmp_path / "r", quiet=True)
    assert message in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_teacher_of_another_vocabulary_is_refused(
    base: Path, shards: Path, tmp_path: Path
) -> None:
    from tests.compress.makers import save_model

    save_model(tmp_path / "other", None, layers=1, hidden_size=16, heads=2, vocab_size=77)
    with pytest.raises(InputError, match="vocab_size"):
        get_verb("family").plan(family_config(base, shards, teacher=str(tmp_path / "other")))


def test_resolved_settings_read_again_are_the_same(
    base: Path, shards: Path, tmp_path: Path
) -> None:
    config = family_config(base, shards)
    (tmp_path / "c.yaml").write_text(config.as_yaml())
    assert load_config(FamilyConfig, [tmp_path / "c.yaml"]) == config
    assert math.isfinite(config.temperature)
