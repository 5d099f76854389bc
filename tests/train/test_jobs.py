"""``pretrain`` and ``continue`` on real shards with the real decoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.core import atomic
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, Interrupted, RegrowError
from regrow.core.metrics_log import MetricsLog
from regrow.core.run import Run
from regrow.data.shards import Vocabulary, write_shard
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.folder import load
from regrow.model.shapes import flops_per_token, non_embedding_parameters, parameters
from regrow.train.config import ContinueConfig, PretrainConfig
from regrow.train.jobs import continue_, pretrain
from tests.train.fakes import equal, weights, without_times

WORDS = ("tree", "branch", "root", "leaf", "grows", "falls", "and", "the", "old", "green")


def _documents(seed: int, count: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(WORDS), (count, 30), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in row) + ".\n" for row in picks]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two sources and their tokenizer, as a tokenize run would leave them."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = {"prose": _documents(1, 120), "code": _documents(2, 60)}
    tokenizer = train_byte_level(iter(texts["prose"]), 300)
    tokenizer.save(folder / "run/tokenizer")
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    for source, documents in texts.items():
        encoded = [(tokenizer.encode(text), len(text.encode())) for text in documents]
        write_shard(folder / "run/shards/train", source, encoded[10:], vocabulary)
        write_shard(folder / "run/shards/validation", source, encoded[:10], vocabulary)
    return folder


def _pretrain(corpus: Path, *words: str) -> PretrainConfig:
    base = [
        f"data.shards={corpus / 'run'}",
        "data.sequence=16",
        "model.layers=1",
        "model.hidden_size=32",
        "model.intermediate_size=64",
        "train.tokens=2000",
        "train.batch_tokens=64",
        "train.micro_batch=2",
        "train.precision=fp32",
        "optim.lr=0.01",
        "save.every_tokens=320",
        "log.every_steps=5",
    ]
    return load_config(PretrainConfig, overrides=[*base, *words])


def _continue(corpus: Path, model: Path, *words: str) -> ContinueConfig:
    base = [
        f"model={model}",
        f"data.shards={corpus / 'run'}",
        "data.sequence=16",
        "data.phases=[{name: gb, weights: {prose: 3, code: 1}}, {name: qb, weights: {code: 1}}]",
        "train.tokens=1280",
        "train.batch_tokens=64",
        "train.micro_batch=2",
        "train.precision=fp32",
    ]
    return load_config(ContinueConfig, overrides=[*base, *words])


def _execute(job: Any, config: Any, folder: Path) -> tuple[dict[str, Any], Run]:
    run = Run.claim(folder, "test", config, quiet=True)
    try:
        return job.run(config, run), run
    finally:
        run.release()


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished pretraining run."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    result, _ = _execute(pretrain, _pretrain(corpus), folder)
    return folder, result


def test_pretrain_makes_a_model_and_its_figures(
    corpus: Path, base: tuple[Path, dict[str, Any]]
) -> None:
    folder, result = base
    model = load(folder / "export")
    assert result["tokens"] == 1984
    assert result["steps"] == 31
    assert result["parameters"] == parameters(model.config)
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    assert result["non_embedding_parameters"] == non_embedding_parameters(model.config)
    assert result["flops"] == 1984 * flops_per_token(model.config, 16)
    assert result["weights_sha256"] == atomic.sha256_file(folder / "export/model.safetensors")
    assert set(result["losses"]) == {"prose", "code"}
    assert set(result["bits_per_byte"]) == {"prose", "code", "all"}
    assert result["loss"] < 4.5  # ln 300 = 5.7
    assert sum(entry["tokens"] for entry in result["ledger"].values()) == 1984
    json.dumps(result)
    tokenizer = Tokenizer.load(folder / "export")
    assert model.config.eos_id == tokenizer.eos_id
    assert model.config.vocab_size == tokenizer.vocab_size


def test_loss_is_that_of_a_plain_computation(
    corpus: Path, base: tuple[Path, dict[str, Any]]
) -> None:
    from regrow.data.shards import ShardSet

    folder, result = base
    model = load(folder / "export")
    nats, count, size = 0.0, 0, 0
    token_bytes = Tokenizer.load(folder / "export").token_bytes()
    for shard in ShardSet.open(corpus / "run", "validation").values():
        ids = torch.from_numpy(shard.tokens[:].astype("int64"))
        for start in range(0, len(ids) - 1, 16):
            window = ids[start : start + 17]
            p = torch.log_softmax(model(window[None, :-1]).detach().double(), -1)
            nats -= p[0].gather(1, window[1:, None]).sum().item()
            count += len(window) - 1
            size += int(token_bytes[window[1:].numpy()].sum())
    assert result["validation_tokens"] == count
    assert result["loss"] == pytest.approx(nats / count, rel=1e-6)
    bits = nats / torch.tensor(2.0).log().item() / size
    assert result["bits_per_byte"]["all"] == pytest.approx(bits, rel=1e-6)


@pytest.mark.parametrize("stop_at", [1, 8, 30])
def test_an_interrupted_run_ends_the_same(
    corpus: Path, base: tuple[Path, dict[str, Any]], tmp_path: Path, stop_at: int
) -> None:
    config = _pretrain(corpus)
    run = Run.claim(tmp_path / "r", "test", config, quiet=True)
    log = run.metrics.append
    seen = []

    def stopping(record: dict[str, Any]) -> None:
        log(record)
        seen.append(record)
        run.stop_requested = record["step"] >= stop_at

    run.metrics.append = stopping  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        pretrain.run(config, run)
    run.release()
    assert seen
    result, again = _execute(pretrain, config, tmp_path / "r")
    assert not again.fresh
    assert result["weights_sha256"] == base[1]["weights_sha256"]
    assert without_times(again.metrics.read()) == without_times(
        MetricsLog(base[0] / "metrics.jsonl").read()
    )
    timed = ("seconds_training", "tokens_per_second")
    assert {k: v for k, v in result.items() if k not in timed} == {
        k: v for k, v in base[1].items() if k not in timed
    }


def test_continue_starts_where_the_pretraining_ended(
    corpus: Path, base: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    config = _continue(corpus, base[0])
    plan = continue_.plan(config)
    assert plan.figures["lr"] == pytest.approx(0.001)
    assert plan.figures["min_lr"] == pytest.approx(1e-5)
    assert plan.figures["switch_step"] == 14  # 0.7113 of 20 steps, counted with the step's batch
    result, run = _execute(continue_, config, tmp_path / "c")
    assert result["loss"] < base[1]["loss"]
    assert [i["role"] for i in run.inputs] == ["model", "shards", "tokenizer"]
    records = run.metrics.read()
    assert records[0]["phase"] == "gb"
    assert records[-1]["phase"] == "qb"
    assert result["ledger"]["code"]["tokens"] == 6 * 64 + 14 * 64 // 4
    events = (tmp_path / "c/events.jsonl").read_text()
    assert "loaded from" in events
    fresh, _ = _execute(
        continue_, _continue(corpus, base[0] / "export", "optim.load_state=false"), tmp_path / "f"
    )
    assert "fresh AdamW" in (tmp_path / "f/events.jsonl").read_text()
    assert fresh["weights_sha256"] != result["weights_sha256"]
    assert Tokenizer.load(tmp_path / "c/export").sha256 == Tokenizer.load(base[0] / "export").sha256


def test_document_masks_train_too(corpus: Path, tmp_path: Path) -> None:
    result, _ = _execute(
        pretrain, _pretrain(corpus, "data.document_mask=true", "train.tokens=640"), tmp_path / "r"
    )
    assert 0 < result["loss"] < 6


def test_seed_decides(corpus: Path, tmp_path: Path) -> None:
    hashes = set()
    for words in (["seed=0"], ["seed=1"], ["data.seed=1"]):
        folder = tmp_path / words[0]
        result, _ = _execute(pretrain, _pretrain(corpus, "train.tokens=128", *words), folder)
        hashes.add(result["weights_sha256"])
    assert len(hashes) == 3


def _foreign(corpus: Path, folder: Path) -> Path:
    """A tokenizer that did not make the shards."""
    train_byte_level(iter(_documents(9, 20)), 280).save(folder / "other")
    return folder / "other"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["model.vocab_size=290"], InputError, "ids up to 296, the vocabulary has 290"),
        (["model.max_positions=8"], ConfigError, "data.sequence 16 is more than .* 8"),
        (["data.shards=nowhere"], InputError, "nowhere: no such path"),
        (["eval.split=test"], InputError, "no split 'test'"),
        (
            ["data.phases=[{name: a, weights: {prosa: 1.0, code: 1.0}}]"],
            ConfigError,
            "data.phases.0.weights.prosa: no shard of this name, did you mean prose",
        ),
        (
            [
                "data.phases=[{name: a, weights: {code: 1.0}, until: {tokens: 9000}},"
                " {name: b, weights: {code: 1.0}}]"
            ],
            ConfigError,
            "the next phase is never reached",
        ),
        (
            [
                "data.sequence=8192",
                "train.micro_batch=1",
                "train.batch_tokens=8192",
                "train.tokens=10000",
            ],
            ConfigError,
            "no source has more tokens than one sequence of 8192",
        ),
        (["model.heads=3"], ConfigError, "no multiple of heads 3"),
        (["tokenizer=nowhere"], InputError, "nowhere"),
    ],
)
def test_bad_input_of_pretrain_fails_before_anything_is_written(
    corpus: Path, words: Sequence[str], error: type[RegrowError], message: str
) -> None:
    with pytest.raises(error, match=message):
        pretrain.plan(_pretrain(corpus, *words))


def test_a_tokenizer_of_other_shards_is_refused(corpus: Path, tmp_path: Path) -> None:
    config = _pretrain(corpus, f"tokenizer={_foreign(corpus, tmp_path)}")
    with pytest.raises(InputError, match="was made with the tokenizer"):
        pretrain.plan(config)


def test_continue_needs_to_know_its_learning_rate(
    corpus: Path, base: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(base[0] / "export", tmp_path / "somewhere")
    with pytest.raises(ConfigError, match=r"set optim\.start"):
        continue_.plan(_continue(corpus, tmp_path / "somewhere"))
    plan = continue_.plan(_continue(corpus, tmp_path / "somewhere", "optim.start=5e-5"))
    assert plan.figures["lr"] == 5e-5
    words = ("optim.start=5e-5", "optim.load_state=true")
    config = _continue(corpus, tmp_path / "somewhere", *words)
    with pytest.raises(InputError, match=r"optim\.load_state is true"):
        _execute(continue_, config, tmp_path / "r")


def test_weights_that_are_not_finite_are_refused(
    corpus: Path, base: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from regrow.model.folder import save

    model = load(base[0] / "export")
    with torch.no_grad():
        model.norm.weight[3] = torch.nan
    save(model, tmp_path / "broken")
    config = _continue(corpus, tmp_path / "broken", "optim.start=1e-4")
    with pytest.raises(InputError, match=r"norm\.weight has 1 values that are not finite"):
        _execute(continue_, config, tmp_path / "r")
    assert not (tmp_path / "r/checkpoints").exists()


def test_an_id_outside_of_the_vocabulary_is_found(corpus: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(corpus / "run", tmp_path / "run")
    path = tmp_path / "run/shards/train/code.bin"
    data = bytearray(path.read_bytes())
    data[2 * 77 : 2 * 77 + 2] = (5000).to_bytes(2, "little")
    path.write_bytes(data)
    config = _pretrain(corpus, f"data.shards={tmp_path / 'run'}")
    with pytest.raises(InputError, match="shard code: token 77 is 5000"):
        _execute(pretrain, config, tmp_path / "r")


def test_a_source_shorter_than_a_sequence_is_left_out_and_said_so(
    corpus: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(corpus / "run", tmp_path / "run")
    tokenizer = Tokenizer.load(corpus / "run/tokenizer")
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    write_shard(tmp_path / "run/shards/train", "scrap", [([1, 2, 3], 3)], vocabulary)
    plan = pretrain.plan(_pretrain(corpus, f"data.shards={tmp_path / 'run'}"))
    assert set(plan.figures["epochs"]) == {"prose", "code"}
    assert any("scrap is left out: its 4 tokens" in note for note in plan.notes)


def test_plan_tells_the_whole_run(corpus: Path) -> None:
    figures = pretrain.plan(_pretrain(corpus)).figures
    assert figures["steps"] == 31
    assert figures["checkpoint_bytes"] == 12 * figures["parameters"]
    assert figures["flops"] == figures["tokens"] * figures["flops_per_token"]
    assert sum(figures["epochs"].values()) > 0


def test_the_model_that_is_saved_is_the_one_that_was_trained(
    corpus: Path, base: tuple[Path, dict[str, Any]]
) -> None:
    from regrow.train.checkpoint import latest
    from regrow.train.checkpoint import load as load_checkpoint

    newest = latest(base[0] / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000031"
    assert equal(dict(load_checkpoint(newest).model), weights(load(base[0] / "export")))
