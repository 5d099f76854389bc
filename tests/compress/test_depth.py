"""Which layers go: rules, and losses and accuracies of the model without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.compress.depth import depth_problems, kept_layers, layer_blocks, removals
from regrow.compress.depth_config import DepthConfig
from regrow.compress.prune_config import PruneConfig
from regrow.compress.slicing import Keep, cut
from regrow.compress.sweep import Sweep, trimmed
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.run import Run
from regrow.data.loader import Loader, Phase
from regrow.data.shards import ShardSet
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import MambaConfig, ModelConfig
from tests.compress.makers import save_model, small
from tests.model.makers import ours, tokens

HYBRID = "M-*M-*-M"


def hybrid(**changes: Any) -> ModelConfig:
    shape = {
        "pattern": HYBRID, "layers": 8, "hidden_size": 24, "heads": 4, "vocab_size": 61,
        "mamba": MambaConfig(state=4, head_dim=6, heads=8, groups=2),
    }  # fmt: skip
    return ModelConfig(**{**shape, **changes})


def fixed(costs: dict[tuple[int, ...], float]) -> Any:
    return lambda runs: [costs[run] for run in runs]


def test_the_cheapest_run_or_the_cheapest_layers_go() -> None:
    source = small(layers=6)
    runs = {(1, 2): 0.6, (2, 3): 0.3, (3, 4): 0.5}
    assert kept_layers(source, 4, fixed(runs), DepthConfig()) == (0, 1, 4, 5)
    alone = {(1,): 0.5, (2,): 0.1, (3,): 0.4, (4,): 0.2}
    independent = DepthConfig(rule="independent")
    assert kept_layers(source, 4, fixed(alone), independent) == (0, 1, 3, 5)
    ends = {(0,): 0.0, **alone, (5,): 0.05}
    both = DepthConfig(rule="independent", allow_ends=True)
    assert kept_layers(source, 4, fixed(ends), both) == (1, 2, 3, 4)
    assert kept_layers(source, 6, fixed({}), DepthConfig()) == tuple(range(6))
    # Of equal ones the first run goes.
    assert kept_layers(source, 4, fixed(dict.fromkeys(runs, 1.0)), DepthConfig()) == (0, 3, 4, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8), st.sampled_from(["contiguous", "independent"]), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip
def test_whatever_goes_keeps_the_rules(count: int, rule: Any, ends: bool, seed: int) -> None:
    source, depth = hybrid(), DepthConfig(rule=rule, allow_ends=ends)
    problems = depth_problems(source, count, depth)
    draw = torch.Generator().manual_seed(seed)

    def damage(runs: list[tuple[int, ...]]) -> list[float]:
        return torch.rand(len(runs), generator=draw).tolist()

    if problems:
        with pytest.raises(ConfigError, match="nearest legal layers"):
            kept_layers(source, count, damage, depth)
        # Without the ends two blocks and an attention block stay, or a run that has all of them.
        assert count < (1 if ends else 3) or rule == "contiguous"
        return
    kept = kept_layers(source, count, damage, depth)
    assert len(kept) == count
    assert any(HYBRID[block] == "*" for block in kept)
    assert ends or {0, 7} <= set(kept)
    gone = sorted(set(range(8)) - set(kept))
    if rule == "contiguous" and gone:
        assert gone == list(range(gone[0], gone[-1] + 1))


def test_what_cannot_be_left_names_the_nearest_that_can() -> None:
    (problem,) = depth_problems(small(), 1, DepthConfig())
    assert "the first and the last always do" in problem
    assert problem.endswith("nearest legal layers: 2 or 3")
    assert not depth_problems(small(), 1, DepthConfig(allow_ends=True))
    # 2 of M*M would be the ends alone, and NemotronH needs the attention block between them.
    (problem,) = depth_problems(hybrid(pattern="M*M", layers=3), 2, DepthConfig())
    assert "nemotron_h needs a block" in problem
    assert problem.endswith("nearest legal layers: 3")
    assert removals(hybrid(pattern="M*M-", layers=4), 3, DepthConfig()) == [(2,)]


@pytest.mark.parametrize("pattern", ["", HYBRID])
def test_the_model_without_layers_is_the_model_cut_without_them(pattern: str) -> None:
    config = hybrid() if pattern else small()
    model = ours(**config.model_dump(exclude={"layout"}))
    ids = tokens(model.config, 2, 9)
    everything = Keep.all_of(model.config)
    for gone in ((1, 2), (0,), (3,), ()):
        kept = tuple(n for n in everything.layers if n not in gone)
        groups = layer_blocks(model.config)
        blocks = {block for layer in kept for block in groups[layer]}
        lists = {
            name: {b: v for b, v in getattr(everything, name).items() if b in blocks}
            for name in ("neurons", "heads", "kv_heads", "mamba_heads", "mamba_channels")
        }
        child = cut(model, Keep(kept, everything.hidden, **lists))
        view = trimmed(model, gone)
        assert view.config == child.config
        assert torch.equal(view(ids), child(ids))
        assert view.embed is model.embed


def test_a_sweep_goes_on_where_it_was_and_loads_nothing_when_all_is_known(tmp_path: Path) -> None:
    model, asked = ours(layers=4), []

    def measure(view: Any, name: str) -> float:
        asked.append(name)
        assert not view.training
        assert not torch.is_grad_enabled()
        return float(len(view.blocks))

    def stop(done: int, total: int) -> None:
        assert total == 4
        if done == 2 and len(asked) == 2:
            raise Interrupted("stop")

    runs = [(1,), (2,), (1, 2)]
    with pytest.raises(Interrupted):
        Sweep(lambda: model, measure, tmp_path / "depth.json", stop)(runs)
    assert asked == ["none", "1"]
    assert json.loads((tmp_path / "depth.json").read_text()) == {"none": 8.0, "1": 6.0}
    again = Sweep(lambda: model, measure, tmp_path / "depth.json")
    assert again(runs) == [6.0, 6.0, 4.0]
    assert asked == ["none", "1", "2", "1-2"]

    def never() -> Any:
        raise AssertionError("nothing is left to measure")

    assert Sweep(never, measure, tmp_path / "depth.json")(runs) == [6.0, 6.0, 4.0]
    assert model.training


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep") / "export"
    save_model(
        folder, tokenizer, layers=4, hidden_size=32, heads=4, kv_heads=2, intermediate_size=40
    )
    return folder


def prune(base: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    config = load_config(PruneConfig, base={"model": str(base), **settings})
    return execute("prune", config, folder, quiet=True)


def test_layers_go_by_the_loss_without_them(base: Path, shards: Path, tmp_path: Path) -> None:
    """No scores are needed; each loss is that of the model cut by hand, in plain torch."""
    settings = {
        "shape": {"layers": 3}, "shards": str(shards), "sequence": 32,
        "depth": {"samples": 10},
    }  # fmt: skip
    result = prune(base, tmp_path / "run", **settings)
    assert result["shape"]["layers"] == 3
    costs = json.loads((tmp_path / "run" / "depth.json").read_text())
    assert set(costs) == {"none", "1", "2"}
    train = dict(ShardSet.open(shards / "shards", "train"))
    weights = {name: float((shard.num_tokens - 1) // 32) for name, shard in train.items()}
    batch = Loader(train, [Phase("depth", weights, 10)], 32, 0).batch(0, 10)
    model = regrow.load(base).eval()
    for name, gone in (("none", ()), ("1", (1,)), ("2", (2,))):
        with torch.no_grad():
            logits = trimmed(model, gone)(batch.tokens)
        expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        assert costs[name] == pytest.approx(float(expected), rel=1e-5)
    record = json.loads((tmp_path / "run" / "export" / "compress.json").read_text())
    gone = min(("1", "2"), key=lambda name: costs[name])
    assert record["kept"]["layers"] == [n for n in range(4) if n != int(gone)]
    assert result["dropped_layers"] == [int(gone)]


def test_an_interrupted_prune_keeps_what_it_has_tried(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "shape": {"layers": 2}, "shards": str(shards), "sequence": 32,
        "depth": {"samples": 4, "rule": "independent"},
    }  # fmt: skip
    expected = prune(base, tmp_path / "whole", **settings)
    status = Run.status

    def interrupt(self: Run, state: str = "running", **fields: Any) -> None:
        status(self, state, **fields)
        self.stop_requested |= fields.get("removals") == "1/3"

    monkeypatch.setattr(Run, "status", interrupt)
    with pytest.raises(Interrupted, match="2 of 3 removals"):
        prune(base, tmp_path / "run", **settings)
    monkeypatch.undo()
    before = json.loads((tmp_path / "run" / "depth.json").read_text())
    assert set(before) == {"none", "1"}
    assert not (tmp_path / "run" / "export").exists()
    found = prune(base, tmp_path / "run", **settings)
    assert found["weights_sha256"] == expected["weights_sha256"]
    whole = json.loads((tmp_path / "whole" / "depth.json").read_text())
    assert json.loads((tmp_path / "run" / "depth.json").read_text()) == whole


def test_layers_go_by_a_task(base: Path, tmp_path: Path) -> None:
    settings = {
        "shape": {"layers": 3},
        "depth": {"task": "mqar", "limit": 5, "rule": "independent"},
    }
    result = prune(base, tmp_path / "run", **settings)
    assert result["shape"]["layers"] == 3
    costs = json.loads((tmp_path / "run" / "depth.json").read_text())
    assert set(costs) == {"none", "1", "2"}
    figures = json.loads((tmp_path / "run" / "depth" / "1" / "mqar.json").read_text())
    assert figures["n"] == 5
    assert -costs["1"] in figures.values()


def test_layers_that_are_named_go(base: Path, tmp_path: Path) -> None:
    result = prune(base, tmp_path / "run", depth={"drop": [0, 2]})
    record = json.loads((tmp_path / "run" / "export" / "compress.json").read_text())
    assert record["kept"]["layers"] == [1, 3]
    model, child = regrow.load(base), regrow.load(tmp_path / "run" / "export")
    ids = tokens(model.config, 1, 9)
    assert torch.equal(child(ids), trimmed(model, (0, 2))(ids))
    assert result["shape"]["layers"] == 2
    assert result["dropped_layers"] == [0, 2]
    with pytest.raises(ConfigError, match=r"depth.drop: \[4\] of 4 layers; use 0 .. 3"):
        prune(base, tmp_path / "other", depth={"drop": [1, 4]})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depth": {"drop": [2, 1]}}, "layers that go: 1, 2"),
        ({"shape": {"layers": 3}, "selection": "random"}, "layers that go: drawn at random"),
        (
            {"shape": {"layers": 3}, "shards": True, "sequence": 32, "depth": {"samples": 10}},
            "layers that go: by loss without them, neighbours",
        ),
        ({"shape": {"hidden_size": 24}, "selection": "random"}, None),
    ],
)
def test_the_plan_tells_what_layers_go_by(
    settings: dict[str, Any], told: str | None, base: Path, shards: Path
) -> None:
    if settings.get("shards"):
        settings = {**settings, "shards": str(shards)}
    made = get_verb("prune").plan(load_config(PruneConfig, base={"model": str(base), **settings}))
    assert [note for note in made.notes if note.startswith("layers that go")] == [told] * bool(told)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": {"layers": 3}}, "scores is missing"),
        ({"shape": {"layers": 3}, "depth": {"metric": "ppl"}}, "give shards"),
        ({"shape": {"layers": 3}, "depth": {"metric": "task"}}, "needs a task"),
        ({"shape": {"layers": 3}, "depth": {"task": "no_such"}}, "no_such"),
        ({"shape": {"layers": 3}, "depth": {"limit": 4}}, "no effect without a task"),
        ({"shape": {"layers": 3}, "depth": {"drop": [1]}}, "say the same"),
        ({"depth": {"drop": [1, 1]}}, "twice"),
        ({"depth": {"drop": [1], "metric": "bi"}}, "no effect with drop"),
        ({"budget": {"parameters": 0.5}, "depth": {"drop": [1]}}, "not both"),
        ({"shape": {"heads": 2}, "selection": "random", "head_merge": "residual"}, "no effect"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PruneConfig, base={"model": "m", **settings})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": {"samples": 10**6}}, "use fewer or a shorter sequence"),
        ({"sequence": 4096}, "max_positions 256"),
    ],
)
def test_text_that_does_not_suffice_is_known_before_anything_is_tried(
    base: Path, shards: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        prune(base, tmp_path / "run", shape={"layers": 3}, shards=str(shards), **settings)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
