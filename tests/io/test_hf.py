"""Folders of tensors: exact bytes, whole or absent, in one file or several."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from regrow.core.errors import InputError
from regrow.io import hf
from regrow.io.runs import resolve_documents, resolve_model, resolve_shards, resolve_tokenizer


def tensors(count: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"t{i}": torch.randn(i + 1, 7, generator=generator) for i in range(count)}


@pytest.mark.parametrize("limit", [1, 60, 150, 10**9])
def test_what_is_written_is_read(limit: int, tmp_path: Path) -> None:
    state = tensors()
    state["half"] = torch.ones(3, dtype=torch.bfloat16)
    state["scalar"] = torch.tensor(2.5)
    hf.write_folder(tmp_path / "a", {"x": 1}, iter(state.items()), {"eos": 2}, limit)
    hf.write_folder(tmp_path / "b", {"x": 1}, iter(state.items()), {"eos": 2}, limit)
    assert hf.read_config(tmp_path / "a") == {"x": 1}
    with hf.open_weights(tmp_path / "a") as weights:
        assert sorted(weights.names) == sorted(state)
        for name, tensor in state.items():
            assert weights.shape(name) == tuple(tensor.shape)
            read = weights.tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)
        assert weights.dtype("half") == "BF16"
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    if limit < 10**9:
        index = json.loads((tmp_path / "a" / hf.INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in state.values())
        for file in set(index["weight_map"].values()):
            held = load_file(tmp_path / "a" / file)
            assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= limit


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    hf.write_folder(tmp_path / "a", {"x": 1}, tensors().items())

    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "one", torch.zeros(2)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="power"):
        hf.write_folder(tmp_path / "a", {"x": 2}, broken())
    with pytest.raises(ValueError, match="two tensors"):
        hf.write_folder(tmp_path / "a", {"x": 2}, [("a", torch.zeros(1))] * 2)
    assert hf.read_config(tmp_path / "a") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    hf.write_folder(tmp_path / "a", {}, tensors(2).items(), max_shard_bytes=1)
    first, second = sorted((tmp_path / "a").glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="is also in"):
        hf.open_weights(tmp_path / "a")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_any_damaged_file_is_an_input_error_or_other_numbers(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        hf.write_folder(folder, {}, tensors().items())
        (folder.parent / "sound").write_bytes((folder / hf.SINGLE).read_bytes())
    content = bytearray((folder.parent / "sound").read_bytes())
    place %= len(content)
    content[place] = value
    (folder / hf.SINGLE).write_bytes(content[:place] if cut else content)
    message = ""
    try:
        with hf.open_weights(folder) as weights:
            for name in weights.names:
                weights.tensor(name)
    except InputError as error:  # nothing else may be raised
        message = str(error)
    assert not message or hf.SINGLE in message


def test_resolving_paths(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in (
        "export/config.json",
        "export/tokenizer.json",
        "shards/train/a.bin",
        "documents/train.parquet",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}")
    assert resolve_model(run) == resolve_model(run / "export") == run / "export"
    assert resolve_tokenizer(run) == run / "export" / "tokenizer.json"
    assert resolve_tokenizer(run / "export" / "tokenizer.json") == resolve_tokenizer(run)
    assert resolve_shards(run) == resolve_shards(run / "shards") == run / "shards"
    assert resolve_documents(run) == resolve_documents(run / "documents") == run / "documents"
    for resolve in (resolve_model, resolve_tokenizer, resolve_shards, resolve_documents):
        with pytest.raises(InputError, match="no such path"):
            resolve(tmp_path / "nowhere")
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="or the run that made it"):
            resolve(tmp_path / "empty")
