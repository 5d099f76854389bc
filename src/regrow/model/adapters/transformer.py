"""What the families of attention+MLP pairs share: llama, its descendants, nemotron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrow.core.errors import InputError
from regrow.model.adapters.base import (
    HfConfig,
    check_settings,
    count,
    flag,
    get,
    read_ids,
    read_rope,
    require,
    shorten,
    words,
    write_rope,
    write_shape,
)
from regrow.model.config import ModelConfig
from regrow.model.shapes import tensor_shapes


def read_shape(
    hf: HfConfig, head_dim: int = 0, missing_kv_heads: int | None = None
) -> dict[str, Any]:
    """Sizes and token ids.

    Args:
        hf: the config.
        head_dim: the family's default; 0 for ``hidden_size / num_attention_heads``.
        missing_kv_heads: what the family takes where the key is missing; where it is null, and
            by default, there are as many as query heads.

    Raises:
        InputError: a size is missing.
    """
    heads = require(hf, "num_attention_heads")
    kv_heads = get(hf, "num_key_value_heads", heads)
    if missing_kv_heads is not None and "num_key_value_heads" not in hf:
        kv_heads = missing_kv_heads
    return {
        "layers": require(hf, "num_hidden_layers"),
        "hidden_size": require(hf, "hidden_size"),
        "intermediate_size": require(hf, "intermediate_size"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": get(hf, "head_dim", head_dim),
        "vocab_size": require(hf, "vocab_size"),
        "tie_embeddings": flag(hf, "tie_word_embeddings", False),
        **read_ids(hf),
    }


def read_gated(
    hf: HfConfig,
    family: str,
    max_positions: int,
    head_dim: int = 0,
    missing_kv_heads: int | None = None,
) -> dict[str, Any]:
    """Settings of llama and its descendants: RMSNorm, SwiGLU, rotation of whole heads.

    Args:
        hf: the config.
        family: for messages, and as our layout.
        max_positions: the family's default.
        head_dim: see :func:`read_shape`.
        missing_kv_heads: see :func:`read_shape`.

    Raises:
        InputError: another activation or rotation, a size that is missing.
    """
    activation = get(hf, "hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise InputError(
            f"hidden_act {shorten(activation)} is not supported for {family} (supported: silu)"
        )
    rope = read_rope(hf, fraction=1.0)
    if rope["rotary_fraction"] != 1.0:
        raise InputError(
            f"partial_rotary_factor {shorten(rope['rotary_fraction'])}: the stock {family} class "
            "rotates whole heads; remove the key or set it to 1"
        )
    return {
        "layout": family,
        "norm": "rmsnorm",
        "norm_eps": get(hf, "rms_norm_eps", 1e-6),
        "activation": "swiglu",
        "max_positions": get(hf, "max_position_embeddings", max_positions),
        "init_std": get(hf, "initializer_range", 0.02),
        **read_shape(hf, head_dim, missing_kv_heads),
        **rope,
    }


def write_gated(config: ModelConfig, family: str, architecture: str) -> dict[str, Any]:
    """The settings of :func:`read_gated` in Hugging Face's names."""
    return {
        "model_type": family,
        "architectures": [architecture],
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": write_rope(config),
        **write_shape(config),
    }


def check_pairs(config: ModelConfig, class_name: str, expected: Mapping[str, Any]) -> list[str]:
    """Rules that every attention+MLP class has, and settings that ``class_name`` fixes."""
    problems = check_settings(config, class_name, expected)
    if not config.is_transformer:
        problems.insert(
            0, f"{class_name} holds attention+MLP pairs only, not pattern {config.pattern!r}"
        )
    return problems


def check_gated(config: ModelConfig, class_name: str, expected: Mapping[str, Any]) -> list[str]:
    """Rules of llama and its descendants, with what ``class_name`` fixes beyond them."""
    common = {"norm": "rmsnorm", "activation": "swiglu", "rotary_fraction": 1.0}
    return check_pairs(config, class_name, {**common, **expected})


def check_one_bias_switch(config: ModelConfig, class_name: str) -> list[str]:
    """For classes that have biases in all of attention's projections or in none."""
    if config.qkv_bias == config.output_bias:
        return []
    return [
        f"{class_name} has one switch for attention's biases: qkv_bias is {config.qkv_bias}, "
        f"output_bias {config.output_bias}; make them equal"
    ]


def read_window(hf: HfConfig) -> int | None:
    """The sliding window of all layers, of families that have a switch and a kind for each layer.

    Without ``layer_types`` the layers from ``max_window_layers`` on slide.

    Raises:
        InputError: some layers slide and some do not, which one setting for all cannot say.
    """
    layers = count(hf, "num_hidden_layers")
    window: int | None = None
    if flag(hf, "use_sliding_window", False) and hf.get("sliding_window", 4096) is not None:
        window = count(hf, "sliding_window", 4096)
    kinds = words(hf, "layer_types")
    if kinds is None:
        full = get(hf, "max_window_layers", 28)
        if not isinstance(full, int) or isinstance(full, bool):
            raise InputError(f"max_window_layers must be a whole number, not {shorten(full)}")
        sliding = min(max(layers - full, 0), layers) if window is not None else 0
    else:
        sliding = _count_sliding(kinds, layers)
    if not sliding:
        return None
    if window is None:
        raise InputError(
            "layer_types has sliding_attention, but use_sliding_window and sliding_window give no "
            "window; set both, or make every layer full_attention"
        )
    if sliding != layers:
        raise InputError(
            f"{sliding} of {layers} layers slide over sliding_window {window} and the others do "
            "not; regrow has one window for all layers (max_window_layers 0, or "
            "use_sliding_window false)"
        )
    return window


def read_kinds(hf: HfConfig, window: int | None) -> None:
    """Compare ``layer_types``, where a family has one window for all layers, with that window.

    Raises:
        InputError: they disagree.
    """
    kinds = words(hf, "layer_types")
    if kinds is None:
        return
    layers = count(hf, "num_hidden_layers")
    if _count_sliding(kinds, layers) != (0 if window is None else layers):
        raise InputError(
            f"layer_types does not agree with sliding_window {window}, which this family applies "
            "to every layer; remove layer_types, or make them agree"
        )


def _count_sliding(kinds: list[str], layers: int) -> int:
    for index, kind in enumerate(kinds):
        if kind not in ("full_attention", "attention", "sliding_attention"):
            raise InputError(
                f"layer_types[{index}] is {shorten(kind)} "
                "(supported: full_attention, sliding_attention)"
            )
    if len(kinds) != layers:
        raise InputError(f"layer_types has {len(kinds)} entries for {layers} num_hidden_layers")
    return kinds.count("sliding_attention")


def write_window(config: ModelConfig) -> dict[str, Any]:
    """The settings of :func:`read_window`."""
    slides = config.sliding_window is not None
    kind = "sliding_attention" if slides else "full_attention"
    return {
        "use_sliding_window": slides,
        "sliding_window": config.sliding_window,
        "max_window_layers": 0 if slides else config.layers,
        "layer_types": [kind] * config.layers,
    }


def transformer_names(config: ModelConfig) -> list[tuple[str, str]]:
    """Names of our tensors and theirs, in the layout that llama and its descendants share."""
    pairs = []
    for ours in tensor_shapes(config):
        part, _, rest = ours.partition(".")
        if part == "embed":
            theirs = f"model.embed_tokens.{rest}"
        elif part == "norm":
            theirs = f"model.norm.{rest}"
        elif part == "head":
            theirs = f"lm_head.{rest}"
        else:
            number, inner, tail = rest.split(".", 2)
            layer, second = divmod(int(number), 2)
            if inner == "norm":
                name = "post_attention_layernorm" if second else "input_layernorm"
            else:
                name = "mlp" if second else "self_attn"
            theirs = f"model.layers.{layer}.{name}.{tail}"
        pairs.append((ours, theirs))
    return pairs
