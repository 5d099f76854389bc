"""Several processes make what one makes: shares, losses, checkpoints for any world."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.cli.main import main
from regrow.core import atomic
from regrow.core.errors import ConfigError
from regrow.model.config import MambaConfig, ModelConfig
from regrow.train import checkpoint
from regrow.train.compiled import missing_compiler
from regrow.train.processes import tensor_problems
from regrow.train.shared_checkpoint import owners
from regrow.train.tensor_parallel import part_of, whole_of
from regrow.train.world import start_world
from tests.train.test_jobs import corpus

__all__ = ["corpus"]  # the fixture

WORKER = Path(__file__).with_name("world_worker.py")
STEPS = 50


def words(shards: Path, folder: Path) -> list[str]:
    return [
        "pretrain", f"data.shards={shards / 'run'}", "data.sequence=16", "model.pattern=M-*-",
        "model.layers=4", "model.hidden_size=32", "model.intermediate_size=64", "model.heads=4",
        "model.kv_heads=2", "model.mamba.head_dim=8", "model.mamba.state=8",
        "model.mamba.groups=4", f"train.tokens={64 * STEPS}", "train.batch_tokens=64",
        "train.micro_batch=1", "train.threads=1", "train.precision=fp32", "optim.lr=0.01",
        "save.every_tokens=640", "log.every_steps=1", "--quiet", "--run", str(folder),
    ]  # fmt: skip


def world(processes: int, tensor: int, arguments: list[str], limit_s: float = 110) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", str(29500 + os.getpid() % 2000), "--", str(WORKER), str(tensor)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=limit_s
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code in (0, None)


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "r"
    run(words(corpus, folder))
    return folder


def compare(folder: Path, alone: Path) -> None:
    ours, theirs = losses(folder), losses(alone)
    assert len(ours) == len(theirs) == STEPS
    for (step, loss), (same, expected) in zip(ours, theirs, strict=True):
        assert step == same
        assert loss == pytest.approx(expected, rel=1e-5)
    results = [atomic.read_json(path / "result.json") for path in (folder, alone)]
    assert results[0]["ledger"] == results[1]["ledger"]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)
    state = [
        checkpoint.load(checkpoint.step_folder(path / "checkpoints", STEPS))
        for path in (folder, alone)
    ]
    assert state[0].model.keys() == state[1].model.keys()
    assert state[0].optimizer.keys() == state[1].optimizer.keys()
    for name, tensor in state[1].model.items():
        torch.testing.assert_close(state[0].model[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("processes", "tensor"),
    [
        (4, 2),  # data and tensor parallel together
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
    ],
)
def test_a_world_makes_what_one_process_makes(
    processes: int, tensor: int, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    world(processes, tensor, words(corpus, tmp_path / "r"))
    compare(tmp_path / "r", alone)
    last = checkpoint.step_folder(tmp_path / "r" / "checkpoints", STEPS)
    assert len(list(last.glob("model-*.safetensors"))) == processes
    assert checkpoint.problems(last) == []
    (last / f"model-00001-of-{processes:05d}.safetensors").unlink()
    assert "is missing" in checkpoint.problems(last)[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch's own
def test_compiled_blocks_in_a_sharded_model(corpus: Path, alone: Path, tmp_path: Path) -> None:
    if missing_compiler(torch.device("cpu")) is not None:
        pytest.skip("there is no working C++ compiler")
    folder = tmp_path / "r"
    world(2, 1, [*words(corpus, folder), "train.compile=true"], limit_s=580)
    compare(folder, alone)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    chosen = [event for event in events if event["event"] == "compile"]
    assert [event["compiled"] for event in chosen] == [True]
    assert chosen[0]["message"].startswith("3 blocks")
    assert not [event for event in events if event["event"] == "resumed_differently"]


@pytest.mark.timeout(150)
def test_a_run_goes_on_in_worlds_of_other_sizes(corpus: Path, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(alone, folder)
    shutil.rmtree(checkpoint.step_folder(folder / "checkpoints", STEPS))
    for name in ("result.json", "status.json"):
        (folder / name).unlink()
    begun = checkpoint.steps_in(folder / "checkpoints")[-1]
    assert 0 < begun < STEPS
    world(2, 1, words(corpus, folder))  # from one process
    compare(folder, alone)
    shutil.rmtree(checkpoint.step_folder(folder / "checkpoints", begun))
    for name in ("result.json", "status.json"):
        (folder / name).unlink()
    run(words(corpus, folder))  # from two, at the last step: it only exports
    compare(folder, alone)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 1),
)
def test_parts_and_wholes(sizes: list[int], processes: int, dimension: int) -> None:
    stacked = tuple(size * processes for size in sizes)
    shape = [3, 3]
    shape[dimension] = sum(stacked)
    whole = torch.randn(shape)
    parts = [part_of(whole, (dimension, stacked), r, processes) for r in range(processes)]
    assert torch.equal(whole_of(parts, (dimension, stacked)), whole)
    assert all(part.shape[dimension] * processes == sum(stacked) for part in parts)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.integers(1, 8))
def test_owners_take_stretches_of_about_equal_size(sizes: list[int], processes: int) -> None:
    table = {str(index): size for index, size in enumerate(sizes)}
    found = owners(table, processes)
    assert list(found) == list(table)
    assert list(found.values()) == sorted(found.values())
    for rank in range(processes):
        mine = sum(table[name] for name, owner in found.items() if owner == rank)
        assert mine <= sum(sizes) / processes + max(sizes)


def test_what_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(
        layers=3, pattern="M*-", hidden_size=32, heads=6, kv_heads=3, head_dim=4, vocab_size=9,
        intermediate_size=33, mamba=MambaConfig(heads=6, groups=3),
    )  # fmt: skip
    assert [line.split(" does not divide ")[1] for line in tensor_problems(config, 2)] == [
        "kv_heads 3", "intermediate_size 33", "mamba.groups 3",
    ]  # fmt: skip
    assert tensor_problems(config, 3) == []
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"parallel.tp: 2 does not divide the 3 process"):
        start_world(2, torch.device("cpu"))
