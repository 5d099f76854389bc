"""What a family costs before it is made, and which shapes it would try."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.cli.main import main
from regrow.compress.family_config import ChildConfig, FamilyConfig
from regrow.compress.family_cost import rung_sizes, step_equivalent
from regrow.compress.family_record import mark_front
from regrow.compress.family_shapes import absolute, short_list, spread
from regrow.compress.prune_config import BudgetTarget, ShapeTarget
from regrow.compress.shape_search import within
from regrow.core.config import config_hash, load_config
from regrow.core.errors import ConfigError, InputError
from regrow.core.plan import Plan
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shapes import non_embedding_parameters, parameters

RECIPE = Path(__file__).parents[2] / "recipes/paper/minitron.yaml"


@pytest.fixture(scope="module")
def published() -> Plan:
    began = time.process_time()
    made = get_verb("family").plan(load_config(FamilyConfig, [RECIPE]))
    assert time.process_time() - began < 2
    return made


def test_the_published_price(published: Plan) -> None:
    """By the paper's figures: 4.4e17, 2.5e17 and 1.2e17 FLOPs a step, children at 1/40."""
    price = published.figures["step_equivalent"]
    assert price["token_ratio"] == 40
    assert price["scratch_flops"] == pytest.approx(8.1e17, rel=0.005)
    assert price["family_flops"] == pytest.approx(4.4925e17, rel=0.01)
    assert round(price["ratio"], 2) == 1.8
    told = "\n".join(published.notes)
    assert "8.1e17 against 4.4925e17 FLOPs per step-equivalent, 1.80x" in told
    assert "8.13e17 FLOPs from scratch against 4.53e17" in told


def test_each_step_is_the_published_one_in_two_digits() -> None:
    from regrow.model.shapes import flops_per_token

    names = ("nemotron4-15b", "minitron-8b", "minitron-4b")
    steps = [1152 * 4096 * flops_per_token(PRESETS[name], 4096) for name in names]
    assert [f"{step:.1e}" for step in steps] == ["4.4e+17", "2.5e+17", "1.2e+17"]


def test_the_published_shapes(published: Plan) -> None:
    listed = published.figures["short_list"]
    assert listed == {
        "8b": ["L32-d4096-f16384-h48-kv8"],
        "4b": ["L32-d3072-f9216-h24-kv8"],
    }
    told = "\n".join(published.notes)
    for name in ("minitron-8b", "minitron-4b"):
        assert f"{parameters(PRESETS[name]):,}" in told


def test_a_preset_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can be planned, but not run") as caught:
        execute("family", load_config(FamilyConfig, [RECIPE]), tmp_path / "r", quiet=True)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "r").exists()


def test_the_command_prints_the_price(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["family", "--config", str(RECIPE), "--dry-run", "--json"])
    assert end.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert any("1.80x" in note for note in printed["notes"])


@pytest.mark.parametrize(("digits", "family"), [(0, 1234 + (5678 + 999) / 4), (2, 1200 + 6700 / 4)])
def test_a_price_by_the_step(digits: int, family: float) -> None:
    made = step_equivalent(1234, [5678, 999], 1, 4.0, digits)
    assert made.family == pytest.approx(family)
    assert made.ratio == pytest.approx(made.scratch / family)


SOURCE = ModelConfig(
    layers=6, hidden_size=128, intermediate_size=384, heads=8, kv_heads=2, head_dim=16,
    vocab_size=500, layout="mistral",
)  # fmt: skip
AXES = (("hidden", "mlp"), ("hidden", "mlp", "layers"), ("hidden", "mlp", "heads", "layers"))


def places_of(found: Any) -> Any:
    names = ("layers", "hidden_size", "intermediate_size", "heads")
    return np.log(np.stack([getattr(found, name) for name in names], axis=1))


def separation(places: Any) -> float:
    """Distance of the two closest."""
    gaps = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(places, 2)]
    return min(gaps, default=math.inf)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 0.9), st.sampled_from(AXES), st.integers(1, 12))
def test_a_short_list_has_no_near_copies(share: float, axes: Any, count: int) -> None:
    """The most even one first; the closest two within four times of the best list there is."""
    found = within(SOURCE, BudgetTarget(non_embedding_parameters=share, axes=axes))
    rows = spread(found, count)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows[0] == 0
    assert len(rows) == min(count, len(found))
    pool = places_of(found)[: max(4 * count, (len(found) + 1) // 2)]
    ours = separation(pool[rows])
    if count in (2, 3) and len(pool) <= 60:
        best = max(separation(trio) for trio in itertools.combinations(pool, len(rows)))
        assert ours >= best / 4 - 1e-9


def test_ten_of_many_are_farther_apart_than_the_first_ten() -> None:
    budget = BudgetTarget(non_embedding_parameters=0.5, axes=("hidden", "mlp", "heads", "layers"))
    found = within(SOURCE, budget)
    assert len(found) > 50
    rows = spread(found, 10)
    places = places_of(found)
    assert separation(places[rows]) > 2 * separation(places[:10])
    assert all(len(set(places[rows, axis])) > 1 for axis in range(4))


def test_shares_are_of_the_original() -> None:
    budget = BudgetTarget(non_embedding_parameters=0.3)
    half = SOURCE.replace(hidden_size=96, intermediate_size=224)
    number = absolute(budget, SOURCE).non_embedding_parameters
    assert number == round(0.3 * non_embedding_parameters(SOURCE))
    listed = short_list("a", ChildConfig(budget=budget), half, SOURCE, 3)
    for shape in listed.shapes:
        assert non_embedding_parameters(shape) == pytest.approx(number, rel=0.05)


def test_a_list_is_read_as_it_was_written() -> None:
    listed = short_list(
        "a", ChildConfig(budget=BudgetTarget(non_embedding_parameters=0.5)), SOURCE, SOURCE, 4
    )
    assert type(listed).from_decision(listed.as_decision(), SOURCE) == listed


def test_a_budget_on_latency_is_measured_once() -> None:
    from regrow.compress.latency import table_of

    conditions = {"sequence": 16, "dtype": "fp32"}
    whole = table_of(SOURCE, BudgetTarget(parameters=1.0, **conditions)).total_ms(SOURCE)
    budget = BudgetTarget(
        non_embedding_parameters=0.6, axes=("mlp",), latency_ms=3 * whole, **conditions
    )
    listed = short_list("a", ChildConfig(budget=budget), SOURCE, SOURCE, 2)
    assert all(0 < (entry.latency_ms or 0) <= 3 * whole for entry in listed.entries)
    again = type(listed).from_decision(listed.as_decision(), SOURCE)
    assert again == listed


def test_an_impossible_child_is_named() -> None:
    child = ChildConfig(budget=BudgetTarget(non_embedding_parameters=0.001))
    with pytest.raises(ConfigError) as caught:
        short_list("tiny", child, SOURCE, SOURCE, 3)
    assert str(caught.value).splitlines()[1].startswith("  children.tiny.budget.non_embedding")


@pytest.mark.parametrize(
    ("halving", "count", "sizes"),
    [
        (True, 10, [10, 10, 5, 3]),
        (True, 2, [2, 2]),
        (True, 4, [4, 4, 2]),
        (True, 1, [1]),
        (False, 3, [3, 3, 3, 3]),
    ],
)
def test_candidates_of_each_rung(halving: bool, count: int, sizes: list[int]) -> None:
    """The plan counts what the search's own halving does."""
    from regrow.search.halving import Rung, SuccessiveHalving
    from regrow.search.optimiser import Outcome

    config = load_config(
        FamilyConfig,
        base={
            "model": "m",
            "data": {"shards": "s", "sequence": 4},
            "train": {"tokens": 100, "batch_tokens": 4, "micro_batch": 1},
            "trial": {"tokens": 64, "halving": halving},
            "children": {"a": {"budget": {"parameters": 0.5}}},
        },
    )
    assert config.rung_steps == (0, 4, 8, 16)
    assert rung_sizes(config, count) == sizes
    keep = 0.5 if halving else 1.0
    rungs = [Rung(s, k) for s, k in zip(config.rung_steps, (1.0, keep, keep, 1.0), strict=True)]
    search = SuccessiveHalving([{"n": n} for n in range(count)], rungs)
    seen: dict[int, int] = {}
    while asked := search.ask():
        for trial in asked:
            seen[trial.resource] = seen.get(trial.resource, 0) + 1
            search.tell(Outcome(trial, float(trial.point["n"])))
    assert list(seen.values()) == sizes


def settings_of(children: list[str], **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "data": {"shards": "s", "sequence": 4},
        "train": {"tokens": 100, "batch_tokens": 4, "micro_batch": 1},
        "children": {name: {"budget": {"parameters": 0.5}} for name in children},
        **more,
    }


def test_children_in_another_order_are_another_family() -> None:
    """Each is cut from the one before it."""
    one, other = (load_config(FamilyConfig, base=settings_of(n)) for n in (["a", "b"], ["b", "a"]))
    assert config_hash(one) != config_hash(other)
    (line,) = one.differences_from(other.as_json())
    assert line.startswith("order of children")


@pytest.mark.parametrize("name", ["lock", "search", "result.json", "trials.jsonl", "../up", ""])
def test_a_child_is_no_file_of_the_run(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(FamilyConfig, base=settings_of([name]))
    assert "not a name for a folder of the run" in str(caught.value)
    assert load_config(FamilyConfig, base=settings_of(["0.5b"])).children.keys() == {"0.5b"}


def test_processes_that_a_family_cannot_use_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(FamilyConfig, base=settings_of(["a"], parallel={"tp": 2}))
    assert "one process" in str(caught.value)


@pytest.mark.parametrize("metric", ["auto", "bi", "ppl"])
def test_rules_of_depth_stop_no_candidate_that_keeps_its_layers(metric: str) -> None:
    """Metric ppl needs text, which is read only for those that lose some."""
    config = load_config(FamilyConfig, base=settings_of(["a"], depth={"metric": metric}))
    fewer, all_ = (
        config.pruning(Path("m"), Path("scores"), ShapeTarget(hidden_size=8, layers=2), cut)
        for cut in (True, False)
    )
    assert fewer.depth == config.depth
    assert (fewer.shards is not None) == (metric != "bi")
    assert all_.shards is None


def test_fronts_by_each_cost_and_by_all() -> None:
    points = [
        {"name": "a", "loss": 1.0, "parameters": 9, "memory_bytes": 1},
        {"name": "b", "loss": 2.0, "parameters": 5, "memory_bytes": 5},
        {"name": "c", "loss": 3.0, "parameters": 5, "memory_bytes": 9},
        {"name": "d", "loss": 4.0, "parameters": 1, "memory_bytes": 9},
    ]
    assert {p["name"]: p["front"] for p in mark_front(points)} == {
        "a": ["parameters", "memory_bytes", "all"],
        "b": ["parameters", "all"],
        "c": [],
        "d": ["parameters", "all"],
    }
    assert mark_front([]) == []
