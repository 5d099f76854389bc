"""Small random models, ours and transformers', with every parameter away from its initial value."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder

FAMILIES = ["llama", "nemotron", "mistral", "qwen2", "qwen3", "nemotron_h", "mamba2"]
SEEDS = range(20)

_SIZES = MambaConfig(state=5, head_dim=6, heads=8, groups=2, chunk=4)
#: Patterns with Mamba-2 blocks, as settings of :func:`ours`.
HYBRIDS: dict[str, dict[str, Any]] = {
    "hybrid": {"pattern": "M*M-", "layers": 4, "mamba": _SIZES},
    "pure": {"pattern": "MM", "layers": 2, "mamba": _SIZES.replace(groups=1, conv_bias=False)},
    "rotated": {
        "pattern": "*M-",
        "layers": 3,
        "rotary_fraction": 1.0,
        "mamba": _SIZES.replace(conv=2, proj_bias=True, dt_low=0.01, dt_high=0.5),
    },
    "window": {"pattern": "M*-", "layers": 3, "sliding_window": 4, "mamba": _SIZES},
}


def perturb(model: nn.Module, seed: int = 0) -> None:
    """Add noise to all parameters, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.empty(parameter.shape).normal_(0.0, 0.15, generator=generator)
            parameter.add_(noise.to(parameter.dtype))


def stock_settings(family: str, seed: int) -> dict[str, Any]:
    """Keyword arguments of a transformers config, drawn at random, each seed another mixture."""
    draw = random.Random(f"{family} {seed}")
    settings: dict[str, Any] = {
        "vocab_size": draw.randrange(40, 120),
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": [2, 3] if seed % 5 == 4 else 2,
        "pad_token_id": 0 if seed % 3 == 0 else None,
    }
    if family == "mamba2":
        return settings | _mamba2(draw, seed)
    settings |= _heads(draw)
    settings |= _hybrid(draw, seed) if family == "nemotron_h" else _pairs(draw, family, seed)
    if family == "qwen2":
        del settings["head_dim"]  # its class has none
    return settings


def _heads(draw: random.Random) -> dict[str, Any]:
    kv_heads = draw.choice([1, 2, 3])
    heads = kv_heads * draw.choice([1, 2, 4])
    return {
        "hidden_size": heads * draw.choice([6, 8, 10]),
        "intermediate_size": draw.randrange(10, 70),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": draw.choice([8, 12, 16]),
    }


def _pairs(draw: random.Random, family: str, seed: int) -> dict[str, Any]:
    switch = seed % 5
    layers = draw.randrange(1, 4)
    settings: dict[str, Any] = {
        "num_hidden_layers": layers,
        "tie_word_embeddings": seed % 2 == 0,
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": draw.choice([100.0, 10000.0])}
    if switch == 1:
        rope |= {"rope_type": "linear", "factor": 3.0}
    if switch in (3, 4):
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    settings["rope_parameters"] = rope
    if family in ("llama", "nemotron"):
        settings |= {"attention_bias": switch in (1, 2), "mlp_bias": switch in (2, 3)}
    if family == "nemotron":
        rope["partial_rotary_factor"] = [0.5, 0.25, 1.0, 0.5, 0.75][switch]
        settings["hidden_act"] = "gelu" if switch == 3 else "relu2"
        settings["head_dim"] = draw.choice([8, 16])  # each share of it is even
    if family == "mistral":
        settings["sliding_window"] = None if switch == 0 else draw.randrange(2, 30)
    if family in ("qwen2", "qwen3"):
        slides = switch in (1, 3)
        settings |= {
            "use_sliding_window": slides,
            "sliding_window": draw.randrange(2, 30),
            "max_window_layers": 0 if slides else draw.randrange(layers + 1),
        }
    if family == "qwen3":
        settings["attention_bias"] = switch in (1, 2)
    if family in ("nemotron", "mistral", "qwen3"):
        settings["hidden_size"] = draw.randrange(9, 60)  # need not be a multiple of the heads
    return settings


def _mamba(draw: random.Random) -> dict[str, Any]:
    """What both families with Mamba-2 blocks call by one name."""
    return {
        "n_groups": draw.choice([1, 2, 3]),
        "conv_kernel": draw.choice([2, 3, 4, 5]),
        "chunk_size": draw.choice([3, 8, 16, 64]),
        "use_conv_bias": draw.random() < 0.7,
        "use_bias": draw.random() < 0.4,
    }


def _mamba2(draw: random.Random, seed: int) -> dict[str, Any]:
    settings = _mamba(draw)
    heads = settings["n_groups"] * draw.choice([1, 2, 3])
    head_dim, expand = draw.choice([(4, 2), (5, 1), (6, 3), (9, 3)])
    return {
        **settings,
        "num_heads": heads * expand,
        "head_dim": head_dim,
        "hidden_size": heads * head_dim,
        "expand": expand,
        "state_size": draw.choice([1, 4, 7, 16]),
        "num_hidden_layers": draw.randrange(1, 4),
        "tie_word_embeddings": seed % 2 == 0,
        "time_step_limit": [0.05, 0.4] if seed % 5 == 3 else [0.0, float("inf")],
    }


def _hybrid(draw: random.Random, seed: int) -> dict[str, Any]:
    settings = _mamba(draw)
    kinds = [
        "full_attention",
        *draw.choices(
            ["linear_attention", "full_attention", "mlp"], [3, 1, 2], k=draw.randrange(6)
        ),
    ]
    draw.shuffle(kinds)
    return {
        **settings,
        "layers_block_type": kinds,
        "hidden_size": draw.randrange(9, 40),
        "mamba_num_heads": settings["n_groups"] * draw.choice([1, 2, 3]),
        "mamba_head_dim": draw.choice([3, 4, 8]),
        "ssm_state_size": draw.choice([1, 4, 7, 16]),
        "mlp_hidden_act": "gelu" if seed % 5 == 3 else "relu2",
        "mlp_bias": seed % 5 in (2, 3),
        "time_step_min": [1e-30, 1e-3, 0.3][seed % 3],
        "time_step_max": 0.4,
    }


def stock(family: str, seed: int, **changes: Any) -> Any:
    """A transformers model of random shape and parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**stock_settings(family, seed), **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    perturb(model, seed)
    return model.eval()


def ours(seed: int = 0, **settings: Any) -> Decoder:
    """One of our models, small unless told otherwise."""
    shape = {
        "layers": 2,
        "hidden_size": 24,
        "heads": 4,
        "kv_heads": 2,
        "vocab_size": 61,
        "intermediate_size": 40,
    }
    model = Decoder(ModelConfig(**{**shape, **settings}))
    model.initialise(torch.Generator().manual_seed(seed))
    perturb(model, seed)
    return model


def tokens(config: ModelConfig, batch: int, time: int, seed: int = 0) -> torch.Tensor:
    """Random ids, (batch, time)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, time), generator=generator)


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(B, T, V) of one of our models or of theirs."""
    with torch.no_grad():
        result = model(ids)
    return result if isinstance(result, torch.Tensor) else result.logits


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
