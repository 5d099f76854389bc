"""The streamed cut against the cut in memory, its files, what is left of it when it is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import regrow
from regrow.compress import streamed_prune
from regrow.compress.prune_config import PruneConfig, ShapeTarget
from regrow.compress.ranking import choose_random
from regrow.compress.slicing import Keep, cut
from regrow.compress.streamed_prune import cut_folder, shards_of
from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError
from regrow.grow.execute import execute
from regrow.io import hf
from regrow.model.config import ModelConfig
from regrow.model.folder import describe, load, load_config, opened
from tests.compress.makers import save_model
from tests.model.makers import FAMILIES, files, logits, ours, stock, tokens

RECORD = {"of": "a test"}


def smaller(config: ModelConfig) -> ModelConfig:
    """A legal shape with something gone on every axis that this family can lose."""
    changes: dict[str, Any] = {}
    if config.layout == "mamba2":
        assert config.mamba is not None
        # The stock class needs heads x head_dim to be a multiple of the width.
        return config.replace(hidden_size=config.hidden_size // 2)
    if "-" in config.pattern:
        changes["intermediate_size"] = config.intermediate_size - 3
    per_group = config.heads // config.kv_heads
    if per_group > 1:
        changes["heads"] = config.kv_heads * (per_group // 2)
    if config.is_transformer and config.layers > 2:
        changes["layers"] = config.layers - 1
    if config.layout != "qwen2":
        heads = changes.get("heads", config.heads)
        changes["hidden_size"] = (config.hidden_size - 1) // heads * heads
    else:
        changes["hidden_size"] = changes.get("heads", config.heads) * config.head_dim
    return config.replace(**changes)


def source(folder: Path, family: str, seed: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A random model of a family as transformers saves it, in several shards."""
    model = stock(family, seed)
    if family in ("mamba2", "nemotron_h"):
        # As ours are written: what the recurrence needs stays wide.
        wide = {n for n, _ in model.named_parameters() if n.endswith(("A_log", ".D", "dt_bias"))}
    else:
        wide = set()
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name in wide else dtype)
    model.save_pretrained(folder, max_shard_size=6000)
    return folder


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_cut_is_the_cut_in_memory(family: str, seed: int, tmp_path: Path) -> None:
    folder = source(tmp_path / "source", family, seed)
    config = load_config(folder)
    target = smaller(config)
    assert target != config
    keep = choose_random(config, target, seed)
    cut_folder(folder, keep, RECORD, tmp_path / "work", tmp_path / "export")
    assert not (tmp_path / "work").exists()
    whole = load(folder)
    expected = cut(whole, keep).state_dict()
    found = load(tmp_path / "export")
    # As its stock class sees it: expand is a default that nothing reads where heads are given.
    assert describe(found.config, torch.float32) == describe(target, torch.float32)
    assert found.state_dict().keys() == expected.keys()
    for name, value in found.state_dict().items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name
    source_files = set(folder.glob("*.safetensors"))
    assert len(source_files) > 1
    assert (tmp_path / "export" / hf.INDEX).is_file()
    assert (tmp_path / "export" / hf.GENERATION_CONFIG).read_bytes() == (
        folder / hf.GENERATION_CONFIG
    ).read_bytes()


@pytest.mark.parametrize("family", ["llama", "qwen3", "nemotron_h"])
def test_transformers_computes_the_same_with_it(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = source(tmp_path / "source", family, 1, torch.float32)
    config = load_config(folder)
    keep = choose_random(config, smaller(config), 0)
    cut_folder(folder, keep, RECORD, tmp_path / "work", tmp_path / "export")
    child = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    ids = tokens(child_config := load_config(tmp_path / "export"), 2, 12)
    assert child_config.hidden_size < config.hidden_size
    expected = logits(regrow.load(tmp_path / "export"), ids)
    torch.testing.assert_close(logits(child, ids), expected, rtol=2e-5, atol=2e-5)


def test_keeping_all_writes_the_same_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "source", None, layers=3)
    config = load_config(tmp_path / "source")
    cut_folder(tmp_path / "source", Keep.all_of(config), {}, tmp_path / "w", tmp_path / "export")
    made = files(tmp_path / "export")
    assert made.pop(streamed_prune.RECORD)
    assert made == files(tmp_path / "source")


def test_every_tensor_keeps_the_dtype_of_its_file(tmp_path: Path) -> None:
    model = ours(layers=2)
    state = {n: t.to(torch.bfloat16) for n, t in model.state_dict().items()}
    norms = [name for name in state if name.endswith("norm.weight")]
    regrow.save(model.to(torch.bfloat16), tmp_path / "source")
    with opened(tmp_path / "source") as folder:
        wide = {
            theirs: state[mine].float() if mine in norms else state[mine]
            for mine, theirs in folder.names.items()
        }
    hf.save_tensors(tmp_path / "source" / hf.SINGLE, wide)
    keep = choose_random(model.config, model.config.replace(hidden_size=16), 0)
    cut_folder(tmp_path / "source", keep, {}, tmp_path / "w", tmp_path / "export")
    with hf.open_weights(tmp_path / "export") as weights:
        kinds = {name: weights.dtype(name) for name in weights.names}
    assert {kinds[name] for name in kinds if "norm" in name} == {"F32"}
    assert {kinds[name] for name in kinds if "norm" not in name} == {"BF16"}
    assert json.loads((tmp_path / "export/config.json").read_text())["dtype"] == "bfloat16"


class Stop(Exception):
    """Raised in place of a kill."""


def test_what_was_finished_is_not_done_again(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "llama", 2)
    config = load_config(folder)
    keep = choose_random(config, smaller(config), 0)
    whole = tmp_path / "whole"
    everything = cut_folder(folder, keep, RECORD, tmp_path / "w", whole)
    assert len(everything) >= 4
    work, export = tmp_path / "work", tmp_path / "export"
    done: dict[str, int] = {}
    for stop_at in (3, 7, 11):
        seen = iter(range(100))

        def advance(numbers: int, seen: Iterator[int] = seen, stop_at: int = stop_at) -> None:
            if next(seen) == stop_at:
                raise Stop

        with pytest.raises(Stop):
            cut_folder(folder, keep, RECORD, work, export, advance)
        assert not export.exists()
        there = {p.name: p.stat().st_mtime_ns for p in work.glob("model-*")}
        assert there.items() >= done.items()  # none was written again
        done = there
    assert done
    rest = cut_folder(folder, keep, RECORD, work, export)
    assert {*rest, *done} == set(everything)
    assert not {*rest} & {*done}
    assert files(export) == files(whole)
    assert cut_folder(folder, keep, RECORD, work, export) == []


def killed_at(config: PruneConfig, run: Path, save: int) -> None:
    """Run ``prune`` in a process of its own that is killed half-way through its ``save``-th shard,
    or, where it makes fewer, just before the folder becomes the export."""
    child = os.fork()
    if not child:
        count, plain = 0, hf.save_tensors

        def kill(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def half(path: Path, tensors: Any) -> None:
            nonlocal count
            plain(path, tensors)
            if count == save:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                kill()
            count += 1

        hf.save_tensors, atomic.publish_folder = half, kill
        try:
            execute("prune", config, run, quiet=True)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status


def test_killed_at_any_shard_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "llama", 2)
    shape = smaller(load_config(folder))
    sizes = ("hidden_size", "intermediate_size", "heads")
    target = ShapeTarget(**{name: getattr(shape, name) for name in sizes})
    config = PruneConfig(model=folder, selection="random", shape=target)
    whole = execute("prune", config, tmp_path / "whole", quiet=True)
    expected = files(tmp_path / "whole" / "export")
    shards = sum(name.endswith(".safetensors") for name in expected)
    run, done = tmp_path / "run", dict[str, int]()
    for save in (0, 1, 0, 2, shards):
        killed_at(config, run, save)
        assert not (run / "export").exists()
        there = {
            p.name: p.stat().st_mtime_ns for p in (run / "partial").glob("model-*.safetensors")
        }
        assert len(there) == min(len(done) + save, shards)
        assert there.items() >= done.items()
        done = there
    result = execute("prune", config, run, quiet=True)
    assert files(run / "export") == expected
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert not (run / "partial").exists()
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-2])
    assert (last["event"], last["shards"]) == ("cut", [])  # all were there already


def test_work_of_another_cut_is_thrown_away(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "llama", 2)
    config = load_config(folder)
    first, second = (choose_random(config, smaller(config), seed) for seed in (0, 1))
    calls = iter(range(100))

    def advance(numbers: int) -> None:
        if next(calls) == 6:
            raise Stop

    with pytest.raises(Stop):
        cut_folder(folder, first, {"cut": 1}, tmp_path / "work", tmp_path / "a", advance)
    assert list((tmp_path / "work").glob("model-*"))
    cut_folder(folder, second, {"cut": 2}, tmp_path / "work", tmp_path / "a")
    cut_folder(folder, second, {"cut": 2}, tmp_path / "fresh", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_shards_are_bounded_and_hold_each_tensor_once(tmp_path: Path) -> None:
    save_model(tmp_path / "source", None, layers=4)
    config = load_config(tmp_path / "source")
    keep = choose_random(config, config.replace(hidden_size=16), 0)
    with opened(tmp_path / "source") as folder:
        shards = shards_of(folder, keep.config(config), keep, limit=10_000)
        names = [piece.name for shard in shards for piece in shard]
        assert len(names) == len(set(names)) == len(folder.names)
    assert len(shards) > 3
    for shard in shards:
        assert sum(piece.nbytes for piece in shard) <= 10_000 or len(shard) == 1
    cut_folder(tmp_path / "source", keep, {}, tmp_path / "w", tmp_path / "export", limit=10_000)
    with hf.open_weights(tmp_path / "export") as weights:
        assert set(weights.names) == set(names)
    total = json.loads((tmp_path / "export" / hf.INDEX).read_text())["metadata"]["total_size"]
    assert total == sum(t.nbytes for t in load(tmp_path / "export").state_dict().values())


def test_a_shape_that_no_class_holds_and_a_broken_source_leave_nothing(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", "llama", 2)
    config = load_config(folder)
    odd = Keep.all_of(config)
    odd = Keep(odd.layers, odd.hidden[:-1], odd.neurons, odd.heads, odd.kv_heads)
    with pytest.raises(ConfigError, match="no stock llama class"):
        cut_folder(folder, odd, {}, tmp_path / "w", tmp_path / "export")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    keep = choose_random(config, smaller(config), 0)
    with pytest.raises(InputError, match=shard.name):
        cut_folder(folder, keep, {}, tmp_path / "w", tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_what_is_not_finite_may_go_and_not_stay(value: float, tmp_path: Path) -> None:
    model = stock("llama", 0)
    config = load_config(source(tmp_path / "plain", "llama", 0))
    keep = choose_random(config, smaller(config), 0)
    gone = next(n for n in range(config.hidden_size) if n not in keep.hidden)
    weights = model.model.embed_tokens.weight.data

    def cut_with(channel: int, name: str) -> Path:
        kept = weights[:, channel].clone()
        weights[5:10, channel] = value
        model.save_pretrained(tmp_path / name)
        weights[:, channel] = kept
        cut_folder(tmp_path / name, keep, {}, tmp_path / f"{name}-w", tmp_path / f"{name}-cut")
        return tmp_path / f"{name}-cut"

    assert cut_with(gone, "gone").is_dir()
    if value == 1e38:  # large, and so is the sum, but every number is finite
        assert cut_with(keep.hidden[0], "large").is_dir()
        return
    with pytest.raises(InputError, match=r"embed_tokens.*5 of the \d+ values .* not finite"):
        cut_with(keep.hidden[0], "stays")
    assert not (tmp_path / "stays-cut").exists()
