"""What the families with Mamba-2 blocks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from regrow.core.errors import InputError
from regrow.model.adapters.base import HfConfig, get, shorten
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.shapes import tensor_shapes

#: transformers 5 writes numbers that JSON lacks as an object with this key.
_FLOAT_TAG = "__float__"


def read_number(value: Any, where: str) -> float:
    """A number of a config, where infinity may stand bare or as ``{"__float__": "Infinity"}``.

    Raises:
        InputError: anything else, and not-a-number.
    """
    if isinstance(value, Mapping) and value == {_FLOAT_TAG: "Infinity"}:
        return math.inf
    # A whole number beyond 1e308 has no float; neither has it a meaning here.
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
    if not known and value != math.inf:
        raise InputError(f"{where} must be a number, not {shorten(value)}")
    return float(value)


def read_limits(hf: HfConfig) -> tuple[float, float | None]:
    """``time_step_limit``: lowest time step, and highest or None.

    Raises:
        InputError: no two numbers.
    """
    limits = get(hf, "time_step_limit", [0.0, math.inf])
    if not isinstance(limits, list) or len(limits) != 2:
        raise InputError(f"time_step_limit must be two numbers, not {shorten(limits)}")
    low, high = (read_number(limit, "time_step_limit") for limit in limits)
    return low, None if high == math.inf else high


def write_limits(low: float, high: float | None) -> list[Any]:
    """``time_step_limit`` as transformers 5 writes it."""
    return [low, {_FLOAT_TAG: "Infinity"} if high is None else high]


def read_silu(hf: HfConfig, key: str, family: str) -> None:
    """Refuse a convolution with another activation than our own.

    Raises:
        InputError: it has one.
    """
    activation = get(hf, key, "silu")
    if activation not in ("silu", "swish"):
        raise InputError(f"{key} {shorten(activation)} is not supported for {family} (only silu)")


def write_mamba(mamba: MambaConfig) -> dict[str, Any]:
    """What both families call by the same names."""
    return {
        "n_groups": mamba.groups,
        "conv_kernel": mamba.conv,
        "chunk_size": mamba.chunk,
        "use_conv_bias": mamba.conv_bias,
        "use_bias": mamba.proj_bias,
        "time_step_max": mamba.dt_max,
        "time_step_floor": mamba.dt_floor,
    }


def recurrent_names(config: ModelConfig) -> list[tuple[str, str]]:
    """Names of our tensors and theirs; one residual block is one layer, whatever its kind."""
    pairs = []
    for ours in tensor_shapes(config):
        part, _, rest = ours.partition(".")
        if part == "embed":
            theirs = f"backbone.embeddings.{rest}"
        elif part == "norm":
            theirs = f"backbone.norm_f.{rest}"
        elif part == "head":
            theirs = f"lm_head.{rest}"
        else:
            theirs = f"backbone.layers.{rest.replace('.dynamics.', '.')}"
        pairs.append((ours, theirs))
    return pairs
