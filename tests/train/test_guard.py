"""The guard against a plain reading of its rule, and in the loop with an injected spike."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import RunError
from regrow.train import checkpoint
from regrow.train.guard import LEAST_HISTORY, WINDOW, Guard, GuardRules
from regrow.train.objective import Loss
from regrow.train.trainer import Settings, Trainer
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

SPIKE = 90


def _calm(steps: int, guard: Guard) -> None:
    for step in range(steps):
        assert guard.judge(step, 2.0, 1.0 + 0.1 * math.sin(step)) is None


@given(st.lists(st.floats(0.5, 50.0), min_size=1, max_size=200), st.sampled_from([1.0, 2.0, 6.0]))
def test_a_spike_is_beyond_k_deviations_and_twice_the_second_largest_of_the_last_128(
    norms: list[float], sigma: float
) -> None:
    guard = Guard(GuardRules(sigma, max_skips=1000))
    for step, norm in enumerate(norms):
        before = norms[max(0, step - WINDOW) : step]
        expected = False
        if len(before) >= LEAST_HISTORY:
            bound = statistics.fmean(before) + sigma * statistics.pstdev(before)
            before.remove(max(before))
            bound = max(bound, 2 * max(before))
            if norm == pytest.approx(bound, rel=1e-6):
                guard.judge(step, 1.0, norm)
                continue
            expected = norm > bound
        assert (guard.judge(step, 1.0, norm) is not None) == expected


def test_ordinary_steps_of_small_batches_pass_and_real_spikes_do_not() -> None:
    """Logarithms of norms with the tails of a t distribution, as those of two sequences have."""
    generator = np.random.default_rng(0)
    norms = np.exp(0.2 * generator.standard_t(5, size=4000)).tolist()
    guard, found, by_deviations = Guard(GuardRules(max_skips=10_000)), 0, 0
    for step, norm in enumerate(norms):
        before = norms[max(0, step - WINDOW) : step]
        if len(before) == WINDOW:
            found += 20 * norm > guard.limit()
            by_deviations += norm > statistics.fmean(before) + 6 * statistics.pstdev(before)
        guard.judge(step, 1.0, norm)
    assert found >= 0.98 * (len(norms) - WINDOW)
    assert by_deviations >= 10
    assert guard.skipped <= by_deviations / 2


def test_equal_norms_are_no_spikes_and_early_ones_neither() -> None:
    guard = Guard(GuardRules())
    for step in range(300):
        assert guard.judge(step, 1.0, 0.1 + 0.2) is None
    young = Guard(GuardRules())
    _calm(LEAST_HISTORY - 1, young)
    assert young.judge(LEAST_HISTORY - 1, 2.0, 1e6) is None


def test_a_lasting_rise_costs_a_few_steps_only() -> None:
    guard = Guard(GuardRules())
    _calm(WINDOW, guard)
    found = [guard.judge(WINDOW + i, 2.0, 30.0 + 0.1 * math.sin(i)) for i in range(100)]
    assert all(f is None or not f.stop for f in found)
    assert 1 <= guard.skipped <= 2
    assert all(f is None for f in found[2:])


def test_too_many_skips_in_a_window_stop_but_scattered_ones_do_not() -> None:
    rules = GuardRules(max_skips=2, on_nan="skip")
    guard = Guard(rules)
    for step in range(1000):
        found = guard.judge(step, 1.0, math.nan if step % 70 == 69 else 1.0 + step % 3)
        assert found is None or not found.stop
    assert guard.skipped == 14
    assert guard.judge(1060, math.nan, math.inf) is not None
    last = guard.judge(1061, math.nan, math.inf)
    assert last is not None
    assert last.stop
    assert "3 of the last 128 steps" in last.reason
    assert "max_skips is 2" in last.reason


@pytest.mark.parametrize(
    ("rules", "norm", "stops"),
    [
        (GuardRules(), math.inf, True),
        (GuardRules(on_nan="skip"), math.nan, False),
        (GuardRules(), 100.0, False),
        (GuardRules(on_spike="stop"), 100.0, True),
        (GuardRules(max_grad_norm_sigma=0), 100.0, None),
    ],
)
def test_reactions(rules: GuardRules, norm: float, stops: bool | None) -> None:
    guard = Guard(rules)
    _calm(LEAST_HISTORY, guard)
    found = guard.judge(LEAST_HISTORY, 7.0, norm)
    assert (None if found is None else found.stop) == stops


def test_a_restored_guard_judges_alike() -> None:
    whole = Guard(GuardRules(2.0, max_skips=50))
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(300, generator=generator).exp().tolist()
    norms[120] = norms[200] = 30.0
    halves = Guard(GuardRules(2.0, max_skips=50))
    for step, norm in enumerate(norms):
        if step == 150:
            record = halves.as_json()
            halves = Guard(halves.rules)
            halves.restore(record)
        assert whole.judge(step, norm, norm) == halves.judge(step, norm, norm)
    assert whole.skipped == 2
    assert whole.as_json() == halves.as_json()


class Spiked(Predict):
    """Multiplies the loss of chosen steps (of two micro-batches each) by a factor."""

    def __init__(self, factor: float, at: tuple[int, ...] = (SPIKE,), first: int = 0) -> None:
        super().__init__(TinyModel(dropout=0.1))
        self.factor, self.at, self.calls = factor, at, 2 * first

    def loss(self, batch: Tokens) -> Loss:
        loss = super().loss(batch)
        step, self.calls = self.calls // 2, self.calls + 1
        return Loss(loss.sum * self.factor, loss.weight) if step in self.at else loss


def _settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"log_every_steps": 5, "save_every_tokens": 20 * 8 * SEQUENCE}
    return dataclasses.replace(make_settings(130), **(given | changes))


def _train(path: Path, settings: Settings, objective: Predict, **more: Any) -> Trainer:
    trainer = Trainer(objective, FakeLoader(), settings, make_run(path))
    trainer.train(**more)
    return trainer


def test_a_spike_is_skipped_and_its_data_consumed(tmp_path: Path) -> None:
    """The run equals one in which that step's batch was read but nothing was learnt from it."""
    trainer = _train(tmp_path / "r", _settings(), Spiked(1e4))
    assert trainer.train()["skipped_steps"] == 1
    assert trainer.samples == 130 * 8
    records = trainer.run.metrics.read()
    assert [r["step"] for r in records if "skipped" in r] == [95]
    assert all(r["lr"] == trainer.settings.schedule.lr_at(r["tokens"]) for r in records)
    assert '"event": "step_skipped"' in (tmp_path / "r/events.jsonl").read_text()
    taken = Trainer(
        Spiked(1e4),
        FakeLoader(),
        _settings(guard=GuardRules(max_grad_norm_sigma=0)),
        make_run(tmp_path / "off"),
    )
    taken.train(until_step=SPIKE)
    before = weights(taken.module)
    states = {k: {n: v.clone() for n, v in s.items()} for k, s in taken.optimiser.state.items()}
    taken.train(until_step=SPIKE + 1)
    assert not equal(weights(taken.module), before)  # without a guard it is taken
    taken.module.load_state_dict(before)
    for parameter, state in states.items():
        taken.optimiser.state[parameter] = state
    taken.train()
    assert equal(weights(taken.module), weights(trainer.module))


@pytest.mark.parametrize("stop", [SPIKE - 3, SPIKE, SPIKE + 1, SPIKE + 4, SPIKE + 12])
def test_killed_around_a_spike_is_the_same(tmp_path: Path, stop: int) -> None:
    straight = _train(tmp_path / "s", _settings(), Spiked(1e4))
    first = _train(tmp_path / "r", _settings(), Spiked(1e4), until_step=stop)
    if stop in (SPIKE, SPIKE + 1):
        first.save()
    last = checkpoint.steps_in(first.run.checkpoints)[-1]
    second = _train(tmp_path / "r", _settings(), Spiked(1e4, first=last))
    assert equal(weights(second.module), weights(straight.module))
    assert without_times(second.run.metrics.read()) == without_times(straight.run.metrics.read())
    assert second.train()["skipped_steps"] == 1
    ours, theirs = (
        checkpoint.load(checkpoint.step_folder(t.run.checkpoints, 130)).trainer["guard"]
        for t in (second, straight)
    )
    assert ours == theirs


def test_a_guard_that_never_acts_changes_no_bit(tmp_path: Path) -> None:
    on = _train(tmp_path / "on", _settings(), Spiked(1.0))
    off = _train(tmp_path / "off", _settings(guard=GuardRules(0.0)), Spiked(1.0))
    assert on.train()["skipped_steps"] == 0
    assert equal(weights(on.module), weights(off.module))
    assert without_times(on.run.metrics.read()) == without_times(off.run.metrics.read())


def test_not_finite_can_be_skipped_and_enters_no_average(tmp_path: Path) -> None:
    settings = _settings(guard=GuardRules(on_nan="skip"), log_every_steps=1)
    trainer = _train(tmp_path / "r", settings, Spiked(math.nan, (3, 4)))
    records = trainer.run.metrics.read()
    assert [r["step"] for r in records if r.get("skipped")] == [4, 5]
    assert all("loss" not in r for r in records[3:5])
    assert all(math.isfinite(r["loss"]) for r in [*records[:3], *records[5:]])
    assert all(torch.isfinite(p).all() for p in trainer.module.parameters())


def test_more_skips_than_allowed_end_the_run_with_a_good_checkpoint(tmp_path: Path) -> None:
    settings = _settings(guard=GuardRules(max_skips=2, on_nan="skip"))
    with pytest.raises(
        RunError, match=r"step 93: 3 of the last 128 .* the last checkpoint in .* is good"
    ):
        _train(tmp_path / "r", settings, Spiked(math.inf, (91, 92, 93, 94)))
    assert checkpoint.steps_in(tmp_path / "r/checkpoints") == [60, 80]
    assert RunError("").exit_code == 3
