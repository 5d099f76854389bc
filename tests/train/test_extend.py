"""``extend_to``: longer sequences for transformers with RoPE and for hybrids without."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.core.yaml12 import read_yaml
from regrow.data.shards import ShardSet
from regrow.grow.config import RecipeConfig
from regrow.grow.recipe import stage_config
from regrow.io.tokenizer import Tokenizer
from regrow.model.config import MambaConfig, ModelConfig, RopeScaling
from regrow.model.decoder import Decoder
from regrow.model.folder import load, save
from regrow.model.presets import PRESETS
from regrow.model.shapes import flops_per_token, parameters
from regrow.train.config import ContinueConfig
from regrow.train.extend import extended_shape, reshape, stretched_theta
from regrow.train.held_out import held_out
from regrow.train.jobs import continue_
from tests.train.corpus import continue_config, execute_job, write_corpus

RECIPES = Path(__file__).parents[2] / "recipes" / "paper"
OLD, NEW = 16, 64
HYBRID: dict[str, Any] = {
    "layout": "nemotron_h",
    "layers": 4,
    "pattern": "M-*-",
    "mamba": MambaConfig(state=8, head_dim=16, heads=4, groups=2),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _shape(layout: str, vocab: int = 300) -> ModelConfig:
    given: dict[str, Any] = {"layout": layout, "layers": 2}
    if layout == "nemotron_h":
        given = HYBRID
    return ModelConfig(
        hidden_size=32, heads=4, kv_heads=2, intermediate_size=48, vocab_size=vocab,
        max_positions=OLD, **given,
    )  # fmt: skip


def _model(corpus: Path, layout: str, folder: Path) -> Path:
    tokenizer = Tokenizer.load(corpus / "tokenizer")
    model = Decoder(_shape(layout, tokenizer.vocab_size))
    model.initialise(torch.Generator().manual_seed(3))
    save(model, folder, tokenizer)
    return folder


def _extend(corpus: Path, model: Path, *words: str) -> ContinueConfig:
    wanted = (f"extend_to={NEW}", "optim.start=1e-3", "train.tokens=512", "train.batch_tokens=128")
    config = continue_config(corpus, model, *wanted, *words)
    # The fixture's data.sequence is 16; leave it to extend_to here.
    data = {k: v for k, v in config.data.as_json().items() if k != "sequence"}
    return load_config(ContinueConfig, base=config.as_json() | {"data": data})


def test_the_rule_keeps_the_fastest_and_stretches_the_slowest() -> None:
    """The fastest pair turns as before; the slowest as far over N as it did over the old length."""
    theta, factor, width = 10000.0, 8.0, 64
    new = stretched_theta(theta, factor, width)
    slowest = (width - 2) / width
    assert new**-slowest == pytest.approx(theta**-slowest / factor, rel=1e-12)
    assert new**0.0 == theta**0.0
    assert stretched_theta(theta, 1.0, width) == theta


@pytest.mark.parametrize("layout", ["llama", "nemotron", "nemotron_h"])
def test_the_shape_changes_where_it_must(layout: str) -> None:
    before = _shape(layout)
    after = extended_shape(before, NEW, None)
    theta = before.rope_theta
    if before.rotary_dim:
        theta *= (NEW / OLD) ** (before.rotary_dim / (before.rotary_dim - 2))
    assert after == before.replace(max_positions=NEW, rope_theta=theta)
    if before.rotary_dim:
        assert extended_shape(before, NEW, 5e5).rope_theta == 5e5
    assert parameters(after) == parameters(before)


@pytest.mark.parametrize("layout", ["llama", "nemotron", "nemotron_h"])
def test_the_export_carries_it_and_transformers_agrees(
    corpus: Path, tmp_path: Path, layout: str
) -> None:
    from transformers import AutoModelForCausalLM

    base = _model(corpus, layout, tmp_path / "base")
    config = _extend(corpus, base)
    assert config.data.sequence == NEW
    plan = continue_.plan(config)
    told = "no rotary position encoding" if layout == "nemotron_h" else "rope_theta 10000 ->"
    assert any(f"positions {OLD} -> {NEW}" in note and told in note for note in plan.notes)
    result, run = execute_job(continue_, config, tmp_path / "r")
    assert result["tokens"] == 512
    ours = load(run.export)
    assert ours.config == extended_shape(load(base).config, NEW, None)
    theirs = AutoModelForCausalLM.from_pretrained(run.export, dtype=torch.float32).eval()
    assert theirs.config.max_position_embeddings == NEW
    tokens = torch.randint(0, ours.config.vocab_size, (2, NEW))
    with torch.no_grad():
        expected = theirs(tokens, use_cache=False).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=2e-5)
    before = load(base)
    assert any(
        not torch.equal(a, b) for a, b in zip(before.parameters(), ours.parameters(), strict=True)
    ), "it was trained"


@pytest.mark.parametrize("layout", ["llama", "nemotron_h"])
def test_short_loss_right_after_loading(corpus: Path, tmp_path: Path, layout: str) -> None:
    """Unchanged for hybrids, to the bit; a rotated model has to learn its new angles."""
    model = load(_model(corpus, layout, tmp_path / "base"))
    # Fresh attention hardly looks at positions: make it.
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 20
    shards = ShardSet.open(corpus, "validation")

    def loss(of: Decoder) -> float:
        return float(held_out(of, shards, None, OLD, 8, 2048)["loss"])

    before = loss(model)
    after = loss(reshape(model, extended_shape(model.config, NEW, None)))
    if layout == "nemotron_h":
        assert after == before
    else:
        assert after != before
        assert math.isfinite(after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extend_to=16"], "extend_to: 16 is not more than the model's max_positions 16"),
        (["data.sequence=128"], "data.sequence 128 is more than the model's max_positions 64"),
        (["extend_to=null", "rope_theta=1e5"], "rope_theta has no effect without extend_to"),
    ],
)
def test_bad_extensions_are_refused(
    corpus: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    base = _model(corpus, "llama", tmp_path / "base")
    few = (f"extend_to={NEW}", "optim.start=1e-3", "train.micro_batch=1", "train.batch_tokens=128")
    with pytest.raises(ConfigError) as caught:
        continue_.plan(continue_config(corpus, base, *few, *words))
    assert message in str(caught.value)


def test_a_base_needs_a_rotation_that_the_rule_covers() -> None:
    with pytest.raises(ConfigError, match=r"rope_theta: 500000 has no effect"):
        extended_shape(_shape("nemotron_h"), NEW, 5e5)
    scaling = RopeScaling(kind="linear", factor=2.0)
    with pytest.raises(ConfigError, match=r"rope_theta: required.*linear"):
        extended_shape(_shape("llama").replace(rope_scaling=scaling), NEW, None)
    scaled = extended_shape(_shape("llama").replace(rope_scaling=scaling), NEW, 4e4)
    assert (scaled.rope_theta, scaled.rope_scaling) == (4e4, scaling)


@pytest.mark.parametrize(
    ("name", "length"), [("16k", 1 << 14), ("32k", 1 << 15), ("128k", 1 << 17)]
)
def test_recipes_of_the_paper_plan(name: str, length: int) -> None:
    recipe = load_config(RecipeConfig, [RECIPES / f"extend-{name}.yaml"])
    verb, config = stage_config(recipe.stages["extend"], {})
    assert verb == "continue"
    assert isinstance(config, ContinueConfig)
    assert config.data.sequence == length
    plan = continue_.plan(config)
    figures = plan.figures
    shape = PRESETS["mamba2-hybrid-8b"].replace(max_positions=length)
    assert figures["max_positions"] == length
    assert figures["parameters"] == parameters(shape)
    assert 0 <= 50e9 - figures["tokens"] < figures["batch_tokens"]
    assert figures["flops"] == figures["tokens"] * flops_per_token(shape, length)
    assert any("plan only" in note for note in plan.notes)
    text = (RECIPES / f"extend-{name}.yaml").read_text()
    assert text.startswith("# PLAN ONLY")
    assert read_yaml(RECIPES / f"extend-{name}.yaml")[0]["name"].endswith("(plan only)")
