"""Batches that grow: against a plain list of them, in phases, in the loop, in the verb."""

from __future__ import annotations

import dataclasses
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.config import load_config
from regrow.core.errors import CheckpointError, ConfigError, InputError
from regrow.core.metrics_log import MetricsLog
from regrow.grow.execute import execute
from regrow.train.batches import Batches
from regrow.train.config import PhaseConfig, PretrainConfig, UntilConfig
from regrow.train.jobs import pretrain
from regrow.train.phases import resolve_phases
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings, Trainer
from tests.train.corpus import write_corpus
from tests.train.fakes import (
    SEQUENCE,
    FakeLoader,
    Predict,
    TinyModel,
    Tokens,
    equal,
    make_run,
    make_settings,
    weights,
    without_times,
)

STAGES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=4)


@given(STAGES, st.integers(0, 2000))
def test_counts_are_those_of_a_plain_list(stages: list[tuple[int, int]], amount: int) -> None:
    batches = Batches(tuple(stages))
    sizes = [size for size, steps in stages for _ in range(steps)]
    assert (batches.steps, batches.total) == (len(sizes), sum(sizes))
    assert [batches.size(step) for step in range(len(sizes))] == sizes
    places = [0, *accumulate(sizes)]
    assert [batches.before(step) for step in range(len(sizes) + 1)] == places
    if amount <= sum(sizes):
        assert batches.steps_to(amount) == next(i for i, at in enumerate(places) if at >= amount)
    else:
        over = batches.steps_to(amount)
        assert batches.before(over) >= amount > batches.before(over - 1)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(30, 300)), max_size=3), st.integers(1, 30)
)
def test_each_stage_ends_with_the_first_step_that_brings_its_tokens(
    ramp: list[tuple[int, int]], last: int
) -> None:
    meant = list(accumulate(tokens for _, tokens in ramp))
    total = (meant[-1] if meant else 0) + 500
    batches = Batches.of(total, last, ramp)
    at = 0
    for (size, steps), end in zip(batches.stages, meant, strict=False):
        at += size * steps
        assert end <= at < end + size  # overshoots do not add up
    assert total - last < batches.total <= total


def test_a_ramp_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 100 of 105 tokens and leaves no step of 10"):
        Batches.of(105, 10, [(5, 100)])
    with pytest.raises(ValueError, match="1 tokens in batches of 7 have no step"):
        Batches.of(1000, 10, [(8, 12), (7, 1)])


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.05, 0.2, 0.5, 0.9])
)
def test_the_blend_changes_before_the_first_step_whose_rate_is_low(
    first: int, second: int, last: int, fraction: float
) -> None:
    batches = Batches.of(400, last, [(first, 60), (second, 90)])
    schedule = Schedule("cosine", 1.0, batches.total, min_ratio=0.01, warmup_tokens=20)
    phases = (
        PhaseConfig(name="a", weights={"x": 1.0}, until=UntilConfig(lr_fraction=fraction)),
        PhaseConfig(name="b", weights={"x": 1.0}),
    )
    resolved = resolve_phases(phases, schedule, batches)
    sizes = [size for size, steps in batches.stages for _ in range(steps)]
    places = list(accumulate(sizes))
    rates = [schedule.lr_at(at) for at in places]
    low = next(s for s, at in enumerate(places) if at >= 20 and rates[s] <= fraction + 1e-12)
    assert resolved[1].first_step == low
    assert resolved[1].first_token == places[low] - sizes[low]
    assert [p.tokens for p in resolved] == [sum(sizes[:low]), sum(sizes[low:])]


def _settings(**changes: Any) -> Settings:
    """4 steps of 4 samples, 3 of 8, 5 of 12."""
    total = (4 * 4 + 3 * 8 + 5 * 12) * SEQUENCE
    given: dict[str, Any] = {
        "schedule": Schedule("cosine", 0.02, total, warmup_tokens=60),
        "steps": 12,
        "batch_samples": 12,
        "ramp": ((4, 4), (8, 3)),
        "micro_batch": 4,
        "phases": (),
        "log_every_steps": 1,
        "eval_every_tokens": 30 * SEQUENCE,
        "save_every_tokens": 20 * SEQUENCE,
    }
    return dataclasses.replace(make_settings(12), **(given | changes))


class Noting(FakeLoader):
    """Remembers which samples were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def batch(self, first: int, count: int) -> Tokens:
        self.seen += range(first, first + count)
        return super().batch(first, count)


def _trainer(path: Path, settings: Settings, loader: FakeLoader | None = None) -> Trainer:
    return Trainer(
        Predict(TinyModel(dropout=0.2)),
        loader or FakeLoader(),
        settings,
        make_run(path),
        evaluate=lambda: {"loss": 1.0},
    )


def test_the_loop_follows_the_ramp(tmp_path: Path) -> None:
    loader = Noting()
    trainer = _trainer(tmp_path / "r", _settings(), loader)
    figures = trainer.train()
    assert loader.seen == list(range(100))  # each sample once, in order
    consumed = [s * SEQUENCE for s in accumulate([4] * 4 + [8] * 3 + [12] * 5)]
    records = [r for r in trainer.run.metrics.read() if "validation" not in r]
    assert [r["tokens"] for r in records] == consumed
    assert [r["lr"] for r in records] == [trainer.settings.schedule.lr_at(t) for t in consumed]
    checked = [r["tokens"] for r in trainer.run.metrics.read() if "validation" in r]
    # Each is the first step that passed a multiple of 30 samples; the last step always.
    assert checked == [n * SEQUENCE for n in (32, 64, 100)]
    assert figures["tokens"] == 100 * SEQUENCE
    assert figures["ledger"] == FakeLoader().ledger(100)


def test_it_is_the_same_training_written_down_plainly(tmp_path: Path) -> None:
    """Whole batches of 4, 8 and 12 samples, mean loss, float64."""
    settings = _settings()
    model = TinyModel().double()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)
    losses, first = [], 0
    for size in [4] * 4 + [8] * 3 + [12] * 5:
        batch = FakeLoader().batch(first, size)
        first += size
        logits = model(batch.tokens).flatten(0, 1)
        loss = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        for group in optimiser.param_groups:
            group["lr"] = settings.schedule.lr_at(first * SEQUENCE)
        optimiser.step()
        losses.append(loss.item())
    trainer = Trainer(Predict(TinyModel()), FakeLoader(), settings, make_run(tmp_path / "r"))
    trainer.train()
    records = trainer.run.metrics.read()
    assert [r["loss"] for r in records] == pytest.approx(losses, abs=1e-5)
    for name, value in model.state_dict().items():
        assert torch.allclose(trainer.module.state_dict()[name].double(), value, atol=1e-4)


@pytest.mark.parametrize("stop", [2, 4, 5, 7, 9])
def test_killed_on_the_ramp_is_the_same(tmp_path: Path, stop: int) -> None:
    straight = _trainer(tmp_path / "s", _settings(log_every_steps=3))
    straight.train()
    first = _trainer(tmp_path / "r", _settings(log_every_steps=3))
    first.train(until_step=stop)
    if stop in (4, 7):
        first.save()
    second = _trainer(tmp_path / "r", _settings(log_every_steps=3))
    second.train()
    assert equal(weights(second.module), weights(straight.module))
    assert without_times(second.run.metrics.read()) == without_times(straight.run.metrics.read())


def test_a_checkpoint_of_another_ramp_is_refused(tmp_path: Path) -> None:
    first = _trainer(tmp_path / "r", _settings())
    first.train(until_step=5)
    first.save()
    with pytest.raises(CheckpointError, match="ramp"):
        _trainer(tmp_path / "r", _settings(ramp=((4, 1), (8, 6)))).train()


def test_a_run_without_a_ramp_is_identified_as_before(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "r", make_settings(2))
    identity = trainer._identity()
    assert list(identity) == ["schedule", "steps", "batch_samples", "sequence", "phases"]
    assert list(identity["phases"][0]) == [
        "name", "weights", "first_step", "steps", "batch_tokens", "first_token",
    ]  # fmt: skip


def test_impossible_ramps_of_settings() -> None:
    with pytest.raises(ValueError, match="batch_samples 6 is no multiple of micro_batch 4"):
        _settings(ramp=((6, 2),))
    with pytest.raises(ValueError, match="the ramp leaves none of 12 steps"):
        _settings(ramp=((4, 12),))


RAMP = "train.batch_ramp=[{batch_tokens: 64, tokens: 500}, {batch_tokens: 128, tokens: 500}]"


def _config(shards: Path, *words: str) -> PretrainConfig:
    base = [
        f"data.shards={shards}",
        "data.sequence=16",
        "data.phases=[{name: a, weights: {prose: 3, code: 1}, until: {fraction: 0.4}},"
        " {name: b, weights: {code: 1}}]",
        "model.layers=1",
        "model.hidden_size=32",
        "model.intermediate_size=64",
        "train.tokens=3000",
        "train.batch_tokens=256",
        "train.micro_batch=2",
        "train.precision=fp32",
        "log.every_steps=4",
        RAMP,
    ]
    return load_config(PretrainConfig, overrides=[*base, *words])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_pretrain_with_a_ramp(corpus: Path, tmp_path: Path) -> None:
    config = _config(corpus)
    figures = pretrain.plan(config).figures
    # 8 x 64 = 512; 4 x 128 = 512, to 1024 of the 1000 meant; 7 x 256 = 1792 of the 1976 left.
    assert [(s["steps"], s["tokens"]) for s in figures["batch_ramp"]] == [
        (8, 512), (4, 512), (7, 1792),
    ]  # fmt: skip
    assert (figures["steps"], figures["tokens"]) == (19, 2816)
    # 0.4 x 2816 = 1126.4: the first step of 256 brings it, 1024 + 256.
    assert (figures["switch_step"], figures["switch_token"]) == (13, 1280)
    result = execute("pretrain", config, tmp_path / "run", quiet=True)
    assert (result["tokens"], result["steps"]) == (2816, 19)
    drawn = {name: entry["tokens"] for name, entry in result["ledger"].items()}
    assert drawn == {"prose": 960, "code": 320 + 1536}
    assert [p["tokens"] for p in result["schedule"]["phases"]] == [1280, 1536]
    records = MetricsLog(tmp_path / "run/metrics.jsonl").read()
    read = [r["sources"] for r in records if "sources" in r]
    assert {n: sum(r.get(n, 0) for r in read) for n in drawn} == drawn


def test_a_ramp_that_does_not_fit_is_told_before_anything(corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_ramp\.0\.batch_tokens 100 is no multiple"):
        _config(corpus, "train.batch_ramp.0.batch_tokens=100")
    with pytest.raises(ConfigError, match="leaves no step of 256"):
        _config(corpus, "train.batch_ramp.1.tokens=2400")


def test_a_shape_without_text_is_planned_but_not_run(tmp_path: Path) -> None:
    config = load_config(
        PretrainConfig,
        overrides=[
            "model.preset=minitron-4b",
            f"data.shards={tmp_path / 'none'}",
            "data.phases=[{name: a, weights: {x: 1}}]",
            "train.tokens=1e9",
        ],
    )
    assert any("does not exist" in note for note in pretrain.plan(config).notes)
    with pytest.raises(InputError, match="can be planned, but not run"):
        execute("pretrain", config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
