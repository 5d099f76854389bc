"""A model for longer sequences than it was trained on: its positions, and the base of its rotation.

A hybrid without rotation needs no change but the number of positions (arXiv 2406.07887). Where
heads are rotated, the base grows so that the slowest pair turns over the longer context as far as
it did over the old one, while the fastest keeps its angle:

    theta' = theta * s^(r / (r - 2)),  s = new positions / old ones, r rotated channels of a head

This is the "NTK-aware" rule of bloc97 (2023), as in YaRN (arXiv 2309.00071), section 3.1.
No torch at import: plans read this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig

if TYPE_CHECKING:
    from regrow.model.decoder import Decoder


def stretched_theta(theta: float, factor: float, rotary_dim: int) -> float:
    """The rotary base for a context ``factor`` times as long.

    Args:
        theta: the base so far.
        factor: new positions over old ones.
        rotary_dim: rotated channels of a head, more than 2.
    """
    return float(theta * factor ** (rotary_dim / (rotary_dim - 2)))


def extended_shape(
    model: ModelConfig, extend_to: int | None, rope_theta: float | None
) -> ModelConfig:
    """The shape with ``extend_to`` positions; unchanged without it.

    Args:
        model: as it was loaded.
        extend_to: positions in tokens.
        rope_theta: the new base; by the rule above without it.

    Raises:
        ConfigError: no more positions than there are, a base for heads that are not rotated, or
            rotary frequencies that the rule does not cover.
    """
    if extend_to is None:
        return model
    if extend_to <= model.max_positions:
        raise ConfigError(
            f"extend_to: {extend_to} is not more than the model's max_positions "
            f"{model.max_positions}; leave it out, and set data.sequence to train on shorter ones"
        )
    rotary = model.rotary_dim if "*" in model.pattern else 0
    if not rotary:
        if rope_theta is not None:
            raise ConfigError(
                f"rope_theta: {rope_theta:g} has no effect, the model has no rotary position "
                "encoding; leave it out"
            )
        return model.replace(max_positions=extend_to)
    if rope_theta is None:
        if model.rope_scaling is not None or rotary <= 2:
            kind = model.rope_scaling.kind if model.rope_scaling else f"{rotary} channels"
            raise ConfigError(
                f"rope_theta: required, the rule for extend_to does not cover this rotation "
                f"({kind}); give the new base"
            )
        factor = extend_to / model.max_positions
        rope_theta = stretched_theta(model.rope_theta, factor, rotary)
    return model.replace(max_positions=extend_to, rope_theta=rope_theta)


def extension_note(before: ModelConfig, after: ModelConfig) -> str:
    """What the plan says of it."""
    grown = f"positions {before.max_positions:,} -> {after.max_positions:,}"
    if before.rope_theta != after.rope_theta:
        return f"{grown}, rope_theta {before.rope_theta:g} -> {after.rope_theta:g}"
    if "*" in after.pattern and after.rotary_dim:
        return f"{grown}, rope_theta stays {after.rope_theta:g}"
    return f"{grown}; no rotary position encoding, so nothing else changes"


def reshape(model: Decoder, config: ModelConfig) -> Decoder:
    """The same weights in a decoder with other positions; the given one must not be used again."""
    import torch

    from regrow.model.decoder import Decoder

    if model.config == config:
        return model
    with torch.device("meta"):
        made = Decoder(config)
    made.load_state_dict(model.state_dict(), assign=True)
    made.requires_grad_(True)
    return made
