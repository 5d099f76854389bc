"""Folders go both ways between us and transformers, and hostile ones are refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from regrow.core.errors import ConfigError, InputError
from regrow.io import hf
from regrow.model.folder import load, load_config, save
from tests.model.makers import FAMILIES, files, logits, ours, stock, tokens

transformers = pytest.importorskip("transformers")


def test_fresh_model_in_the_nemotron_layout_has_a_gain_of_one(tmp_path: Path) -> None:
    from regrow.model.config import ModelConfig
    from regrow.model.decoder import Decoder

    config = ModelConfig(layout="nemotron", layers=1, hidden_size=16, heads=2, vocab_size=31)
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    assert not model.norm.weight.any()
    x = torch.randn(3, 16)
    torch.testing.assert_close(model.norm(x), torch.nn.functional.layer_norm(x, (16,)))
    save(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not theirs.model.norm.weight.any()


def test_bf16_weights_keep_their_bytes(tmp_path: Path) -> None:
    theirs = stock("llama", 1).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    assert model.embed.weight.dtype == torch.bfloat16
    save(model, tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / hf.SINGLE)
    after = load_file(tmp_path / "ours" / hf.SINGLE)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k].view(torch.int16), after[k].view(torch.int16)) for k in before)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dtype"] == "bfloat16"
    ids = tokens(model.config, 1, 9)
    torch.testing.assert_close(logits(model, ids), logits(theirs, ids), atol=0.1, rtol=0.1)
    assert load(tmp_path / "theirs", dtype=torch.float32).embed.weight.dtype == torch.float32


def test_sharded_folder_with_an_index(tmp_path: Path) -> None:
    theirs = stock("llama", 3)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    model = load(tmp_path / "theirs")
    ids = tokens(model.config, 1, 12)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("nemotron_h", "mamba2")])
def test_older_keys_at_the_top_level(family: str, tmp_path: Path) -> None:
    theirs = stock(family, 0)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    new = load_config(tmp_path)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["rope_theta"]
    if family == "nemotron":
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    path.write_text(json.dumps(config))
    assert load_config(tmp_path) == new
    config["rope_scaling"] = {"type": "linear", "factor": 2.0}
    path.write_text(json.dumps(config))
    scaled = load_config(tmp_path)
    assert scaled.rope_scaling is not None
    assert scaled.rope_scaling.factor == 2.0
    assert scaled.rotary_fraction == new.rotary_fraction


def test_nemotron_config_that_is_silent(tmp_path: Path) -> None:
    stock("nemotron", 0).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config |= {"num_key_value_heads": None, "head_dim": None, "rope_parameters": None}
    config |= {"hidden_size": 24, "num_attention_heads": 3}
    path.write_text(json.dumps(config))
    read = load_config(tmp_path)
    assert (read.kv_heads, read.head_dim, read.rotary_fraction) == (3, 8, 0.5)


def test_save_refuses_what_no_stock_class_holds(tmp_path: Path) -> None:
    model = ours(hidden_size=26, head_dim=8)
    with pytest.raises(ConfigError, match="multiple of its heads") as caught:
        save(model, tmp_path / "model")
    assert "24 or 28" in str(caught.value)
    assert not (tmp_path / "model").exists()
    with pytest.raises(Exception, match="not a multiple"):
        transformers.LlamaConfig(hidden_size=26, num_attention_heads=4, head_dim=8)
    for settings in ({"pattern": "*-*", "layers": 3}, {"qk_norm": True}, {"qkv_bias": True}):
        with pytest.raises(ConfigError):
            save(ours(**settings), tmp_path / "model")  # type: ignore[arg-type]


def test_tied_head_stored_again_is_accepted_only_when_equal(tmp_path: Path) -> None:
    stock("llama", 0).save_pretrained(tmp_path)
    path = tmp_path / hf.SINGLE
    state = load_file(path)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, path, {"format": "pt"})
    assert load(tmp_path).config.tie_embeddings
    state["lm_head.weight"][0, 0] += 1
    save_file(state, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"lm_head\.weight"):
        load(tmp_path)


def _edit(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return apply


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        shard = sorted(folder.glob("*.safetensors"))[0]
        state = load_file(shard)
        change(state)
        save_file(state, shard, {"format": "pt"})

    return apply


def _first(value: dict[str, Any]) -> str:
    return sorted(value)[0]


def _pickle_only(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def _point(target: str) -> Callable[[Path], None]:
    return _edit(hf.INDEX, lambda v: v["weight_map"].update({_first(v["weight_map"]): target}))


def _link_out(folder: Path) -> None:
    shard = _shard(folder)
    outside = folder.parent / "outside.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)


def _pipe(folder: Path) -> None:
    shard = _shard(folder)
    shard.unlink()
    os.mkfifo(shard)


def _cut(folder: Path) -> None:
    shard = _shard(folder)
    shard.write_bytes(shard.read_bytes()[:-9])


def _config(**changes: Any) -> Callable[[Path], None]:
    return _edit("config.json", lambda value: value.update(changes))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle only": (_pickle_only, r"pytorch_model\.bin.*never opened"),
    "no weights": (lambda f: [p.unlink() for p in f.glob("model*")] and None, "has neither"),
    "index out": (_point("../outside.safetensors"), "plain file name"),
    "index absolute": (_point("/etc/passwd"), "plain file name"),
    "index dots": (_point(".."), "plain file name"),
    "index backslash": (_point("a\\b.safetensors"), "plain file name"),
    "index number": (_edit(hf.INDEX, lambda v: v["weight_map"].update(a=3)), "plain file name"),
    "index pickle": (_point("pytorch_model.bin"), "only .safetensors"),
    "index empty": (_edit(hf.INDEX, lambda v: v.pop("weight_map")), "weight_map"),
    "index wrong": (
        _edit(hf.INDEX, lambda v: v["weight_map"].pop(_first(v["weight_map"]))),
        "place",
    ),
    "index too much": (
        _edit(hf.INDEX, lambda v: v["weight_map"].update(x=_first_file(v))),
        "lacks 1 tensor",
    ),
    "index text": (lambda f: (f / hf.INDEX).write_text("{") and None, "not valid JSON"),
    "shard missing": (lambda f: _shard(f).unlink(), "fetch the missing shards"),
    "shard link out": (_link_out, "leads out of its folder"),
    "shard pipe": (_pipe, "not a regular file"),
    "shard cut": (_cut, "truncated or broken"),
    "shard empty": (lambda f: _shard(f).write_bytes(b"") and None, "truncated or broken"),
    "shape": (_tensors(lambda s: s.update({_first(s): torch.zeros(3, 5)})), "has shape"),
    "dtype": (
        _tensors(lambda s: s.update({k: v.to(torch.int8) for k, v in s.items()})),
        "dtype I8",
    ),
    "larger config": (_config(vocab_size=10_000_000), "has shape"),
    "huge config": (_config(hidden_size=10**12), "hidden_size"),
    "more layers": (_config(num_hidden_layers=3000), "is missing"),
    "family": (_config(model_type="gpt2"), rf"'gpt2'.*supported: {', '.join(FAMILIES)}\)"),
    "family number": (_config(model_type=7), "supported: llama"),
    "auto_map": (_config(auto_map={"AutoConfig": "x.Y"}), "auto_map.*never"),
    "trust": (_config(trust_remote_code=True), "trust_remote_code"),
    "quantised": (_config(quantization_config={"bits": 4}), "quantised"),
    "no heads": (_config(num_attention_heads=None), "lacks num_attention_heads"),
    "odd kv heads": (_config(num_key_value_heads=7), "nearest legal kv_heads"),
    "text for a number": (_config(hidden_size="wide"), "hidden_size"),
    "activation": (_config(hidden_act="mish"), "hidden_act"),
    "rope": (_config(rope_parameters={"rope_type": "yarn", "factor": 2.0}), "'yarn'"),
    "rope text": (_config(rope_parameters="yes"), "rope_parameters"),
    "partial llama": (_config(partial_rotary_factor=0.5), "rotates whole heads"),
    "config list": (lambda f: (f / "config.json").write_text("[]") and None, "JSON object"),
    "config deep": (
        lambda f: (f / "config.json").write_text("[" * 10**5) and None,
        "not valid JSON",
    ),
    "config latin": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}') and None, "JSON"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
}


def _first_file(index: dict[str, Any]) -> str:
    return str(sorted(index["weight_map"].values())[0])


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("stock")
    stock("llama", 1).save_pretrained(folder, max_shard_size="20KB")
    return files(folder)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folder_is_one_input_error(
    name: str, sharded: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file, content in sharded.items():
        (folder / file).write_bytes(content)
    spoil, message = HOSTILE[name]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_extra_tensor_in_a_single_file(tmp_path: Path) -> None:
    stock("llama", 1).save_pretrained(tmp_path)
    _tensors(lambda s: s.update(spare=torch.zeros(2)))(tmp_path)
    with pytest.raises(InputError, match="spare is no part of a llama model"):
        load(tmp_path)


def test_a_run_is_read_from_its_export(tmp_path: Path) -> None:
    model = ours()
    save(model, tmp_path / "run" / "export")
    assert load_config(tmp_path / "run") == model.config
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "status.json").write_text("{}")
    with pytest.raises(InputError, match="has not finished"):
        load(tmp_path / "unfinished")
    with pytest.raises(InputError, match="no such path"):
        load(tmp_path / "nowhere")
