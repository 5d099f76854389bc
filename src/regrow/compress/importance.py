"""Importance of channels, neurons, heads and layers from one forward pass, without gradients.

Per calibration window b and channel i, ``a_b = mean over tokens of |x_i|`` in fp32; over windows
only ``sum a_b`` and ``sum a_b^2`` are kept (fp64), from which every aggregation over the batch
follows later, and which add up over workers.

Legend: B windows, T time, D model, C channels of a site, L layers.

Source: Minitron (arXiv 2407.14679), section 2.2. The neuron score is taken where the down
projection reads it (after activation and gate), which is also defined for gated MLPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from regrow.compress.slicing import layer_blocks
from regrow.core.errors import InputError
from regrow.model.blocks import Block
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.device import device_of, to_device

#: Block symbol to the projection whose input scores the block's own channels.
SITES = {"M": "out_proj", "*": "o_proj", "-": "down_proj"}


class CalibrationBatch(Protocol):
    """What is read of a batch."""

    @property
    def tokens(self) -> Tensor:
        """(B, T) int64 ids."""

    @property
    def documents(self) -> Tensor | None:
        """(B, T) numbers of the documents, where attention stays inside them."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over calibration windows; those of two sets of windows add up.

    Args:
        samples: windows.
        tokens: tokens that counted.
        sums: site to sum over windows of ``a_b``, (C,) fp64.
        squares: site to sum over windows of ``a_b^2``, (C,) fp64.
        cosines: (L + 1, L + 1) fp64; entry i, j is the sum over tokens of the cosine between the
            residual stream before layer i and before layer j (L: before the final norm).
    """

    samples: int
    tokens: int
    sums: dict[str, Tensor]
    squares: dict[str, Tensor]
    cosines: Tensor

    def __add__(self, other: Statistics) -> Statistics:
        if self.sums.keys() != other.sums.keys():
            raise ValueError("statistics of models with different sites cannot be added")
        return Statistics(
            self.samples + other.samples,
            self.tokens + other.tokens,
            {site: value + other.sums[site] for site, value in self.sums.items()},
            {site: value + other.squares[site] for site, value in self.squares.items()},
            self.cosines + other.cosines,
        )

    def require_finite(self) -> None:
        """Make sure that every sum is a number.

        Raises:
            InputError: names the first site that saw NaN or infinity.
        """
        for site, value in [*self.squares.items(), ("the residual stream", self.cosines)]:
            if not bool(torch.isfinite(value).all()):
                raise InputError(
                    f"activations at {site} are not finite: the checkpoint is damaged, or its "
                    "dtype overflows; try it in fp32"
                )


def site_widths(config: ModelConfig) -> dict[str, int]:
    """Each site's name and number of channels, in the order of the forward pass."""
    widths = {"*": config.heads * config.head_dim, "-": config.intermediate_size}
    if config.mamba is not None:
        widths["M"] = config.mamba.inner
    sites = {}
    for index, symbol in enumerate(config.pattern):
        sites[f"blocks.{index}.norm"] = config.hidden_size
        sites[f"blocks.{index}.mixer.{SITES[symbol]}"] = widths[symbol]
    return sites | {"norm": config.hidden_size}


class Observer:
    """Gathers statistics while a decoder runs; attached by :meth:`attached`.

    Args:
        model: the decoder.
    """

    def __init__(self, model: Decoder) -> None:
        self.model = model
        widths = site_widths(model.config)
        device = device_of(model)
        self._sums = {s: torch.zeros(w, dtype=torch.float64) for s, w in widths.items()}
        self._squares = {s: torch.zeros(w, dtype=torch.float64) for s, w in widths.items()}
        count = len(layer_blocks(model.config)) + 1
        self._cosines = torch.zeros(count, count, dtype=torch.float64)
        self._samples = self._tokens = 0
        self._weights = torch.zeros(0, 0, device=device)
        self._streams: list[Tensor] = []

    def observe(self, batch: CalibrationBatch, mask: Tensor | None = None) -> None:
        """Run one micro-batch and count it.

        Args:
            batch: (B, T) windows.
            mask: (B, T) bool, False where a token is padding; each window counts with its own
                number of tokens. Windows without a token do not count.
        """
        tokens = batch.tokens
        if mask is None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        lengths = mask.sum(1)
        used = lengths > 0
        # |x| weighted by this and summed over time is the mean over a window's own tokens.
        self._weights = mask.float() / lengths.clamp(min=1)[:, None]
        self._streams = []
        self.model.hidden(tokens, batch.documents)
        self._add_cosines(mask)
        self._samples += int(used.sum())
        self._tokens += int(lengths.sum())

    def statistics(self) -> Statistics:
        """What was gathered so far."""
        return Statistics(
            self._samples, self._tokens, self._sums, self._squares, self._cosines.clone()
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the model for the time of the block; evaluation mode, no gradients."""
        was_training = self.model.training
        handles = list(self._hooks())
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(was_training)
            for handle in handles:
                handle.remove()

    def _hooks(self) -> Iterator[Any]:
        blocks = [cast(Block, block) for block in self.model.blocks]
        for index, block in enumerate(blocks):
            yield block.norm.register_forward_hook(self._output(f"blocks.{index}.norm"))
            name = SITES[block.symbol]
            site = f"blocks.{index}.mixer.{name}"
            yield getattr(block.mixer, name).register_forward_pre_hook(self._input(site))
        yield self.model.norm.register_forward_hook(self._output("norm"))
        for layer in layer_blocks(self.model.config):
            yield blocks[layer[0]].register_forward_pre_hook(self._stream)
        yield self.model.norm.register_forward_pre_hook(self._stream)

    def _output(self, site: str) -> Any:
        return lambda module, inputs, output: self._add(site, output)

    def _input(self, site: str) -> Any:
        return lambda module, inputs: self._add(site, inputs[0])

    def _stream(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._streams.append(inputs[0])

    def _add(self, site: str, x: Tensor) -> None:
        """Count (B, T, C) activations."""
        means = torch.bmm(self._weights[:, None], x.abs().float())[:, 0].double().cpu()
        self._sums[site] += means.sum(0)
        self._squares[site] += means.square().sum(0)

    def _add_cosines(self, mask: Tensor) -> None:
        """Count the cosines between all places of the residual stream, (L + 1) x (B, T, D)."""
        count = len(self._streams)
        sums = torch.zeros(count, count, device=mask.device)
        for row, kept in enumerate(mask):  # one window at a time stays in the CPU's cache
            places = torch.stack([x[row] for x in self._streams]).float()
            lengths = torch.linalg.vector_norm(places, dim=-1, keepdim=True)
            units = (places * (kept[:, None] / lengths.clamp_(min=1e-12))).flatten(1)
            sums += units @ units.T
        self._cosines += sums.double().cpu()
        self._streams = []


def measure(model: Decoder, batches: Iterable[CalibrationBatch]) -> Statistics:
    """Statistics over micro-batches of whole windows.

    Args:
        model: the decoder, on any device.
        batches: (B, T) windows each.

    Raises:
        InputError: activations that are not finite.
    """
    observer, device = Observer(model), device_of(model)
    with observer.attached():
        for batch in batches:
            observer.observe(to_device(batch, device))
    found = observer.statistics()
    found.require_finite()
    return found
