"""The transformer that a shape is compared with: as many parameters, the same width and heads."""

from __future__ import annotations

from regrow.model.config import ModelConfig
from regrow.model.shapes import non_embedding_parameters


def equal_transformer(config: ModelConfig) -> ModelConfig:
    """Attention+MLP pairs with as many parameters as ``config``, as nearly as one MLP width allows.

    Width, vocabulary, heads and activation are kept. A shape without attention gets heads of 128
    channels (64 below a width of 1024), each with keys of its own; one without an MLP, an MLP of
    four times the width. The number of pairs is the one that comes nearest, and the MLP's width
    then takes up what is left.
    """
    base = config.as_json() | {
        "mamba": None,
        "layout": "nemotron" if config.norm == "layernorm1p" else "llama",
        "rotary_fraction": config.rotary_fraction or 1.0,
    }
    if "*" not in config.pattern:
        size = 128 if config.hidden_size >= 1024 else 64
        heads = max(1, config.hidden_size // size)
        base |= {"heads": heads, "kv_heads": heads, "head_dim": config.hidden_size // heads}
    base["intermediate_size"] = config.intermediate_size or 4 * config.hidden_size
    target = non_embedding_parameters(config)

    def shape(layers: int, width: int) -> ModelConfig:
        changed = {"layers": layers, "pattern": "*-" * layers, "intermediate_size": width}
        return ModelConfig.model_validate(base | changed, strict=False)

    def count(layers: int, width: int) -> int:
        return non_embedding_parameters(shape(layers, width))

    width = base["intermediate_size"]
    norm = count(1, width) - (count(2, width) - count(1, width))
    layers = max(1, round((target - norm) / (count(2, width) - count(1, width))))
    column = count(layers, width + 1) - count(layers, width)
    fitted = max(1, width + round((target - count(layers, width)) / column))
    return shape(layers, fitted)
