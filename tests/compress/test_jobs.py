"""The three verbs one after the other, in run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regrow
from regrow.compress.distill_config import DistillConfig
from regrow.compress.importance_config import ImportanceConfig
from regrow.compress.prune_config import PruneConfig
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.data.loader import evaluation_batches
from regrow.data.shards import ShardSet
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.shapes import flops_per_token, forward_flops_per_token, parameters
from regrow.train.trainer import Trainer
from tests.compress.makers import VOCAB, make_shards, save_model

SHAPE: dict[str, Any] = {
    "layers": 3, "hidden_size": 48, "intermediate_size": 80, "heads": 4, "kv_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "export"
    save_model(folder, tokenizer, **SHAPE)
    return folder


@pytest.fixture(scope="module")
def scores(base: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores") / "run"
    config = ImportanceConfig(model=base, shards=shards, samples=24, sequence=32, micro_batch=5)
    result = execute("importance", config, folder, quiet=True)
    assert result["tokens"] == 24 * 32
    assert len(result["block_influence"]) == 3
    return folder


def prune(base: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    config = load_config(PruneConfig, base={"model": str(base), **settings})
    return execute("prune", config, folder, quiet=True)


def test_scores_name_what_they_are_of(scores: Path, base: Path) -> None:
    record = json.loads((scores / "scores.json").read_text())
    assert record["model_sha256"] == execute_free_sha(base)
    assert record["samples"] == 24
    assert set(record["data"]["shards"]) == {"code", "prose"}


def execute_free_sha(folder: Path) -> str:
    import hashlib

    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_micro_batches_and_repeats_give_the_same_ranking(
    base: Path, shards: Path, scores: Path, tmp_path: Path
) -> None:
    config = ImportanceConfig(model=base, shards=shards, samples=24, sequence=32, micro_batch=5)
    again = execute("importance", config, tmp_path / "again", quiet=True)
    first = json.loads((scores / "result.json").read_text())
    assert again["scores_sha256"] == first["scores_sha256"]


def test_prune_to_a_budget(base: Path, scores: Path, shards: Path, tmp_path: Path) -> None:
    budget = {"non_embedding_parameters": 0.5, "hidden_align": 4, "mlp_align": 4}
    result = prune(
        base, tmp_path / "run", scores=str(scores), budget=budget, shards=str(shards), sequence=32
    )
    assert result["non_embedding_parameters"] == pytest.approx(
        0.5 * result["source_non_embedding_parameters"], rel=0.05
    )
    export = tmp_path / "run" / "export"
    child = regrow.load(export)
    assert sum(p.numel() for p in child.parameters()) == result["parameters"]
    assert child.config.heads == 4
    record = json.loads((export / "compress.json").read_text())
    assert record["source_sha256"] == execute_free_sha(base)
    assert record["shape"] == result["shape"]
    assert len(record["kept"]["hidden"]) == child.config.hidden_size
    assert (export / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert set(result["losses"]) == {"code", "prose"}
    assert result["bits_per_byte"]["all"] > 0
    from transformers import AutoModelForCausalLM

    stock = AutoModelForCausalLM.from_pretrained(export).eval()
    ids = torch.randint(0, VOCAB - 10, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, child(ids), rtol=1e-5, atol=1e-5)


def test_no_op_prune_writes_the_same_weights(base: Path, scores: Path, tmp_path: Path) -> None:
    result = prune(base, tmp_path / "run", scores=str(scores), shape={"layers": 3})
    assert result["weights_sha256"] == execute_free_sha(base)


def test_random_selection_needs_no_scores(base: Path, tmp_path: Path) -> None:
    shape = {"layers": 2, "hidden_size": 24}
    results = [
        prune(base, tmp_path / str(seed), selection="random", seed=seed, shape=shape)
        for seed in (0, 1)
    ]
    assert results[0]["weights_sha256"] != results[1]["weights_sha256"]
    assert results[0]["shape"] == results[1]["shape"]


def test_plan_tells_the_exact_shape_and_writes_nothing(
    base: Path, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(
        PruneConfig,
        base={"model": str(base), "scores": str(scores), "budget": {"parameters": 0.6}},
    )
    made = get_verb("prune").plan(config)
    whole = regrow.load(base).config
    assert made.figures["parameters"] == parameters(whole.replace(**made.figures["shape"]))
    assert "llama" in made.notes[-1]
    assert not list(tmp_path.iterdir())


def test_scores_of_another_model_are_refused(
    scores: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "other", tokenizer, **SHAPE, seed=1)
    with pytest.raises(InputError, match="another checkpoint"):
        prune(tmp_path / "other", tmp_path / "run", scores=str(scores), shape={"layers": 2})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 10_000}, "use fewer"),
        ({"sequence": 300, "samples": 1}, "max_positions 256"),
        ({"weights": {"cod": 1.0}}, "did you mean code"),
    ],
)
def test_importance_refuses_what_it_cannot_do(
    base: Path, shards: Path, settings: dict[str, Any], message: str
) -> None:
    config = ImportanceConfig(model=base, shards=shards, **{"sequence": 32, **settings})
    with pytest.raises(ConfigError, match=message):
        get_verb("importance").plan(config)


def distill_config(student: Path, teacher: Path, shards: Path, **train: Any) -> DistillConfig:
    return load_config(
        DistillConfig,
        base={
            "student": str(student),
            "teacher": str(teacher),
            "data": {"shards": str(shards), "sequence": 32},
            "train": {"tokens": 8192, "batch_tokens": 256, "precision": "fp32", **train},
            "optim": {"lr": 3e-3},
            "eval": {"tokens": 512},
            "save": {"every_tokens": 1024},
        },
    )


def test_distilled_child_is_nearer_to_its_teacher(
    base: Path, scores: Path, shards: Path, tmp_path: Path
) -> None:
    prune(
        base,
        tmp_path / "cut",
        scores=str(scores),
        shape={"hidden_size": 24, "intermediate_size": 40},
    )
    config = distill_config(tmp_path / "cut", base, shards)
    made = get_verb("distill").plan(config)
    result = execute("distill", config, tmp_path / "child", quiet=True)
    small, large = regrow.load(tmp_path / "child").config, regrow.load(base).config
    teacher = 8192 * forward_flops_per_token(large, 32)
    assert result["teacher_flops"] == made.figures["teacher_flops"] == teacher
    assert result["flops"] == made.figures["flops"] == 8192 * flops_per_token(small, 32) + teacher
    roles = {i["role"] for i in json.loads((tmp_path / "child" / "inputs.json").read_text())}
    assert roles >= {"student", "teacher", "shards"}
    shard = ShardSet.open(shards, "validation")["code"]
    ids = next(evaluation_batches(shard, 32, 8)).tokens
    with torch.no_grad():
        taught = regrow.load(base)(ids).log_softmax(-1)
        before, after = (
            torch.nn.functional.kl_div(
                regrow.load(tmp_path / name)(ids).log_softmax(-1),
                taught, log_target=True, reduction="batchmean",
            )
            for name in ("cut", "child")
        )  # fmt: skip
    assert after < 0.8 * before


def test_vocabularies_must_be_one(
    base: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "wide", None, **SHAPE, vocab_size=tokenizer.vocab_size + 7)
    with pytest.raises(InputError, match="vocab_size: student") as caught:
        get_verb("distill").plan(distill_config(base, tmp_path / "wide", shards))
    assert str(tokenizer.vocab_size + 7) in str(caught.value)
    other = train_byte_level(iter(["other text entirely " * 9]), tokenizer.vocab_size)
    save_model(tmp_path / "other", tokenizer, **SHAPE)
    other.save(tmp_path / "other")
    with pytest.raises(InputError, match="tokenizer: student"):
        get_verb("distill").plan(distill_config(base, tmp_path / "other", shards))


def test_a_distillation_that_broke_off_ends_with_the_same_weights(
    base: Path, scores: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune(base, tmp_path / "cut", scores=str(scores), shape={"hidden_size": 24})
    config = distill_config(tmp_path / "cut", base, shards, tokens=4096)
    whole = execute("distill", config, tmp_path / "whole", quiet=True)
    plain = Trainer._one_step

    def step(self: Trainer, progress: Any) -> None:
        plain(self, progress)
        if self.step == 10:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", step)
        with pytest.raises(RuntimeError, match="power cut"):
            execute("distill", config, tmp_path / "again", quiet=True)
    again = execute("distill", config, tmp_path / "again", quiet=True)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["loss"] == whole["loss"]


def test_shards_of_another_tokenizer_are_refused(base: Path, tmp_path: Path) -> None:
    other = train_byte_level(iter(["quite another text " * 9]), VOCAB)
    make_shards(tmp_path, other, documents=8)
    config = ImportanceConfig(model=base, shards=tmp_path, samples=4, sequence=32)
    with pytest.raises(InputError, match="tokenizer"):
        get_verb("importance").plan(config)
