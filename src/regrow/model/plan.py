"""What a shape would take: parameters, FLOPs, bytes, time; nothing is made."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from regrow.core.errors import ConfigError
from regrow.core.plan import Plan
from regrow.model import shapes
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shape_config import ShapeConfig
from regrow.model.twin import equal_transformer

DEFAULT_VOCABULARY = 32_000

#: The hybrid whose width and heads a pattern is counted with where it names none of its own.
_HYBRID = "mamba2-hybrid-8b"
_FROM_HYBRID = (
    "hidden_size",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate_size",
    "activation",
    "vocab_size",
)


class PlanConfig(ShapeConfig):
    """A preset or a shape, and where it would run."""

    sequence: int | None = Field(default=None, gt=0)
    """Tokens in a row, in training and as context when decoding; by default the longest that the
    shape is meant for, 4096 at most."""
    batch: int = Field(default=1, gt=0)
    """Sequences decoded together."""
    peak_flops: float = Field(default=989e12, gt=0)
    """FLOP per second of the device; by default an H100's in bf16."""
    bandwidth: float = Field(default=3.35e12, gt=0)
    """Bytes per second of the device's memory; by default an H100's."""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """Share of peak_flops that training reaches."""
    step_seconds: float | None = Field(default=None, gt=0)
    """Seconds that a training step took somewhere: the plan then tells its utilisation (mfu)."""
    step_sequences: int = Field(default=1, gt=0)
    """Sequences of that step, on all devices together."""
    devices: int = Field(default=1, gt=0)
    """Devices that it ran on."""


def shape_plan(config: PlanConfig) -> Plan:
    """Exact counts of a shape, and the time that a device would need at least.

    Raises:
        ConfigError: unknown preset, missing or impossible settings.
    """
    given = {
        key: value
        for key, value in config.as_json().items()
        if key in ShapeConfig.model_fields and value is not None
    }
    notes = []
    if _is_mamba_pattern(config) and config.preset is None and config.hidden_size is None:
        source = PRESETS[_HYBRID].as_json()
        given = {key: source[key] for key in _FROM_HYBRID} | given
        notes.append(f"hidden_size is not given; counted with the sizes of {_HYBRID}")
    elif config.preset is None and config.vocab_size is None:
        notes.append(f"vocab_size is not given; counted with {DEFAULT_VOCABULARY:,}")
    try:
        model = ShapeConfig.model_validate(given, strict=False).resolve(DEFAULT_VOCABULARY, 1)
    except ValidationError as error:
        lines = [str(e["msg"]).removeprefix("Value error, ") for e in error.errors()]
        raise ConfigError("the shape is impossible", lines) from None
    sequence = config.sequence or min(model.max_positions, 4096)
    if sequence > model.max_positions and model.rotary_dim:
        raise ConfigError(
            f"sequence: {sequence} exceeds max_positions {model.max_positions}; raise max_positions"
        )
    if "M" in model.pattern and not model.rotary_dim and model.pattern[0] != "M":
        notes.append(
            "the pattern does not begin with M, so nothing tells its first blocks the order"
        )
    name = config.preset or f"{model.layers} layers of width {model.hidden_size}"
    figures = _shape(model) | _costs(model, sequence, config)
    if config.step_seconds is not None:
        figures |= _utilisation(figures, config.step_seconds, config)
    if not model.is_transformer:
        twin = equal_transformer(model)
        figures["crossover_tokens"] = shapes.crossover_tokens(model, twin)
        figures["transformer"] = {
            "layers": twin.layers,
            "intermediate_size": twin.intermediate_size,
            "kv_heads": twin.kv_heads,
            "parameters": shapes.parameters(twin),
            **_costs(twin, sequence, config),
        }
        if "*" not in model.pattern:
            given_heads = f"{twin.kv_heads} key/value heads"
            notes.append(f"the shape has no attention; its transformer is given {given_heads}")
    notes.append(
        "times are the least that peak_flops and bandwidth allow, training at the utilisation"
    )
    return Plan(name, figures, tuple(notes))


def _is_mamba_pattern(config: PlanConfig) -> bool:
    ratios = config.attention_ratio is not None or config.mlp_ratio is not None
    return ratios or "M" in (config.pattern or "")


def _shape(model: ModelConfig) -> dict[str, Any]:
    broken = ADAPTERS.get(model.layout).check(model)
    counts = {
        name: model.pattern.count(symbol)
        for name, symbol in (("mamba2", "M"), ("attention", "*"), ("mlp", "-"))
    }
    sizes = model.mamba
    mamba = ("state", "head_dim", "heads", "groups", "conv", "chunk")
    return {
        "pattern": model.pattern,
        "layers": model.layers,
        "blocks": counts,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        **({"mamba": {name: getattr(sizes, name) for name in mamba}} if sizes else {}),
        "vocab_size": model.vocab_size,
        "tie_embeddings": model.tie_embeddings,
        "parameters": shapes.parameters(model),
        "non_embedding_parameters": shapes.non_embedding_parameters(model),
        "export": f"{model.layout}: {'; '.join(broken)}" if broken else model.layout,
    }


def _utilisation(
    figures: dict[str, Any], step_seconds: float, config: PlanConfig
) -> dict[str, float]:
    """What a step that took so long makes of the devices."""
    rate = config.step_sequences * figures["sequence"] / step_seconds
    return {
        "tokens_per_second": rate,
        "mfu": shapes.mfu(figures["flops_per_token"], rate, config.peak_flops, config.devices),
        "mfu_causal": shapes.mfu(
            figures["flops_per_token_causal"], rate, config.peak_flops, config.devices
        ),
    }


def _costs(model: ModelConfig, sequence: int, config: PlanConfig) -> dict[str, Any]:
    flops = shapes.flops_per_token(model, sequence)
    kv_bytes, state = shapes.kv_bytes_per_token(model), shapes.state_bytes(model)
    seen = min(sequence, model.sliding_window or sequence)
    cache = config.batch * (kv_bytes * sequence + state)
    # A step reads all weights once and each sequence's cache; states are also written back.
    moved = shapes.weight_bytes(model) + config.batch * (kv_bytes * seen + 2 * state)
    forward = shapes.decode_flops_per_token(model, sequence)
    return {
        "sequence": sequence,
        "flops_per_token": flops,
        "flops_per_token_causal": shapes.flops_per_token(model, sequence, causal=True),
        "weight_bytes": shapes.weight_bytes(model),
        "training_bytes": shapes.weight_bytes(model, 16),
        "kv_bytes_per_token": kv_bytes,
        "kv_bytes_per_sequence": kv_bytes * sequence,
        "state_bytes_per_sequence": state,
        "cache_bytes": cache,
        "training_hours_per_billion_tokens": (
            1e9 * flops / (3600 * config.peak_flops * config.utilisation)
        ),
        "decode_bytes_per_step": moved,
        "decode_seconds_per_step": max(
            moved / config.bandwidth, config.batch * forward / config.peak_flops
        ),
    }
