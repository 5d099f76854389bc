"""Every option of ``distill`` through its verb: plan, result, kills, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import regrow
from regrow.compress.distill_config import DistillConfig
from regrow.core.atomic import sha256_file
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, RegrowError
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.io.tokenizer import Tokenizer
from regrow.model.shapes import flops_per_token, forward_flops_per_token
from regrow.train import checkpoint
from regrow.train.trainer import Trainer
from tests.compress.makers import save_model

SHAPE: dict[str, Any] = {
    "layers": 4, "hidden_size": 24, "intermediate_size": 40, "heads": 4, "kv_heads": 2,
}  # fmt: skip
STEPS, BATCH = 12, 128
WORKER = Path(__file__).with_name("distill_worker.py")


@pytest.fixture(scope="module")
def teacher(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "export"
    save_model(folder, tokenizer, **SHAPE)
    return folder


@pytest.fixture(scope="module")
def student(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half the layers, another width."""
    folder = tmp_path_factory.mktemp("student") / "export"
    save_model(folder, tokenizer, **{**SHAPE, "layers": 2, "hidden_size": 16}, seed=3)
    return folder


def config(student: Path, teacher: Path, shards: Path, **settings: Any) -> DistillConfig:
    return load_config(
        DistillConfig,
        base={
            "student": str(student),
            "teacher": str(teacher),
            "data": {"shards": str(shards), "sequence": 32},
            "train": {
                "tokens": STEPS * BATCH, "batch_tokens": BATCH, "micro_batch": 2,
                "precision": "fp32", "threads": 1,
            },
            "optim": {"lr": 3e-3},
            "eval": {"tokens": 256},
            "save": {"every_tokens": 4 * BATCH},
            "log": {"every_steps": 1},
            **settings,
        },
    )  # fmt: skip


def records(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "tokens_per_second", "mfu", "mfu_causal", "tokens_per_second_device")
    return [{k: v for k, v in record.items() if k not in times} for record in found]


def cut_short(monkeypatch: pytest.MonkeyPatch, calls: int, run: Any) -> None:
    """Break off after so many optimiser steps, whoever takes them."""
    plain, seen = Trainer._one_step, []

    def step(self: Trainer, progress: Any) -> None:
        plain(self, progress)
        seen.append(self.step)
        if len(seen) == calls:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", step)
        with pytest.raises(RuntimeError, match="power cut"):
            run()


def test_half_the_layers_bring_hidden_states_in(
    student: Path, teacher: Path, shards: Path, tmp_path: Path
) -> None:
    settings = config(student, teacher, shards)
    made = get_verb("distill").plan(settings)
    expected = {"pairs": ((0, 1),), "embed": True, "metric": "cosine", "alpha": "dynamic"}
    assert made.figures["distillation"]["hidden"] == expected
    assert any("layer 0 to 1 and of the embeddings (2 of 4 layers" in note for note in made.notes)
    result = execute("distill", settings, tmp_path / "run", quiet=True)
    assert result["distillation"] == made.figures["distillation"]
    small, large = regrow.load(tmp_path / "run").config, regrow.load(teacher).config
    tokens = STEPS * BATCH
    teaching = tokens * (forward_flops_per_token(large, 32) + 2 * 6 * 16 * 24)
    assert result["teacher_flops"] == made.figures["teacher_flops"] == teaching
    assert result["flops"] == tokens * flops_per_token(small, 32) + teaching
    first, *_, last = [r for r in records(tmp_path / "run") if "kl" in r]
    assert last["hidden"] < first["hidden"]
    assert last["loss"] == pytest.approx(2 * last["kl"], rel=1e-5)
    # The map is in the checkpoints, and in no export.
    state = checkpoint.load(checkpoint.step_folder(tmp_path / "run" / "checkpoints", STEPS))
    assert state.model["hidden_map.weight"].shape == (24, 16)
    assert state.optimizer["hidden_map.weight/exp_avg"].abs().max() > 0
    from safetensors import safe_open

    with safe_open(tmp_path / "run/export/model.safetensors", "pt") as file:
        assert not any("map" in name for name in file.keys())  # noqa: SIM118


def test_a_shallow_cut_matches_logits_only(
    student: Path, teacher: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "three", tokenizer, **{**SHAPE, "layers": 3})
    for folder, hidden in ((tmp_path / "three", "auto"), (student, [])):
        made = get_verb("distill").plan(config(folder, teacher, shards, hidden={"pairs": hidden}))
        assert made.figures["distillation"]["hidden"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": {"pairs": [[0, 1], [1, 3]], "alpha": 0.5, "metric": "mse", "embed": False}},
        {
            "loss": "jsd", "jsd_beta": 0.3, "temperature": 2.0, "top_k": 20, "ce_weight": 0.2,
            "teacher_dtype": "bf16", "train": {"activation_checkpointing": True},
            "data": {"document_mask": True},
        },
        {"loss": "rkl", "hidden": {"pairs": []}},
    ],
    ids=["hidden", "all", "rkl"],
)  # fmt: skip
def test_broken_off_and_gone_on_is_the_same(
    options: dict[str, Any],
    student: Path,
    teacher: Path,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = config(student, teacher, shards).model_dump(mode="json", exclude_defaults=True)
    merged = {k: base[k] | options.pop(k, {}) for k in ("train", "data")} | options
    settings = config(student, teacher, shards, **merged)
    whole = execute("distill", settings, tmp_path / "whole", quiet=True)
    again = tmp_path / "again"
    cut_short(monkeypatch, 7, lambda: execute("distill", settings, again, quiet=True))
    result = execute("distill", settings, again, quiet=True)
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert records(again) == records(tmp_path / "whole")
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (
            sha256_file(folder / "checkpoints" / f"step-{STEPS:08d}" / name)
            for folder in (again, tmp_path / "whole")
        )
        assert one == other
    losses = [r["loss"] for r in records(again) if "kl" in r]
    assert losses[-1] < losses[0]


def test_a_corrected_teacher(
    student: Path, teacher: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correction = {"tokens": 6 * BATCH, "lr": 3e-3}
    settings = config(student, teacher, shards, teacher_correction=correction, hidden={"pairs": []})
    made = get_verb("distill").plan(settings)
    assert made.figures["teacher_correction"]["steps"] == 6
    whole = execute("distill", settings, tmp_path / "whole", quiet=True)
    told = whole["teacher_correction"]
    large = regrow.load(teacher).config
    assert told["tokens"] == 6 * BATCH
    assert told["flops"] == made.figures["teacher_correction"]["flops"]
    assert told["flops"] == 6 * BATCH * flops_per_token(large, 32)
    plain = execute(
        "distill", config(student, teacher, shards, hidden={"pairs": []}), tmp_path / "plain",
        quiet=True,
    )  # fmt: skip
    assert whole["flops"] == plain["flops"]  # the correction is told apart
    assert "teacher_correction" not in plain
    assert whole["weights_sha256"] != plain["weights_sha256"]
    corrected = regrow.load(tmp_path / "whole/trials/teacher")
    before = regrow.load(teacher)
    assert not torch.equal(corrected.embed.weight, before.embed.weight)
    # Taught by hand from the corrected teacher's folder, the student is the same.
    by_hand = config(student, tmp_path / "whole/trials/teacher", shards, hidden={"pairs": []})
    result = execute("distill", by_hand, tmp_path / "by-hand", quiet=True)
    assert result["weights_sha256"] == whole["weights_sha256"]
    # Killed in the correction, killed in the distillation, then to the end.
    again = tmp_path / "again"
    for calls in (5, 8):
        cut_short(monkeypatch, calls, lambda: execute("distill", settings, again, quiet=True))
    result = execute("distill", settings, again, quiet=True)
    assert result["weights_sha256"] == whole["weights_sha256"]
    for one in (told, result["teacher_correction"]):
        one.pop("run")
        one.pop("seconds_training")
    assert result["teacher_correction"] == told


def test_the_correction_takes_a_fifth_of_the_teachers_peak(
    student: Path, teacher: Path, shards: Path
) -> None:
    settings = config(student, teacher, shards, teacher_correction={"tokens": 6 * BATCH})
    with pytest.raises(ConfigError, match=r"teacher_correction.lr is auto, but .* fifth"):
        get_verb("distill").plan(settings)
    record = {"lr": 0.01, "min_lr": 0.001}
    path = teacher.parent / "training_schedule.json"
    path.write_text(json.dumps(record))
    try:
        made = get_verb("distill").plan(settings)
    finally:
        path.unlink()
    assert made.figures["teacher_correction"]["lr"] == pytest.approx(0.002)


def test_padded_vocabularies(
    teacher: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    size = tokenizer.vocab_size
    save_model(tmp_path / "padded", tokenizer, **{**SHAPE, "vocab_size": size + 14})
    with pytest.raises(InputError, match="set allow_padded_vocab=true") as caught:
        get_verb("distill").plan(config(tmp_path / "padded", teacher, shards))
    assert f"has {size} ids" in str(caught.value)
    settings = config(tmp_path / "padded", teacher, shards, allow_padded_vocab=True)
    result = execute("distill", settings, tmp_path / "run", quiet=True)
    assert result["distillation"]["vocabulary"] == size
    trained = regrow.load(tmp_path / "run")
    assert trained.config.vocab_size == size + 14
    losses = [r["kl"] for r in records(tmp_path / "run") if "kl" in r]
    assert losses[-1] < losses[0]
    save_model(tmp_path / "bare", None, **{**SHAPE, "vocab_size": size + 14})
    with pytest.raises(InputError, match=r"without a tokenizer\.json"):
        get_verb("distill").plan(
            config(tmp_path / "bare", teacher, shards, allow_padded_vocab=True)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "fkll"}, "loss 'fkll' is unknown, did you mean fkl"),
        ({"jsd_beta": 0.3}, "jsd_beta has no effect with loss fkl"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 100_000}, "top_k: 100000 of "),
        ({"hidden": {"pairs": [[2, 1], [0, 4]]}}, "student layer 2 is not there; it has 0 to 1"),
        ({"hidden": {"pairs": [[0, 4]]}}, "teacher layer 4 is not there; it has 0 to 3"),
        ({"hidden": {"metric": "l2"}}, "metric"),
        ({"teacher_correction": {"tokens": 10, "lr": 0.1}}, "teacher_correction.tokens 10 is less"),
        ({"teacher_correction": {"lr": 0.1}}, "teacher_correction.tokens"),
    ],
)
def test_what_is_refused(
    settings: dict[str, Any], message: str, student: Path, teacher: Path, shards: Path
) -> None:
    with pytest.raises((RegrowError, ValidationError)) as caught:
        get_verb("distill").plan(config(student, teacher, shards, **settings))
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "tensor"), [(2, 1), (2, 2)], ids=["fsdp", "tensor"])
def test_two_processes_train_the_same(
    processes: int, tensor: int, student: Path, teacher: Path, shards: Path, tmp_path: Path
) -> None:
    correction = {"tokens": 4 * BATCH, "lr": 3e-3}
    settings = config(student, teacher, shards, teacher_correction=correction)
    settings = settings.replace(train=settings.train.replace(micro_batch=1))
    alone = execute("distill", settings, tmp_path / "alone", quiet=True)
    words = [f"teacher={teacher}", f"data.shards={shards}", "data.sequence=32"]
    words += [f"train.{k}={v}" for k, v in settings.train.model_dump(exclude_defaults=True).items()]
    words += ["optim.lr=3e-3", "eval.tokens=256", f"save.every_tokens={4 * BATCH}"]
    words += ["log.every_steps=1", f"teacher_correction.tokens={4 * BATCH}"]
    words += ["teacher_correction.lr=3e-3", "--quiet", "--run", str(tmp_path / "world")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", str(31500 + os.getpid() % 2000), "--", str(WORKER), str(tensor)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*command, "distill", str(student), *words],
        env=environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "world" / "result.json").read_text())
    assert result["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert result["teacher_correction"]["loss"] == pytest.approx(
        alone["teacher_correction"]["loss"], rel=1e-4
    )
    ours, theirs = (regrow.load(tmp_path / name).state_dict() for name in ("world", "alone"))
    for name, tensor_ in ours.items():
        torch.testing.assert_close(tensor_, theirs[name], rtol=1e-3, atol=1e-3)
