"""Each family both ways: logits, bytes, decoding, spellings of its config, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from regrow.core.errors import ConfigError, InputError
from regrow.io import hf
from regrow.model.adapters import ADAPTERS
from regrow.model.folder import load, load_config, save
from regrow.model.generate import generate
from regrow.model.shapes import parameters
from tests.model.makers import FAMILIES, SEEDS, files, logits, ours, stock, stock_settings, tokens

transformers = pytest.importorskip("transformers")

MAMBA = {"head_dim": 8, "heads": 6, "groups": 2, "state": 5, "chunk": 8}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _edit(folder: Path, **changes: Any) -> None:
    """Change keys of a config.json; ``...`` removes one."""
    path = folder / hf.CONFIG
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def _config(folder: Path, **settings: Any) -> Path:
    (folder / hf.CONFIG).write_text(json.dumps(settings))
    return folder


def test_every_family_is_tested() -> None:
    assert ADAPTERS.names() == FAMILIES
    for family in FAMILIES:
        stock_class = transformers.AutoModelForCausalLM._model_mapping[
            type(transformers.AutoConfig.for_model(family))
        ]
        assert ADAPTERS.get(family).architecture == stock_class.__name__


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways(family: str, seed: int, tmp_path: Path) -> None:
    theirs = stock(family, seed)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    ids = tokens(model.config, 2, 40, seed)
    expected = logits(theirs, ids)
    assert expected.std() > 0.05
    assert (logits(model, ids) - expected).abs().max() <= 1e-5
    assert parameters(model.config) == theirs.num_parameters()

    save(model, tmp_path / "first")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert type(back).__name__ == ADAPTERS.get(family).architecture
    assert (logits(back, ids) - logits(model, ids)).abs().max() <= 1e-5
    assert back.generation_config.eos_token_id == stock_settings(family, seed)["eos_token_id"]

    again = load(tmp_path / "first")
    assert again.config == model.config
    save(again, tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_windows_are_shorter_than_the_tested_rows() -> None:
    for family in ("mistral", "qwen2", "qwen3"):
        settings = [stock_settings(family, seed) for seed in SEEDS]
        sliding = [s for s in settings if s.get("use_sliding_window", s["sliding_window"])]
        assert len(sliding) > 5
        assert all(s["sliding_window"] < 40 for s in sliding)


#: The stock Mamba-2 classes bound time steps in rows but not token by token; without bounds the two
#: are one function.
_FREE: dict[str, dict[str, Any]] = {
    "nemotron_h": {"time_step_min": 1e-30},
    "mamba2": {"time_step_limit": [0.0, math.inf]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_greedy_tokens(family: str, tmp_path: Path) -> None:
    for seed in range(1, 9):
        theirs = stock(family, seed, max_position_embeddings=256, **_FREE.get(family, {}))
        if not theirs.config.tie_word_embeddings:
            with torch.no_grad():
                theirs.lm_head.weight.mul_(4.0)  # sets the two best logits well apart
        theirs.save_pretrained(tmp_path / str(seed))
        model = load(tmp_path / str(seed))
        prompt = tokens(model.config, 2, 7, seed)
        expected = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=100,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        best = logits(model, expected)[:, 6:-1].topk(2).values
        if (best[..., 0] - best[..., 1]).min() > 1e-4:
            break
    else:
        raise AssertionError("no shape sets its two best logits apart")
    assert expected.shape == (2, 107)
    assert torch.equal(generate(model, prompt, 100), expected)


_MINIMAL = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "vocab_size": 50,
}


@pytest.mark.parametrize("family", ["llama", "nemotron", "mistral", "qwen2", "qwen3"])
def test_a_silent_config_means_what_the_stock_class_means(family: str, tmp_path: Path) -> None:
    heads = (
        32 if family in ("qwen2", "qwen3") else 8
    )  # their number of key heads where it is silent
    minimal = {**_MINIMAL, "num_attention_heads": heads, "hidden_size": 4 * heads}
    read = load_config(_config(tmp_path, model_type=family, **minimal))
    theirs = transformers.AutoConfig.for_model(family, **minimal)
    assert read.kv_heads == theirs.num_key_value_heads or family == "nemotron"
    assert read.head_dim == (getattr(theirs, "head_dim", None) or 4)
    assert read.norm_eps == getattr(theirs, "rms_norm_eps", getattr(theirs, "norm_eps", None))
    assert read.rope_theta == theirs.rope_parameters["rope_theta"]
    assert read.max_positions == theirs.max_position_embeddings
    assert read.tie_embeddings == theirs.tie_word_embeddings
    assert read.sliding_window == getattr(theirs, "sliding_window", None)
    assert read.qkv_bias == (family == "qwen2" or getattr(theirs, "attention_bias", False))


def test_a_silent_mamba_config(tmp_path: Path) -> None:
    minimal: dict[str, Any] = {"hidden_size": 4096, "vocab_size": 50, "num_hidden_layers": 2}
    read = load_config(_config(tmp_path, model_type="mamba2", **minimal))
    theirs = transformers.Mamba2Config(**minimal)
    assert read.mamba is not None
    assert read.mamba.heads == theirs.num_heads
    assert (read.mamba.head_dim, read.mamba.state) == (theirs.head_dim, theirs.state_size)
    assert (read.mamba.groups, read.mamba.conv) == (theirs.n_groups, theirs.conv_kernel)
    assert (read.mamba.dt_low, read.mamba.dt_high) == (0.0, None)
    assert read.norm_eps == theirs.layer_norm_epsilon

    pattern = "M-*"
    minimal |= {"model_type": "nemotron_h", "hybrid_override_pattern": pattern}
    read = load_config(_config(tmp_path, **{**minimal, "num_hidden_layers": 3}))
    hybrid = transformers.NemotronHConfig(hybrid_override_pattern=pattern, hidden_size=4096)
    assert read.mamba is not None
    assert (read.heads, read.kv_heads) == (32, 8)
    assert (read.heads, read.kv_heads) == (hybrid.num_attention_heads, hybrid.num_key_value_heads)
    assert read.head_dim == hybrid.head_dim
    assert read.mamba.heads == hybrid.mamba_num_heads
    assert read.mamba.dt_low == hybrid.time_step_min == 1e-3
    assert read.intermediate_size == hybrid.intermediate_size
    assert read.activation == hybrid.mlp_hidden_act


def test_mistral_tells_no_window_from_a_silent_one(tmp_path: Path) -> None:
    _config(tmp_path, model_type="mistral", **_MINIMAL)
    assert load_config(tmp_path).sliding_window == 4096
    _edit(tmp_path, sliding_window=None)
    assert load_config(tmp_path).sliding_window is None
    _edit(tmp_path, sliding_window=7, layer_types=["sliding_attention"] * 3)
    assert load_config(tmp_path).sliding_window == 7
    _edit(tmp_path, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    with pytest.raises(InputError, match=r"layer_types.*sliding_window 7"):
        load_config(tmp_path)
    _edit(tmp_path, layer_types=..., sliding_window=0)
    with pytest.raises(InputError, match="sliding_window"):
        load_config(tmp_path)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_qwen_windows(family: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**_MINIMAL, "num_key_value_heads": 2}
    _config(tmp_path, model_type=family, **settings)

    def read(**changes: Any) -> int | None:
        settings.update(changes)
        _edit(tmp_path, **settings)
        window = load_config(tmp_path).sliding_window
        theirs = transformers.AutoConfig.for_model(family, **settings)
        kinds = set(theirs.layer_types)
        assert kinds == {"full_attention" if window is None else "sliding_attention"}
        assert window is None or window == theirs.sliding_window
        return window

    assert read(sliding_window=9) is None  # the switch is off
    assert read(use_sliding_window=True, max_window_layers=0) == 9
    assert read(max_window_layers=3) is None
    assert read(max_window_layers=70) is None
    assert read(sliding_window=None, max_window_layers=0) is None
    assert read(sliding_window=9, layer_types=["full_attention"] * 3) is None
    assert read(layer_types=["sliding_attention"] * 3) == 9
    for changes, message in (
        ({"layer_types": None, "max_window_layers": 1}, "2 of 3 layers slide"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "4 entries for 3"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "1 of 3"),
        ({"layer_types": ["chunked_attention"] * 3}, r"layer_types\[0\] is 'chunked_attention'"),
        ({"layer_types": [3, 4, 5]}, "list of words"),
        ({"layer_types": None, "use_sliding_window": "yes"}, "true or false"),
    ):
        _edit(tmp_path, **changes)
        with pytest.raises(InputError, match=message):
            load_config(tmp_path)
    _edit(tmp_path, use_sliding_window=False, layer_types=["sliding_attention"] * 3)
    with pytest.raises(InputError, match="give no window"):
        load_config(tmp_path)


def test_qwen2_honours_a_head_size_that_it_does_not_declare(tmp_path: Path) -> None:
    theirs = stock(
        "qwen2", 0, head_dim=6, hidden_size=20, num_key_value_heads=2, num_attention_heads=4
    )
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert (model.config.head_dim, model.config.hidden_size) == (6, 20)
    ids = tokens(model.config, 1, 12)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5
    with pytest.raises(ConfigError, match="no declared head_dim"):
        save(model, tmp_path / "again")


_SPELLINGS: dict[str, dict[str, Any]] = {
    "pattern alone": {"layers_block_type": ..., "hybrid_override_pattern": "M-*M"},
    "older kinds": {"layers_block_type": ["mamba", "mlp", "attention", "mamba"]},
    "layer_types": {
        "layers_block_type": ...,
        "layer_types": ["linear_attention", "mlp", "full_attention", "linear_attention"],
    },
    "bare infinity": {"time_step_limit": [0.0, math.inf]},
    "older names": {
        "n_groups": ...,
        "mamba_n_groups": 2,
        "mamba_d_conv": 4,
        "conv_kernel": 9,
        "mamba_expand": 2,
        "mamba_dt_min": 1e-30,
        "time_step_min": ...,
        "mamba_dt_max": 0.4,
        "mamba_conv_bias": True,
        "use_conv_bias": False,
        "mamba_chunk_size": 8,
        "mamba_dt_init_floor": 1e-4,
    },
    "tie without effect": {"tie_word_embeddings": True},
    "bias without effect": {"attention_bias": True, "mamba_proj_bias": True},
    "limit without effect": {"time_step_limit": [0.2, 0.3]},
}


def _hybrid(seed: int = 0, **changes: Any) -> Any:
    settings = {
        "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention"],
        "n_groups": 2,
        "mamba_num_heads": 4,
        "conv_kernel": 4,
        "use_conv_bias": True,
        "chunk_size": 8,
        "time_step_min": 1e-30,
    }
    return stock("nemotron_h", seed, **{**settings, **changes})


@pytest.mark.parametrize("name", _SPELLINGS)
def test_spellings_of_a_hybrid_config(name: str, tmp_path: Path) -> None:
    theirs = _hybrid()
    theirs.save_pretrained(tmp_path)
    plain = load_config(tmp_path)
    _edit(tmp_path, **_SPELLINGS[name])
    model = load(tmp_path)
    assert model.config == plain
    # The stock class reads the same from it.
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokens(plain, 1, 20)
    assert torch.equal(logits(again, ids), logits(theirs, ids))
    assert (logits(model, ids) - logits(again, ids)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_block_type": ["mlp", "moe"]}, "'E' at index 1.*mixture of experts"),
        ({"layers_block_type": ..., "hybrid_override_pattern": "M-E*"}, "'E' at index 2"),
        ({"layers_block_type": ..., "hybrid_override_pattern": "M-*X"}, "'X' at index 3"),
        ({"layers_block_type": ..., "hybrid_override_pattern": "MM*/M-"}, "multi-token"),
        ({"layers_block_type": ["mlp", "rwkv"]}, r"layers_block_type\[1\] is 'rwkv'"),
        ({"layers_block_type": "mlp"}, "list of words"),
        ({"layers_block_type": ...}, "lacks layers_block_type"),
        ({"layers_block_type": []}, "lacks layers_block_type"),
        ({"hybrid_override_pattern": "M-**"}, "say different patterns"),
        ({"num_hidden_layers": 7}, "num_hidden_layers is 7"),
        ({"mlp_hidden_act": "silu"}, "mlp_hidden_act 'silu'"),
        ({"mamba_hidden_act": "relu"}, "mamba_hidden_act 'relu'"),
        ({"n_groups": 3}, "mamba.groups 3 does not divide"),
        ({"n_groups": 0}, "n_groups must be a whole number"),
        ({"time_step_min": -1.0}, "dt_low"),
        ({"time_step_min": "small"}, "time_step_min must be a number"),
        ({"time_step_min": math.nan}, "time_step_min must be a number"),
        ({"use_conv_bias": False}, r"conv1d\.bias is no part"),
        ({"mamba_num_heads": 5, "n_groups": 1}, "has shape"),
    ],
)
def test_hybrid_config_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    _hybrid().save_pretrained(tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_what_the_stock_class_cannot_spell(tmp_path: Path) -> None:
    _hybrid().save_pretrained(tmp_path)
    plain = load_config(tmp_path)
    _edit(tmp_path, layers_block_type=..., hybrid_override_pattern="M-|*M")
    assert load_config(tmp_path) == plain
    _edit(tmp_path, head_dim=..., attention_head_dim=plain.head_dim)
    assert load_config(tmp_path) == plain


def test_hybrid_is_written_in_both_spellings(tmp_path: Path) -> None:
    model = ours(pattern="MM-*-M", layers=6, layout="nemotron_h", mamba=MAMBA)
    assert model.config.activation == "relu2"
    save(model, tmp_path)
    written = json.loads((tmp_path / hf.CONFIG).read_text())
    assert written["hybrid_override_pattern"] == "MM-*-M"
    assert written["layers_block_type"][2:4] == ["mlp", "full_attention"]
    assert written["num_hidden_layers"] == 6
    assert written["time_step_min"] == 1e-30  # no bound; zero has no logarithm
    assert written["time_step_limit"] == [1e-30, {"__float__": "Infinity"}]
    assert set(load_file(tmp_path / hf.SINGLE)) >= {
        "backbone.embeddings.weight",
        "backbone.layers.0.mixer.A_log",
        "backbone.layers.3.mixer.q_proj.weight",
        "backbone.norm_f.weight",
        "lm_head.weight",
    }
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokens(model.config, 2, 30)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5
    assert load(tmp_path).config == model.config
    for key in ("layers_block_type", "hybrid_override_pattern"):
        _edit(tmp_path, **{key: ...})
        alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(logits(alone, ids), logits(theirs, ids))
        assert load_config(tmp_path) == model.config
        _edit(tmp_path, **written)


@pytest.mark.parametrize("pattern", ["*-*-", "**", "*", "M*", "-*M", "*M-"])
def test_patterns_that_lack_a_kind(pattern: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"mamba": MAMBA} if "M" in pattern else {}
    layers = 2 if pattern == "*-*-" else len(pattern)
    model = ours(pattern=pattern, layers=layers, layout="nemotron_h", **settings)
    save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokens(model.config, 2, 20)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5
    assert load(tmp_path).config == model.config


@pytest.mark.parametrize("dt_low", [0.0, 0.02, 0.5])
def test_time_steps_are_bounded_as_the_stock_class_bounds_them(
    dt_low: float, tmp_path: Path
) -> None:
    mamba = {**MAMBA, "dt_low": dt_low}
    model = ours(pattern="M*M", layers=3, layout="nemotron_h", mamba=mamba)
    free = ours(pattern="M*M", layers=3, layout="nemotron_h", mamba=MAMBA)
    save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokens(model.config, 1, 20)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5
    assert torch.equal(logits(model, ids), logits(free, ids)) == (dt_low == 0.0)


def test_names_of_the_stock_class_in_memory(tmp_path: Path) -> None:
    theirs = _hybrid()
    theirs.save_pretrained(tmp_path)
    expected = load(tmp_path).state_dict()
    state = load_file(tmp_path / hf.SINGLE)
    inner = {name.replace("backbone.", "model."): tensor for name, tensor in state.items()}
    inner["model.embedding.weight"] = inner.pop("model.embeddings.weight")
    save_file(inner, tmp_path / hf.SINGLE, {"format": "pt"})
    got = load(tmp_path).state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    inner["backbone.norm_f.weight"] = state["backbone.norm_f.weight"].clone()
    save_file(inner, tmp_path / hf.SINGLE, {"format": "pt"})
    with pytest.raises(InputError, match="are the same tensor"):
        load(tmp_path)


@pytest.mark.parametrize("family", ["nemotron_h", "mamba2"])
def test_bf16_keeps_the_dynamics_wide(family: str, tmp_path: Path) -> None:
    theirs = stock(family, 1).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    wide = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    assert wide == {name for name in model.state_dict() if ".dynamics." in name} != set()
    assert load(tmp_path / "theirs", dtype=torch.bfloat16).state_dict()[min(wide)].dtype == (
        torch.float32
    )
    save(model, tmp_path / "first")
    save(load(tmp_path / "first"), tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")
    before, after = (load_file(tmp_path / f / hf.SINGLE) for f in ("theirs", "first"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), after[name].float()) for name in before)
    assert json.loads((tmp_path / "first" / hf.CONFIG).read_text())["dtype"] == "bfloat16"
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    ids = tokens(model.config, 1, 9)
    expected = logits(back, ids).float()
    assert (logits(model, ids) - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("family", ["llama", "nemotron_h"])
def test_norms_stored_wider_than_the_rest(family: str, tmp_path: Path) -> None:
    theirs = stock(family, 1).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / hf.SINGLE)
    state = {name: t.float() if "norm" in name else t for name, t in state.items()}
    save_file(state, tmp_path / hf.SINGLE, {"format": "pt"})
    model = load(tmp_path)
    assert model.norm.weight.dtype == model.embed.weight.dtype == torch.bfloat16
    ids = tokens(model.config, 1, 9)
    expected = logits(theirs, ids).float()
    assert (logits(model, ids) - expected).abs().max() < 0.05 * expected.abs().max()


def test_mamba2_folders_of_older_names(tmp_path: Path) -> None:
    theirs = stock("mamba2", 0)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / hf.SINGLE)
    state["backbone.embedding.weight"] = state.pop("backbone.embeddings.weight")
    state["lm_head.weight"] = state["backbone.embedding.weight"].clone()
    save_file(state, tmp_path / hf.SINGLE, {"format": "pt"})
    model = load(tmp_path)
    assert model.config.tie_embeddings
    ids = tokens(model.config, 1, 9)
    assert (logits(model, ids) - logits(theirs, ids)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 7}, r"7 x 6 = 42"),
        ({"expand": 5}, r"expand 5 x hidden_size 12 = 60.*4 x 6 = 24"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"time_step_limit": [0.0]}, "two numbers"),
        ({"time_step_limit": [0.0, {"__float__": "NaN"}]}, "time_step_limit must be a number"),
        ({"time_step_limit": [0.0, 10**400]}, "time_step_limit must be a number"),
        ({"time_step_limit": [0.5, 0.1]}, "dt_low.*exceeds"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
    ],
)
def test_mamba2_config_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    stock("mamba2", 0, n_groups=1, num_heads=4, head_dim=6, hidden_size=12).save_pretrained(
        tmp_path
    )
    _edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


_PURE = {"pattern": "MM", "layers": 2, "heads": 0, "kv_heads": 0}
_HYBRID = {"layout": "nemotron_h", "pattern": "M*-", "layers": 3, "mamba": MAMBA}
_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"layout": "mistral", "qkv_bias": True}, "qkv_bias = False only"),
    ({"layout": "mistral", "activation": "relu2"}, "activation = 'swiglu' only"),
    ({"layout": "mistral", "head_dim": 8, "rotary_fraction": 0.5}, "rotary_fraction = 1.0 only"),
    ({"layout": "llama", "sliding_window": 4}, "sliding_window = None only"),
    ({"layout": "nemotron", "head_dim": 8, "sliding_window": 4}, "sliding_window = None only"),
    ({"layout": "qwen2", "qkv_bias": False}, "qkv_bias = True only"),
    ({"layout": "qwen2", "output_bias": True}, "output_bias = False only"),
    ({"layout": "qwen2", "head_dim": 8}, "heads 4 x head_dim 8 = 32"),
    ({"layout": "qwen3", "qk_norm": False}, "qk_norm = True only"),
    ({"layout": "qwen3", "qkv_bias": True}, "one switch"),
    ({"layout": "qwen3", "pattern": "*--", "layers": 3}, "pairs only"),
    ({"layout": "llama", "pattern": "M*-", "layers": 3, "mamba": MAMBA}, "pairs only"),
    ({**_HYBRID, "rotary_fraction": 1.0}, "rotary_fraction = 0.0 only"),
    ({**_HYBRID, "tie_embeddings": True}, "tie_embeddings = False only"),
    ({**_HYBRID, "qkv_bias": True}, "qkv_bias = False only"),
    ({**_HYBRID, "sliding_window": 5}, "sliding_window = None only"),
    ({**_HYBRID, "activation": "swiglu"}, "MLPs without a gate"),
    ({**_HYBRID, "mamba": {**MAMBA, "dt_high": 0.5}}, "dt_high must be null"),
    ({**_HYBRID, "pattern": "M-M"}, "without an attention block"),
    ({**_PURE, "layout": "mamba2", "mamba": MAMBA | {"heads": 10}}, "legal heads: 9 or 12"),
    ({**_PURE, "layout": "mamba2", "mamba": MAMBA, "norm": "layernorm1p"}, "norm = 'rmsnorm'"),
    ({**_HYBRID, "layout": "mamba2"}, "use layout nemotron_h"),
]


@pytest.mark.parametrize(("settings", "message"), _REFUSED)
def test_export_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = ours(**settings)
    with pytest.raises(ConfigError, match=message):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_is_refused_is_what_the_stock_classes_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="hidden_size \\* expand"):
        transformers.Mamba2Config(hidden_size=24, num_heads=10, head_dim=8)
    tied = _hybrid(tie_word_embeddings=True)
    assert tied.lm_head.weight is not tied.get_input_embeddings().weight
    pure = _hybrid(layers_block_type=["linear_attention", "mlp"])
    ids = torch.ones(1, 3, dtype=torch.int64)
    with pytest.raises(Exception, match=r"attention|layer"):
        pure.generate(ids, max_new_tokens=3, attention_mask=torch.ones_like(ids), pad_token_id=0)
    # Zero as the lowest time step, which we write as 1e-30.
    pure.save_pretrained(tmp_path)
    _edit(tmp_path, time_step_min=0.0)
    with pytest.raises(Exception, match=r"math domain|log|positive"):
        transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(tmp_path)
        )
