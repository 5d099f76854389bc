"""Small random models, ours and transformers', with every parameter away from its initial value."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder

SEEDS = range(5)


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
    kv_heads = draw.choice([1, 2, 3])
    heads = kv_heads * draw.choice([1, 2, 4])
    settings: dict[str, Any] = {
        "vocab_size": draw.randrange(40, 120),
        "hidden_size": heads * draw.choice([6, 8, 10]),
        "intermediate_size": draw.randrange(10, 70),
        "num_hidden_layers": draw.randrange(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": draw.choice([8, 12, 16]),
        "tie_word_embeddings": seed % 2 == 0,
        "attention_bias": seed in (1, 2),
        "mlp_bias": seed in (2, 3),
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": [2, 3] if seed == 4 else 2,
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": draw.choice([100.0, 10000.0])}
    if seed == 1:
        rope |= {"rope_type": "linear", "factor": 3.0}
    if seed in (3, 4):
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    if family == "nemotron":
        settings["hidden_size"] += seed  # need not be a multiple of the heads
        rope["partial_rotary_factor"] = [0.5, 0.25, 1.0, 0.5, 0.75][seed]
        settings["hidden_act"] = "gelu" if seed == 3 else "relu2"
    settings["rope_parameters"] = rope
    return settings


def stock(family: str, seed: int) -> Any:
    """A transformers model of random shape and parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **stock_settings(family, seed))
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


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
