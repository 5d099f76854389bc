"""The verb, its baselines, speed and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regrow
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError
from regrow.data.loader import evaluation_batches
from regrow.data.shards import ShardSet
from regrow.eval.baselines import TrainingOrder, score_baselines, training_pairs
from regrow.eval.config import EvaluateConfig
from regrow.eval.jobs import evaluate
from regrow.eval.ngram import NGram
from regrow.eval.samples import samples
from regrow.eval.speed import decode_speed
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.io.tokenizer import Tokenizer
from regrow.train.config import PretrainConfig
from tests.compress.makers import save_model
from tests.model.makers import ours

QUICK = {"decode": {"new_tokens": 4, "repeats": 1}, "samples": {"new_tokens": 6}}


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    save_model(folder, tokenizer)
    return folder


def settings(models: Any, shards: Path, **changes: Any) -> EvaluateConfig:
    return load_config(
        EvaluateConfig,
        base={"models": models, "shards": str(shards), "sequence": 32, **QUICK, **changes},
    )


def test_losses_are_transformers_and_baselines_score_the_same_targets(
    model: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    result = execute(
        "evaluate", settings({"one": str(model)}, shards), tmp_path / "run", quiet=True
    )
    stock = AutoModelForCausalLM.from_pretrained(model).eval()
    nats, tokens, size = 0.0, 0, 0
    sizes = tokenizer.token_bytes()
    for source, shard in ShardSet.open(shards, "test").items():
        ids = torch.from_numpy(shard.tokens.astype(np.int64))
        mine = 0.0
        for start in range(0, len(ids) - 1, 32):
            window, following = ids[start : start + 32], ids[start + 1 : start + 33]
            with torch.no_grad():
                logits = stock(window[: len(following)][None]).logits[0]
            mine += float(torch.nn.functional.cross_entropy(logits, following, reduction="sum"))
        assert result["models"]["one"]["losses"][source] == pytest.approx(
            mine / (len(ids) - 1), rel=1e-5
        )
        nats, tokens = nats + mine, tokens + len(ids) - 1
        size += int(sizes[shard.tokens[1:]].sum())
    figures = result["models"]["one"]
    assert figures["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert figures["bits_per_byte"]["all"] == pytest.approx(nats / np.log(2) / size, rel=1e-5)
    assert figures["bytes"] == (model / "model.safetensors").stat().st_size
    assert figures["parameters"] == stock.num_parameters()
    assert [s["prompt"] for s in figures["samples"]] == ["def ", "The ", "import ", "class "]
    assert figures["decode_tokens_per_second"] > 0
    assert result["split"] == "test"
    for name in ("unigram", "bigram"):
        assert result["baselines"][name]["tokens"] == tokens == figures["tokens"]
    assert result["baselines"]["bigram"]["loss"] < result["baselines"]["unigram"]["loss"] - 0.3


def test_a_run_goes_on_after_the_models_that_it_finished(
    model: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "other", tokenizer, layers=1)
    config = settings({"one": str(model), "two": str(tmp_path / "other")}, shards)
    whole = evaluate._model
    asked: list[str] = []

    def fails(config: Any, folder: Path, *rest: Any) -> dict[str, Any]:
        asked.append(folder.name)
        if folder.name == "other" and len(asked) < 3:
            raise RuntimeError("power cut")
        return whole(config, folder, *rest)

    monkeypatch.setattr(evaluate, "_model", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        execute("evaluate", config, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "eval" / "one.json").exists()
    result = execute("evaluate", config, tmp_path / "run", quiet=True)
    assert asked == ["base", "other", "other"]
    stored = json.loads((tmp_path / "run" / "eval" / "one.json").read_text())
    assert result["models"]["one"] == stored
    assert result["models"]["two"]["parameters"] < stored["parameters"]


@pytest.mark.parametrize("swept", [False, True])
def test_baselines_count_the_very_tokens_of_a_training_run(
    shards: Path, tmp_path: Path, swept: bool
) -> None:
    config = {
        "model": {"layers": 1, "hidden_size": 16, "heads": 2},
        "data": {
            "shards": str(shards),
            "sequence": 32,
            "seed": 7,
            "document_mask": True,
            "phases": [
                {"name": "a", "weights": {"code": 3, "prose": 1}, "until": {"fraction": 0.5}},
                {"name": "b", "weights": {"prose": 1}},
            ],
        },
        "train": {"tokens": 1024, "batch_tokens": 128, "micro_batch": 2},
        "eval": {"tokens": 64},
    }
    run = tmp_path / "run"
    if swept:
        from regrow.grow.config import SweepConfig

        sweep = SweepConfig(of="pretrain", config=config, key="optim.lr", values=[1e-3, 2e-3])
        execute("sweep", sweep, run, quiet=True)
    else:
        execute("pretrain", load_config(PretrainConfig, base=config), run, quiet=True)
    train = ShardSet.open(shards, "train")
    contexts, targets = training_pairs(train, TrainingOrder.of_run(run))
    from regrow.data.loader import Loader, Phase

    phases = [Phase("a", {"code": 0.75, "prose": 0.25}, 16), Phase("b", {"prose": 1.0}, 16)]
    loader = Loader(train, phases, 32, 7, document_mask=True)
    seen = [
        (int(v), int(w))
        for k in range(32)
        for v, w in zip(loader.sample(k).tokens, loader.sample(k).targets, strict=True)
        if w != -100
    ]
    assert list(zip(contexts.tolist(), targets.tolist(), strict=True)) == seen
    fewer, _ = training_pairs(train, TrainingOrder.of_run(run), 64)
    assert fewer.tolist() == contexts.tolist()[: len(fewer)]


def test_split_order_reads_every_window_once(shards: Path) -> None:
    train = ShardSet.open(shards, "train")
    order = TrainingOrder.of_split(train, 16, seed=0, document_mask=False)
    _, targets = training_pairs(train, order)
    whole = np.concatenate(
        [s.tokens[1 : 1 + (s.num_tokens - 1) // 16 * 16] for s in train.values()]
    )
    assert sorted(targets.tolist()) == sorted(whole.tolist())


def test_document_masks_leave_first_tokens_out(shards: Path) -> None:
    shard = ShardSet.open(shards, "test")["code"]
    fitted = NGram.fit(np.array([1, 2, 3]), np.array([2, 3, 4]), shard.vocab_size)
    counted = {
        mask: score_baselines(
            fitted, {"code": lambda mask=mask: evaluation_batches(shard, 32, 4, None, mask)}, None
        )["bigram"]["tokens"]
        for mask in (False, True)
    }
    assert counted[False] - counted[True] == shard.num_documents - 1


def test_samples_are_a_function_of_seed_and_prompt(tokenizer: Tokenizer) -> None:
    model = ours(vocab_size=tokenizer.vocab_size, max_positions=32).train()
    both = samples(model, tokenizer, ["def ", "the "], 8, seed=3)
    assert model.training
    assert samples(model, tokenizer, ["the "], 8, seed=3) == both[1:]
    assert samples(model, tokenizer, ["the "], 8, seed=4) != both[1:]
    # A prompt that fills the model's positions gets nothing to follow it.
    assert samples(model, tokenizer, ["1" * 40], 8)[0]["text"] == ""
    assert samples(model, tokenizer, [""], 2)[0]["prompt"] == ""


def test_speed_is_measured_and_leaves_the_model_alone() -> None:
    model = ours().train()
    found = decode_speed(model, prompt_tokens=8, new_tokens=4, repeats=2)
    assert all(rate > 0 for rate in found.values())
    assert model.training


def test_a_bare_model_is_named_after_its_folder(shards: Path) -> None:
    assert list(settings("runs/base", shards).models) == ["base"]
    assert list(settings("runs/base/export", shards).models) == ["base"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"a/b": "x"}}, "cannot name a file"),
        ({"baselines": False, "baseline_tokens": 5}, "no effect"),
        ({"models": {}}, "models"),
    ],
)
def test_wrong_settings(shards: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(changes.pop("models", {"a": "x"}), shards, **changes)
    assert message in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(
    model: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "short", tokenizer, max_positions=16)
    save_model(tmp_path / "narrow", None, vocab_size=100)
    config = settings(
        {n: str(tmp_path / n) for n in ("short", "narrow", "gone")}, shards, baseline_run=str(model)
    )
    with pytest.raises(InputError) as caught:
        get_verb("evaluate").plan(config)
    lines = "\n".join(caught.value.problems)
    for word in ("models.short: 36", "models.narrow", "models.gone", "baseline_run"):
        assert word in lines
    plan = get_verb("evaluate").plan(settings({"one": str(model)}, shards))
    assert plan.figures["models"]["one"]["parameters"] == sum(
        p.numel() for p in regrow.load(model).parameters()
    )
