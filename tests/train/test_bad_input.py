"""Each bad input of the specification ends ``continue`` before its first step, exit 2, with the
name and the value; a resume with another schedule is the only one that ends later, exit 3."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from regrow.cli.main import main
from regrow.core.errors import CheckpointError, ConfigError
from regrow.core.metrics_log import MetricsLog
from regrow.core.run import Run
from regrow.io.hf import write_folder
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.adapters import ADAPTERS
from regrow.model.decoder import Decoder
from regrow.model.folder import load, save
from regrow.train.jobs import continue_
from tests.train.corpus import continue_config, documents, execute_job, pretrain_base, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    pretrain_base(corpus, folder, "train.tokens=128", "model.max_positions=64")
    return folder


def _command(corpus: Path, model: Path, folder: Path, words: list[str]) -> list[str]:
    given = {
        "data.shards": str(corpus),
        "data.sequence": "16",
        "data.phases": "[{name: gb, weights: {prose: 3, code: 1}}, {name: qb, weights: {code: 1}}]",
        "train.tokens": "1280",
        "train.batch_tokens": "64",
        "train.micro_batch": "2",
        "train.precision": "fp32",
        "optim.start": "1e-3",
    }
    given |= dict(word.split("=", 1) for word in words)
    settings = [f"{key}={value}" for key, value in given.items()]
    return ["continue", str(model), *settings, "--run", str(folder), "--quiet"]


def _refused(command: list[str], folder: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert not (folder / "checkpoints").exists()
    assert not MetricsLog(folder / "metrics.jsonl").read()


def _three(first: str, second: str) -> str:
    return (
        f"data.phases=[{{name: a, weights: {{prose: 1.0}}, until: {first}}}, "
        f"{{name: b, weights: {{code: 1.0}}, until: {second}}}, "
        "{name: c, weights: {code: 1.0}}]"
    )


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["data.phases=[{name: a, weights: {prose: -0.5}}]"],
            ["data.phases.0.weights.prose", "-0.5", "greater than 0"],
        ),
        (
            ["data.phases=[{name: a, weights: {prosa: 1.0}}]"],
            ["data.phases.0.weights.prosa", "did you mean prose"],
        ),
        (
            [_three("{tokens: 640}", "{tokens: 9000}")],
            ["data.phases.1 (b)", "ends after 141 steps of 64 tokens", "has 20", "never reached"],
        ),
        (
            [_three("{lr_fraction: 0.005}", "{fraction: 0.9}")],
            ["data.phases.0 (a)", "lr_fraction 0.005 is never reached", "min_ratio 0.01"],
        ),
        (
            [_three("{tokens: 640}", "{tokens: 320}")],
            ["data.phases.1 (b)", "ends before step 5, but begins with step 10"],
        ),
        (["data.sequence=128", "train.batch_tokens=256", "train.micro_batch=1"],
         ["data.sequence 128", "max_positions 64"]),
        (
            ["data.max_epochs={code: 0.1}"],
            ["data.max_epochs.code", "0.3", "more than 0.1"],
        ),
        (["data.max_epochs={cod: 1.0}"], ["data.max_epochs.cod", "did you mean code"]),
        (
            ["train.batch_tokens=80"],
            ["train.batch_tokens 80", "no multiple of micro_batch x sequence = 2 x 16 = 32"],
        ),
    ],
)  # fmt: skip
def test_settings(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], messages: list[str],
) -> None:  # fmt: skip
    _refused(_command(corpus, base, tmp_path / "r", words), tmp_path / "r")
    said = " ".join(capsys.readouterr().err.split())
    for message in messages:
        assert message in said, said


def _small_embedding(corpus: Path, base: Path, folder: Path) -> Path:
    model = Decoder(load(base).config.replace(vocab_size=290, eos_id=None))
    model.initialise(torch.Generator().manual_seed(0))
    save(model, folder / "model")
    return folder / "model"


def _other_tokenizer(corpus: Path, base: Path, folder: Path) -> Path:
    shutil.copytree(base / "export", folder / "model")
    train_byte_level(iter(documents(9, 20)), 280).save(folder / "model")
    return folder / "model"


def _not_a_number(corpus: Path, base: Path, folder: Path) -> Path:
    model = load(base)
    with torch.no_grad():
        model.norm.weight[3] = torch.nan
    save(model, folder / "model", Tokenizer.load(corpus / "tokenizer"))
    return folder / "model"


def _missing_shard(corpus: Path, base: Path, folder: Path) -> Path:
    model = load(base)
    adapter = ADAPTERS.get(model.config.layout)
    state = model.state_dict()
    tensors = [(theirs, state[ours]) for ours, theirs in adapter.names(model.config)]
    settings = adapter.write_config(model.config)
    write_folder(folder / "model", settings, tensors, max_shard_bytes=20_000)
    shards = sorted((folder / "model").glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    return folder / "model"


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (_small_embedding, ["shards/", "ids up to 296", "the vocabulary has 290"]),
        (_other_tokenizer, ["shards/", "was made with the tokenizer", "not with"]),
        (_not_a_number, ["norm.weight has 1 values that are not finite, of 32"]),
        (_missing_shard, ["model.safetensors.index.json", "lacks: model-00002-of-"]),
    ],
)
def test_models(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    make: Callable[[Path, Path, Path], Path], messages: list[str],
) -> None:  # fmt: skip
    model = make(corpus, base, tmp_path)
    _refused(_command(corpus, model, tmp_path / "r", []), tmp_path / "r")
    said = " ".join(capsys.readouterr().err.split())
    for message in messages:
        assert message in said, said


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_token_outside_of_the_vocabulary(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    path = tmp_path / f"corpus/shards/{split}/code.bin"
    data = bytearray(path.read_bytes())
    data[2 * 77 : 2 * 77 + 2] = (5000).to_bytes(2, "little")
    path.write_bytes(data)
    _refused(_command(tmp_path / "corpus", base, tmp_path / "r", []), tmp_path / "r")
    assert "shard code: token 77 is 5000" in capsys.readouterr().err


def test_a_resume_with_another_schedule(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    execute_job(continue_, continue_config(corpus, base, "optim.start=1e-3"), folder)
    changed = continue_config(corpus, base, "optim.start=1e-3", "optim.min_ratio=0.05")
    with pytest.raises(ConfigError, match=r"optim\.min_ratio: 0\.01 there, 0\.05 now") as refused:
        Run.claim(folder, "test", changed)
    assert refused.value.exit_code == 2
    # Whoever changes the folder's own settings meets the checkpoint.
    run = Run.claim(folder, "test", continue_config(corpus, base, "optim.start=1e-3"), quiet=True)
    try:
        with pytest.raises(
            CheckpointError, match=r"(?s)other settings.*schedule:.*0\.01.*0\.05"
        ) as later:
            continue_.run(changed, run)
    finally:
        run.release()
    assert later.value.exit_code == 3


def test_a_rewarm_is_planned_and_done(corpus: Path, base: Path, tmp_path: Path) -> None:
    """From zero to a rate above the pretraining's last, then down, as declared."""
    words = ("optim.start=0.005", "optim.warmup_tokens=256", "log.every_steps=1")
    config = continue_config(corpus, base, *words)
    last = 0.001  # a tenth of the base's peak
    plan = continue_.plan(config)
    assert plan.figures["lr"] == 0.005 > last
    assert plan.figures["warmup_tokens"] == 256
    assert any("re-warmed to 0.005 over 256 tokens (given)" in note for note in plan.notes)
    assert plan.figures["phases"][0]["lr_first"] == 0.005 / 4
    result, run = execute_job(continue_, config, tmp_path / "r")
    rates = [r["lr"] for r in run.metrics.read() if "lr" in r]
    assert rates[:4] == pytest.approx([0.00125, 0.0025, 0.00375, 0.005])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.005 * 0.01)
    # The switch counts from the peak, not from the warmup's small rates.
    switch = plan.figures["switch_step"]
    assert rates[switch] <= 0.001 < rates[switch - 1]
    assert result["schedule"]["warmup_tokens"] == 256
