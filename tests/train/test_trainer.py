from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regrow.core.errors import CheckpointError, Interrupted, RunError
from regrow.train import checkpoint
from regrow.train.objective import Loss
from regrow.train.trainer import ModelKind, Settings, Trainer
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


def _trainer(
    path: Path, settings: Settings, model: nn.Module | None = None, **more: Any
) -> Trainer:
    loader = more.pop("loader", None) or FakeLoader()
    return Trainer(Predict(model or TinyModel()), loader, settings, make_run(path), **more)


def _float64_reference(settings: Settings) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same training written down plainly: whole batches, mean loss, float64."""
    model = TinyModel().double()
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=settings.betas,
        eps=settings.eps,
    )
    losses = []
    for step in range(settings.steps):
        batch = FakeLoader().batch(step * settings.batch_samples, settings.batch_samples)
        logits = model(batch.tokens).flatten(0, 1)
        loss = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        for group in optimiser.param_groups:
            group["lr"] = settings.schedule.lr_at((step + 1) * settings.batch_tokens)
        optimiser.step()
        losses.append(loss.item())
    return weights(model), losses


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6, 12])
def test_any_split_into_micro_batches_gives_the_same(tmp_path: Path, micro_batch: int) -> None:
    settings = make_settings(8, batch_samples=12, micro_batch=micro_batch, log_every_steps=1)
    settings = dataclasses.replace(settings, grad_clip=0.05)  # the clip must act
    expected, losses = _float64_reference(settings)
    trainer = _trainer(tmp_path / "r", settings)
    trainer.train()
    whole = _trainer(tmp_path / "w", dataclasses.replace(settings, micro_batch=12))
    whole.train()
    for name, value in trainer.module.state_dict().items():
        unsplit = whole.module.state_dict()[name]
        assert torch.allclose(value, unsplit, atol=1e-6, rtol=0), name
        # Adam magnifies rounding where a gradient is near its eps: a wider bound against float64.
        assert torch.allclose(value.double(), expected[name], atol=5e-6, rtol=0), name
    logged = [record["loss"] for record in trainer.run.metrics.read()]
    assert logged == pytest.approx(losses, abs=1e-6)


def test_records_follow_the_schedule_and_average_over_their_steps(tmp_path: Path) -> None:
    settings = make_settings(10)
    trainer = _trainer(tmp_path / "every", dataclasses.replace(settings, log_every_steps=1))
    trainer.train()
    every = trainer.run.metrics.read()
    assert [r["tokens"] for r in every] == [(s + 1) * settings.batch_tokens for s in range(10)]
    assert all(r["lr"] == settings.schedule.lr_at(r["tokens"]) for r in every)
    assert [r["phase"] for r in every] == ["first"] * 5 + ["second"] * 5
    assert every[-1]["loss"] < 0.9 * every[0]["loss"]
    trainer = _trainer(tmp_path / "third", settings)
    trainer.train()
    third = trainer.run.metrics.read()
    assert [r["step"] for r in third] == [3, 6, 9, 10]
    loader = FakeLoader()
    targets = [int((loader.batch(s * 8, 8).targets != -100).sum()) for s in range(3)]
    mean = sum(r["loss"] * w for r, w in zip(every[:3], targets, strict=True)) / sum(targets)
    assert third[0]["loss"] == pytest.approx(mean, rel=1e-12)
    norms = [r["grad_norm"] for r in every[:3]]
    assert third[0]["grad_norm"] == pytest.approx(sum(norms) / 3, rel=1e-12)
    assert 0 <= third[0]["accuracy"] <= 1
    assert {"tokens_per_second", "seconds"} <= set(third[0])


def _straight(path: Path, settings: Settings, dropout: float = 0.2) -> Trainer:
    trainer = _trainer(path, settings, TinyModel(dropout=dropout), evaluate=lambda: {"loss": 1.0})
    trainer.train()
    return trainer


def test_resume_after_every_step_equals_the_straight_run(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        make_settings(10),
        save_every_tokens=2 * 8 * SEQUENCE,
        eval_every_tokens=4 * 8 * SEQUENCE,
    )
    straight = _straight(tmp_path / "straight", settings)
    expected = without_times(straight.run.metrics.read())
    for stop in range(1, 10):
        path = tmp_path / f"stop{stop}"
        first = _trainer(path, settings, TinyModel(dropout=0.2), evaluate=lambda: {"loss": 1.0})
        first.train(until_step=stop)
        # After even steps there is a checkpoint of this very step; after 3, 7 and 9 a step is lost,
        # and with it, after 3 and 9, a record that is already in the log.
        if stop == 5:
            first.save()
        torch.manual_seed(12345)  # whatever another process would have there
        second = _trainer(
            path, settings, TinyModel(seed=99, dropout=0.2), evaluate=lambda: {"loss": 1.0}
        )
        if not checkpoint.steps_in(second.run.checkpoints):
            second.module.load_state_dict(TinyModel().state_dict())  # from scratch: same weights
        figures = second.train()
        assert equal(weights(second.module), weights(straight.module)), stop
        assert without_times(second.run.metrics.read()) == expected, stop
        assert figures["step"] == 10


def test_driven_in_pieces_is_the_same(tmp_path: Path) -> None:
    settings = make_settings(9)
    whole = _straight(tmp_path / "whole", settings)
    pieces = _trainer(
        tmp_path / "p", settings, TinyModel(dropout=0.2), evaluate=lambda: {"loss": 1.0}
    )
    for until in (1, 4, 4, 7):
        assert pieces.train(until_step=until)["step"] == until
    pieces.train()
    assert equal(weights(pieces.module), weights(whole.module))
    assert without_times(pieces.run.metrics.read()) == without_times(whole.run.metrics.read())


def test_a_damaged_checkpoint_costs_steps_but_not_the_result(tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(9), save_every_tokens=3 * 8 * SEQUENCE)
    whole = _straight(tmp_path / "whole", settings)
    first = _trainer(
        tmp_path / "r", settings, TinyModel(dropout=0.2), evaluate=lambda: {"loss": 1.0}
    )
    first.train(until_step=7)
    newest = checkpoint.step_folder(first.run.checkpoints, 6) / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    second = _straight(tmp_path / "r", settings)
    assert equal(weights(second.module), weights(whole.module))
    events = (tmp_path / "r/events.jsonl").read_text()
    assert "checkpoint_damaged" in events
    assert '"step": 3, "checkpoint": "step-00000003"' in events


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    exported: list[Path] = []
    kind = ModelKind(lambda module, folder: exported.append(folder))
    settings = make_settings(4)
    scores = iter([{"loss": 0.5}])
    trainer = _trainer(tmp_path / "r", settings, evaluate=lambda: next(scores), kind=kind)
    trainer.train()
    assert trainer.train()["validation"] == {"loss": 0.5}
    assert exported == [tmp_path / "r/export"]
    again = _trainer(tmp_path / "r", settings, TinyModel(seed=5), evaluate=lambda: next(scores))
    assert again.train()["validation"] == {"loss": 0.5}
    assert equal(weights(again.module), weights(trainer.module))
    records = again.run.metrics.read()
    assert sum("validation" in r for r in records) == 1


def test_a_resume_deletes_what_a_killed_save_left(tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(6), save_every_tokens=2 * 8 * SEQUENCE)
    first = _trainer(tmp_path / "r", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "retain", lambda *args: None)
        first.train()
    assert checkpoint.steps_in(first.run.checkpoints) == [2, 4, 6]
    again = _trainer(tmp_path / "r", settings)
    again.train()
    assert checkpoint.steps_in(again.run.checkpoints) == [4, 6]


def test_ctrl_c_finishes_the_step_and_commits(tmp_path: Path) -> None:
    settings = make_settings(10)
    trainer = _trainer(tmp_path / "r", settings)

    class Stopping(FakeLoader):
        def batch(self, first: int, count: int) -> Tokens:
            if first == 4 * 8:  # the first micro-batch of the fifth step
                trainer.run.stop_requested = True
            return super().batch(first, count)

    trainer.loader = Stopping()
    with pytest.raises(Interrupted, match="after step 5 of 10"):
        trainer.train()
    assert checkpoint.steps_in(trainer.run.checkpoints) == [5]
    again = _trainer(tmp_path / "r", settings)
    again.train()
    straight = _trainer(tmp_path / "s", settings)
    straight.train()
    assert equal(weights(again.module), weights(straight.module))


class Chunked(Predict):
    """Owns its backward pass: one forward over the whole batch without a graph, then pieces."""

    def step(self, batch: Tokens) -> Loss:
        total, weight = 0.0, 0
        for row in range(len(batch.tokens)):
            piece = super().loss(Tokens(batch.tokens[row : row + 1], batch.targets[row : row + 1]))
            piece.sum.backward()
            total += float(piece.sum.detach())
            weight += int(piece.weight)
        return Loss(torch.tensor(total, dtype=torch.float64), weight)


def test_an_objective_may_own_its_backward(tmp_path: Path) -> None:
    settings = make_settings(6)
    plain = _trainer(tmp_path / "a", settings)
    plain.train()
    own = Trainer(Chunked(TinyModel()), FakeLoader(), settings, make_run(tmp_path / "b"))
    own.train()
    for name, value in own.module.state_dict().items():
        assert torch.allclose(value, plain.module.state_dict()[name], atol=1e-6)
    a, b = plain.run.metrics.read(), own.run.metrics.read()
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], abs=1e-6)


class Broken(Predict):
    """Gives a loss that is not finite at the third step, or has no targets."""

    def __init__(self, value: float, weight: float = 1.0) -> None:
        super().__init__(TinyModel())
        self.calls, self.value, self.weight = 0, value, weight

    def loss(self, batch: Tokens) -> Loss:
        loss = super().loss(batch)
        self.calls += 1
        if self.calls > 4:
            return Loss(loss.sum * self.value, float(loss.weight) * self.weight)
        return loss


@pytest.mark.parametrize(
    ("value", "weight", "message"),
    [(math.nan, 1.0, "step 2: the gradient is not finite"), (1.0, 0.0, "no targets at all")],
)
def test_a_step_that_cannot_be_taken_keeps_the_weights(
    tmp_path: Path, value: float, weight: float, message: str
) -> None:
    settings = dataclasses.replace(make_settings(8), save_every_tokens=8 * SEQUENCE)
    objective = Broken(value, weight)
    trainer = Trainer(objective, FakeLoader(), settings, make_run(tmp_path / "r"))
    with pytest.raises(RunError, match=message):
        trainer.train()
    assert checkpoint.steps_in(trainer.run.checkpoints) == [1, 2]
    assert all(torch.isfinite(p).all() for p in trainer.module.parameters())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = make_settings(8)
    first = _trainer(tmp_path / "r", settings)
    first.train(until_step=3)
    first.save()
    changed = dataclasses.replace(settings, schedule=dataclasses.replace(settings.schedule, lr=0.5))
    with pytest.raises(CheckpointError, match=r"'lr': 0\.02.*'lr': 0\.5"):
        _trainer(tmp_path / "r", changed).train()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    settings = make_settings(8)
    first = _trainer(tmp_path / "r", settings)
    first.train(until_step=3)
    first.save()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        _trainer(tmp_path / "r", settings, TinyModel(width=8)).train()


def test_bf16_keeps_fp32_weights(tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(30), precision="bf16")
    seen: set[torch.dtype] = set()
    model = TinyModel()
    model.head.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    trainer = _trainer(tmp_path / "r", settings, model)
    trainer.train()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    states = trainer.optimiser.state.values()
    assert {v.dtype for state in states for v in state.values()} == {torch.float32}
    records = trainer.run.metrics.read()
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]


def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    model = TinyModel()
    model.embed.requires_grad_(False)
    before = weights(copy.deepcopy(model))
    trainer = _trainer(tmp_path / "r", make_settings(4), model)
    trainer.train()
    trainer.save()
    assert torch.equal(model.embed.weight, before["embed.weight"])
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no multiple of micro_batch"):
        make_settings(4, micro_batch=3)
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(make_settings(4), steps=0)


def test_evaluation_leaves_training_mode_and_gradients_alone(tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(6), eval_every_tokens=2 * 8 * SEQUENCE)
    model = TinyModel(dropout=0.3)

    def evaluate() -> dict[str, Any]:
        model.eval()
        return {"loss": 2.5, "losses": {"fake": 2.5}}

    trainer = _trainer(tmp_path / "r", settings, model, evaluate=evaluate)
    figures = trainer.train()
    assert model.training
    found = [r for r in trainer.run.metrics.read() if "validation" in r]
    assert [r["step"] for r in found] == [2, 4, 6]
    assert found[0]["validation"]["loss"] == 2.5
    assert figures["validation"] == {"loss": 2.5, "losses": {"fake": 2.5}}
    assert figures["ledger"] == FakeLoader().ledger(48)
