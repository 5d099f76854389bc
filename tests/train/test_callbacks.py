"""Callbacks are told what ``metrics.jsonl`` tells, and after a resume nothing twice."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.train import callbacks
from regrow.train.config import PretrainConfig
from regrow.train.jobs import pretrain
from regrow.train.trainer import Settings, Trainer
from tests.train.corpus import write_corpus
from tests.train.fakes import SEQUENCE, FakeLoader, Predict, TinyModel, make_run, make_settings

INSTALLED = importlib.util.find_spec("tensorboard") is not None
needs_tensorboard = pytest.mark.skipif(not INSTALLED, reason="the extra [tensorboard] is missing")


class Copy:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def begin(self, records: Sequence[dict[str, Any]]) -> None:
        self.records = list(records)

    def on_record(self, record: dict[str, Any]) -> None:
        self.records.append(record)


def _trainer(path: Path, *told: callbacks.Callback) -> Trainer:
    settings: Settings = make_settings(
        12, eval_every_tokens=4 * 8 * SEQUENCE, save_every_tokens=4 * 8 * SEQUENCE
    )
    return Trainer(
        Predict(TinyModel()),
        FakeLoader(),
        settings,
        make_run(path),
        evaluate=lambda: {"loss": 1.5, "losses": {"fake": 1.5}, "tokens": 9},
        callbacks=told,
    )


def test_a_callback_has_the_records_of_the_run(tmp_path: Path) -> None:
    copy = Copy()
    trainer = _trainer(tmp_path / "r", copy)
    trainer.train()
    assert copy.records == trainer.run.metrics.read()
    assert len(copy.records) == 4 + 3


def test_after_a_resume_it_has_them_once(tmp_path: Path) -> None:
    first, second = Copy(), Copy()
    _trainer(tmp_path / "r", first).train(until_step=7)  # a checkpoint at 4, a record of step 6
    assert [r["step"] for r in first.records] == [3, 4, 6]
    trainer = _trainer(tmp_path / "r", second)
    trainer.train()
    assert second.records == trainer.run.metrics.read()
    assert [r["step"] for r in second.records] == [3, 4, 6, 8, 9, 12, 12]


@needs_tensorboard
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """By TensorBoard's own reader, after a kill between a record and its checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _trainer(tmp_path / "r", *callbacks.build(["tensorboard"], tmp_path / "r")).train(until_step=7)
    trainer = _trainer(tmp_path / "r", *callbacks.build(["tensorboard"], tmp_path / "r"))
    trainer.train()
    reader = EventAccumulator(str(tmp_path / "r/tensorboard"))
    reader.Reload()
    records = trainer.run.metrics.read()
    for key in ("loss", "lr", "grad_norm", "accuracy", "step"):
        found = [(e.step, e.value) for e in reader.Scalars(f"train/{key}")]
        expected = [(r["tokens"], r[key]) for r in records if "validation" not in r]
        assert found == [(at, pytest.approx(value, rel=1e-6)) for at, value in expected]
    held_out = [(e.step, e.value) for e in reader.Scalars("validation/losses/fake")]
    assert held_out == [(4 * 48, 1.5), (8 * 48, 1.5), (12 * 48, 1.5)]


@needs_tensorboard
def test_log_tensorboard_of_the_verb(tmp_path: Path) -> None:
    from tests.train.corpus import pretrain_base

    corpus = write_corpus(tmp_path / "corpus")
    pretrain_base(corpus, tmp_path / "run", "log.tensorboard=true", "train.tokens=640")
    assert len(list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))) == 1


def test_a_missing_package_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    corpus = write_corpus(tmp_path / "corpus")
    config = load_config(
        PretrainConfig,
        overrides=[
            f"data.shards={corpus}",
            "data.sequence=16",
            "model.layers=1",
            "model.hidden_size=32",
            "train.tokens=8192",
            "train.micro_batch=2",
            "log.tensorboard=true",
        ],
    )
    with pytest.raises(ConfigError, match="cannot start") as caught:
        pretrain.plan(config)
    assert "log.tensorboard is true" in caught.value.problems[0]
    assert "pip install 'regrow[tensorboard]'" in caught.value.problems[0]
    with pytest.raises(ConfigError, match="a log cannot be written"):
        callbacks.build(["tensorboard"], tmp_path)


def test_every_callback_is_a_key_of_log() -> None:
    from regrow.train.config import LogConfig

    for name in callbacks.CALLBACKS:
        assert LogConfig(**{name: True}).callbacks() == (name,)
