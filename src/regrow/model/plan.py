"""What a shape would take: parameters, FLOPs, bytes; nothing is made."""

from __future__ import annotations

from pydantic import Field

from regrow.core.errors import ConfigError
from regrow.core.plan import Plan
from regrow.model import shapes
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.shape_config import ShapeConfig

DEFAULT_VOCABULARY = 32_000


class PlanConfig(ShapeConfig):
    """A preset or a shape, and the length at which to count."""

    sequence: int | None = Field(default=None, gt=0)
    """Tokens in a row; by default the longest that the shape is meant for, 4096 at most."""


def shape_plan(config: PlanConfig) -> Plan:
    """Exact counts of a shape.

    Raises:
        ConfigError: unknown preset, missing or impossible settings.
    """
    given = {
        key: value
        for key, value in config.as_json().items()
        if key in ShapeConfig.model_fields and value is not None
    }
    model = ShapeConfig.model_validate(given, strict=False).resolve(DEFAULT_VOCABULARY, 1)
    sequence = config.sequence or min(model.max_positions, 4096)
    if sequence > model.max_positions:
        raise ConfigError(
            f"sequence: {sequence} exceeds max_positions {model.max_positions}; raise max_positions"
        )
    notes = []
    if config.preset is None and config.vocab_size is None:
        notes.append(f"vocab_size is not given; counted with {DEFAULT_VOCABULARY:,}")
    name = config.preset or f"{model.layers} layers of width {model.hidden_size}"
    return Plan(name, _figures(model, sequence), tuple(notes))


def _figures(model: ModelConfig, sequence: int) -> dict[str, object]:
    broken = ADAPTERS.get(model.layout).check(model)
    kv_bytes = shapes.kv_bytes_per_token(model)
    return {
        "pattern": model.pattern,
        "layers": model.layers,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "tie_embeddings": model.tie_embeddings,
        "parameters": shapes.parameters(model),
        "non_embedding_parameters": shapes.non_embedding_parameters(model),
        "sequence": sequence,
        "flops_per_token": shapes.flops_per_token(model, sequence),
        "flops_per_token_causal": shapes.flops_per_token(model, sequence, causal=True),
        "weight_bytes": shapes.weight_bytes(model),
        "training_bytes": shapes.weight_bytes(model, 16),
        "kv_bytes_per_token": kv_bytes,
        "kv_bytes_per_sequence": kv_bytes * sequence,
        "state_bytes_per_sequence": 0,
        "export": f"{model.layout}: {'; '.join(broken)}" if broken else model.layout,
    }
