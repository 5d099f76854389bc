"""A small corpus as shards, a tokenizer for it, models in folders, and cuts done by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from regrow.compress.slicing import Keep
from regrow.data.shards import Vocabulary, write_shard
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.folder import save
from tests.model.makers import ours, perturb

WORDS = {
    "code": ["def ", "return ", "x", "y", " = ", "(", ")", ":\n", "    ", "import ", "self.", "1"],
    "prose": ["the ", "a ", "tree ", "grows ", "slowly ", "and ", "it ", "is ", "tall", ". ", "\n"],
}
VOCAB = 290


def text(source: str, seed: int, words: int = 60) -> str:
    """A random walk in which each word mostly fixes the next: there is something to learn."""
    draw, known = random.Random(f"{source} {seed}"), WORDS[source]
    at, made = 0, []
    for _ in range(words):
        at = (at * 5 + 3) % len(known) if draw.random() < 0.8 else draw.randrange(len(known))
        made.append(known[at])
    return "".join(made)


def make_tokenizer() -> Tokenizer:
    """Byte-level, fitted to the corpus."""
    return train_byte_level((text(s, i) for s in WORDS for i in range(20)), VOCAB)


def make_shards(folder: Path, tokenizer: Tokenizer, documents: int = 60) -> Path:
    """Shards of both sources for all splits, as ``tokenize`` leaves them."""
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    for number, split in enumerate(("train", "validation", "test")):
        for source in WORDS:
            count = documents if split == "train" else documents // 4
            texts = [text(source, 1000 * number + i) for i in range(count)]
            rows = [(tokenizer.encode(t), len(t.encode())) for t in texts]
            write_shard(folder / "shards" / split, source, rows, vocabulary)
    return folder


def save_model(folder: Path, tokenizer: Tokenizer | None, **settings: Any) -> Decoder:
    """A random model of the tokenizer's vocabulary in a folder, beside its tokenizer."""
    size = tokenizer.vocab_size if tokenizer is not None else VOCAB
    model = ours(**{"vocab_size": size, "max_positions": 256, **settings})
    save(model, folder, tokenizer)
    return model


def small(**settings: Any) -> ModelConfig:
    """A shape with grouped heads whose width is not heads x head_dim."""
    shape: dict[str, Any] = {
        "layers": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 6,
        "vocab_size": 61,
    }
    return ModelConfig(**{**shape, **settings})


FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "nemotron", "nemotron_h", "mamba2"]
_PATTERN = "M-*M-*-M"


def stock(family: str, tied: bool = False) -> Any:
    """A transformers model that can be cut to what :func:`halves` keeps."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    kinds = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
    mamba = {"n_groups": 2, "chunk_size": 8, "use_bias": True, "conv_kernel": 3}
    settings: dict[str, Any] = {"vocab_size": 61, "hidden_size": 32, "tie_word_embeddings": tied}
    if family == "mamba2":
        settings |= {
            **mamba, "num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 5,
            "num_hidden_layers": 4,
        }  # fmt: skip
    else:
        settings |= {
            "intermediate_size": 32,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "attention_bias": family in ("llama", "qwen3"),
            "mlp_bias": True,
        }
        if family != "qwen2":  # which has no such setting
            settings["head_dim"] = 4 if family == "llama" else 8
    if family == "nemotron_h":
        settings |= {
            **mamba, "mamba_num_heads": 8, "mamba_head_dim": 6, "ssm_state_size": 5,
            "layers_block_type": [kinds[symbol] for symbol in _PATTERN],
        }  # fmt: skip
    elif family != "mamba2":
        extra = {"partial_rotary_factor": 0.5} if family == "nemotron" else {}
        rope = {"rope_type": "default", "rope_theta": 100.0, **extra}
        settings |= {"num_hidden_layers": 4, "rope_parameters": rope}
    if family == "mistral":
        settings["sliding_window"] = 7
    config = AutoConfig.for_model(family, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    perturb(model)
    return model


def halves(config: ModelConfig) -> Keep:
    """Half of everything, of nothing the first half, each block its own choice."""
    draw = random.Random(0)

    def some(count: int, whole: int) -> tuple[int, ...]:
        return tuple(sorted(draw.sample(range(whole), count)))

    def grouped(groups: int, each: int) -> tuple[int, ...]:
        return tuple(g * each + i for g in range(groups) for i in some(each // 2, each))

    kinds = {"M": [0, 3, 7], "*": [2], "-": [1, 6]}
    lists: dict[str, dict[int, tuple[int, ...]]] = {
        name: {} for name in ("neurons", "heads", "kv_heads", "mamba_heads", "mamba_channels")
    }
    if config.is_transformer or config.layout == "mamba2":
        layers: tuple[int, ...] = (0, 1, 3)
    else:
        layers = tuple(sorted(block for blocks in kinds.values() for block in blocks))
    blocks = [2 * n + i for n in layers for i in (0, 1)] if config.is_transformer else layers
    for block in blocks:
        if config.pattern[block] == "-":
            lists["neurons"][block] = some(16, 32)
        elif config.pattern[block] == "*":
            lists["heads"][block], lists["kv_heads"][block] = grouped(2, 4), (0, 1)
        else:
            sizes = config.mamba
            assert sizes is not None
            lists["mamba_heads"][block] = grouped(2, 4)
            # Mamba2's inner width is a multiple of its hidden size: a fourth of both then.
            kept = sizes.head_dim if config.layout == "mamba2" else sizes.head_dim // 2
            lists["mamba_channels"][block] = some(kept, sizes.head_dim)
    return Keep(layers, some(16, 32), **lists)


def cut_by_hand(model: Any, keep: Keep) -> Any:
    """A transformers model of what stays, from a transformers model, in transformers' names."""
    from transformers import AutoConfig, AutoModelForCausalLM

    old, family = model.config, model.config.model_type
    hidden = list(keep.hidden)
    settings = old.to_dict() | {"hidden_size": len(hidden)}
    for gone in ("model_type", "layer_types", "num_hidden_layers"):
        settings.pop(gone, None)
    recurrent = family in ("nemotron_h", "mamba2")
    if family == "nemotron_h":
        kinds = model.config.layers_block_type
        settings["layers_block_type"] = [kinds[layer] for layer in keep.layers]
    else:
        settings["num_hidden_layers"] = len(keep.layers)
    if keep.neurons:
        settings["intermediate_size"] = len(next(iter(keep.neurons.values())))
    if keep.heads:
        settings["num_attention_heads"] = len(next(iter(keep.heads.values())))
    if keep.mamba_heads:
        heads, width = (
            len(next(iter(lists.values()))) for lists in (keep.mamba_heads, keep.mamba_channels)
        )
        if family == "mamba2":
            settings |= {"num_heads": heads, "head_dim": width}
        else:
            settings |= {"mamba_num_heads": heads, "mamba_head_dim": width}
    child = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    state, made = model.state_dict(), {}
    stem = "backbone" if any(name.startswith("backbone") for name in state) else "model"
    for name, value in state.items():
        if f"{stem}.layers." not in name:
            made[name] = value[:, hidden] if value.ndim == 2 else value[hidden]
    for new, layer in enumerate(keep.layers):
        there, here = f"{stem}.layers.{layer}.", f"{stem}.layers.{new}."
        first, second = (layer, layer) if recurrent else (2 * layer, 2 * layer + 1)
        for name, value in state.items():
            if name.startswith(there):
                rest = name.removeprefix(there)
                if (
                    "mixer.norm" not in rest
                    and "norm" in rest
                    and "_norm" not in rest.split(".")[1]
                ):
                    made[here + rest] = value[hidden]
                else:
                    part = rest.split(".", 1)[1]
                    made[here + rest] = _part(part, value, old, keep, hidden, first, second)
    child.load_state_dict(made)
    return child


def _part(
    part: str, value: Any, old: Any, keep: Keep, hidden: list[int], first: int, second: int
) -> Any:
    """One tensor of a mixer, attention or MLP."""
    projection = part.split(".")[0]
    matrix = value.ndim == 2
    if first in keep.mamba_heads:
        count = getattr(old, "mamba_num_heads", None) or old.num_heads
        width = getattr(old, "mamba_head_dim", None) or old.head_dim
        state = getattr(old, "ssm_state_size", None) or old.state_size
        inner, shared = count * width, 2 * old.n_groups * state
        heads = list(keep.mamba_heads[first])
        channels = [h * width + c for h in heads for c in keep.mamba_channels[first]]
        if part in ("A_log", "D", "dt_bias"):
            return value[heads]
        if projection == "norm":
            return value[channels]
        if projection == "out_proj":
            return value[hidden][:, channels] if matrix else value[hidden]
        if projection == "conv1d":
            return torch.cat([value[:inner][channels], value[inner:]])
        assert projection == "in_proj", part
        z, x, rest, steps = value.split([inner, inner, shared, count])
        rows = torch.cat([z[channels], x[channels], rest, steps[heads]])
        return rows[:, hidden] if matrix else rows
    if projection in ("q_norm", "k_norm"):
        return value
    if projection in ("up_proj", "gate_proj", "down_proj"):
        neurons = list(keep.neurons[second])
        if projection == "down_proj":
            return value[hidden][:, neurons] if matrix else value[hidden]
        return value[neurons][:, hidden] if matrix else value[neurons]
    width = getattr(old, "head_dim", None) or old.hidden_size // old.num_attention_heads
    rows = [h * width + c for h in keep.heads[first] for c in range(width)]
    if projection == "o_proj":
        return value[hidden][:, rows] if matrix else value[hidden]
    if projection == "q_proj":
        value = value[rows]
    return value[:, hidden] if matrix else value
