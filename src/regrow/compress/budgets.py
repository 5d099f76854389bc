"""What a budget bounds: figures of a shape, their limits, and what is said where none fits.

Memory of a shape: its weights, the keys and values of ``batch`` sequences of ``sequence`` tokens,
and what its Mamba-2 blocks remember of them::

    bytes x parameters + batch x (2 L_att K C sequence bytes + L_m (4 H P N + (k - 1) c bytes))

with L_att attention blocks, K key/value heads of C channels; L_m Mamba-2 blocks, H heads of P
channels, N state channels (their state is fp32), k taps over c channels of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regrow.compress.prune_config import BudgetTarget
from regrow.core.errors import ConfigError
from regrow.model.config import ModelConfig
from regrow.model.shapes import (
    kv_bytes_per_token,
    non_embedding_parameters,
    parameters,
    state_bytes,
    weight_bytes,
)

Figure = Literal["parameters", "non_embedding_parameters", "memory_mb", "latency_ms"]

#: Bytes of a number.
WIDTHS = {"bf16": 2, "fp32": 4}
#: Bytes of a MB, which is what ``memory_mb`` counts in.
MB = 1_000_000
#: Figures that a shape must come near to; the others it must only not exceed.
TARGETS: tuple[Figure, ...] = ("parameters", "non_embedding_parameters")


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound of a budget.

    Args:
        figure: what is bounded, also the name of its setting.
        value: a number of parameters, MB or milliseconds.
    """

    figure: Figure
    value: float

    @property
    def is_target(self) -> bool:
        """Whether shapes must come near to it from both sides."""
        return self.figure in TARGETS

    def text(self, value: float | None = None) -> str:
        """The limit, or another value of its figure, in words."""
        return figure_text(self.figure, self.value if value is None else value)


def figure_text(figure: Figure, value: float) -> str:
    """``4,512,746,496 parameters``, ``9,213.5 MB``, ``12.345 ms``."""
    if figure in TARGETS:
        return f"{round(value):,} {figure}"
    unit = "MB" if figure == "memory_mb" else "ms"
    return f"{value:,.1f} {unit}" if value >= 100 else f"{value:.4g} {unit}"


def sequence_of(config: ModelConfig, budget: BudgetTarget) -> int:
    """Tokens of a sequence that memory and latency are counted at.

    Raises:
        ConfigError: more than the model has positions for.
    """
    if budget.sequence > config.max_positions:
        raise ConfigError(
            f"budget.sequence: {budget.sequence} is more than the model's max_positions "
            f"{config.max_positions}"
        )
    return budget.sequence or min(4096, config.max_positions)


def memory_bytes(config: ModelConfig, budget: BudgetTarget) -> int:
    """Bytes of weights, caches and states; see the head of this module."""
    width = WIDTHS[budget.dtype]
    sequence = sequence_of(config, budget)
    each = kv_bytes_per_token(config, width) * sequence + state_bytes(config, width)
    return weight_bytes(config, width) + budget.batch * each


def parameter_limits(source: ModelConfig, budget: BudgetTarget) -> list[Limit]:
    """The numbers of parameters that a budget asks for.

    Raises:
        ConfigError: more than the source has.
    """
    made = []
    wholes: tuple[tuple[Figure, int], ...] = (
        ("parameters", parameters(source)),
        ("non_embedding_parameters", non_embedding_parameters(source)),
    )
    for figure, whole in wholes:
        given = getattr(budget, figure)
        if given is None:
            continue
        limit = round(given * whole if given <= 1 else given)
        if limit > whole:
            raise ConfigError(
                f"budget.{figure}: {limit:,} are more than the {whole:,} of the source; cutting "
                "only makes smaller"
            )
        made.append(Limit(figure, float(limit)))
    return made


def limits_of(source: ModelConfig, budget: BudgetTarget) -> list[Limit]:
    """Every bound of a budget.

    Raises:
        ConfigError: more parameters than the source has, or more memory than it takes with nothing
            else to make it smaller.
    """
    made = parameter_limits(source, budget)
    if budget.memory_mb is not None:
        whole = memory_bytes(source, budget) / MB
        alone = not made and budget.latency_ms is None
        if alone and budget.memory_mb >= whole:
            raise ConfigError(
                f"budget.memory_mb: the source takes {figure_text('memory_mb', whole)} at sequence "
                f"{sequence_of(source, budget)}, batch {budget.batch}, {budget.dtype}, which is "
                f"within {figure_text('memory_mb', budget.memory_mb)} already; nothing has to be "
                "cut"
            )
        made.append(Limit("memory_mb", budget.memory_mb))
    if budget.latency_ms is not None:
        made.append(Limit("latency_ms", budget.latency_ms))
    return made
