from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig
from regrow.model.shape_config import ShapeConfig
from regrow.train import config as module
from regrow.train.config import ContinueConfig, PretrainConfig

BASE = ["data.shards=s", "model.layers=2", "model.hidden_size=64", "train.tokens=1e6"]


def _pretrain(*words: str) -> PretrainConfig:
    return load_config(PretrainConfig, overrides=[*BASE, *words])


def test_config_imports_no_torch() -> None:
    code = (
        "import sys, regrow.train.config, regrow.train.stage, regrow.train.jobs.pretrain, "
        "regrow.train.jobs.continue_; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [n for n in module.__all__ if n.endswith("Config")])
def test_every_setting_is_described(name: str) -> None:
    for field_name, field in getattr(module, name).model_fields.items():
        assert field.description, f"{name}.{field_name}"


def test_a_shape_has_every_setting_of_a_model() -> None:
    assert set(ShapeConfig.model_fields) == set(ModelConfig.model_fields) | {
        "preset",
        "like",
        "attention_ratio",
        "mlp_ratio",
    }


def test_resolved_config_read_again_is_the_same(tmp_path: Path) -> None:
    config = _pretrain("model.layout=nemotron", "optim.warmup_tokens=100")
    (tmp_path / "c.yaml").write_text(config.as_yaml())
    again = load_config(PretrainConfig, [tmp_path / "c.yaml"])
    assert again == config
    shape = again.model.resolve(300, 64)
    assert (shape.norm, shape.activation, shape.vocab_size) == ("layernorm1p", "relu2", 300)


def test_millions_may_be_written_shortly() -> None:
    assert _pretrain().train.tokens == 1_000_000
    with pytest.raises(ConfigError, match=r"1\.5"):
        _pretrain("train.tokens=1.5")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.batch_tokens=5000", "no multiple of micro_batch x sequence = 8 x 256 = 2048"),
        ("train.tokens=4000", "less than one step"),
        ("train.micro_batch=0", "greater than 0"),
        ("data.phases=[{name: a, weights: {x: 0}}]", "greater than 0"),
        ("data.phases=[{name: a, weights: {}}]", "at least 1 item"),
        ("data.phases=[{name: a, weights: {x: 1.0}, until: {}}]", "exactly one of"),
        ("optim.decay_fraction=0.5", "no effect"),
        ("save.keep=1", "greater than or equal to 2"),
        ("optim.lrr=1", "did you mean lr"),
    ],
)
def test_impossible_settings_are_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _pretrain(word)
    assert message in str(caught.value)


def test_shape_from_preset_with_changes() -> None:
    shape = ShapeConfig(preset="minitron-4b", layers=2, vocab_size=500).resolve(400, 64)
    assert (shape.hidden_size, shape.layers, shape.vocab_size) == (3072, 2, 500)
    with pytest.raises(ValidationError, match="did you mean minitron-4b"):
        ShapeConfig(preset="minitron-4").resolve(400, 64)


def test_shape_derives_heads_and_reports_what_is_missing() -> None:
    assert ShapeConfig(layers=2, hidden_size=128).resolve(400, 64).heads == 4
    assert ShapeConfig(layers=2, hidden_size=512).resolve(400, 64).heads == 8
    with pytest.raises(ConfigError) as caught:
        ShapeConfig(layers=2).resolve(400, 64)
    assert "model.hidden_size" in str(caught.value)
    with pytest.raises(ValidationError, match="kv_heads 3"):
        ShapeConfig(layers=2, hidden_size=128, heads=4, kv_heads=3).resolve(400, 64)


def test_continue_switches_at_a_fifth_of_the_rate() -> None:
    phases = "data.phases=[{name: a, weights: {x: 1.0}}, {name: b, weights: {y: 1.0}}]"
    words = ["model=m", "data.shards=s", "train.tokens=1e6", phases]
    config = load_config(ContinueConfig, overrides=words)
    until = config.data.phases[0].until
    assert until is not None
    assert until.lr_fraction == 0.2
    assert config.optim.min_ratio == 0.01
    assert config.optim.warmup_tokens == 0
