"""Importance of channels, neurons, heads and layers from one forward pass, without gradients.

Per calibration window b and channel i one number ``a_b`` is made of the values x_i of the window's
tokens in fp32 (by default the mean of |x_i|); over windows only ``sum a_b`` and ``sum a_b^2`` are
kept (fp64), from which every aggregation over the batch follows later, and which add up over
workers.

Legend: B windows, T time, D model, C channels of a site, L layers.

Sources: Minitron (arXiv 2407.14679), section 2.2; Minitron-SSM (arXiv 2504.11409) for Mamba-2,
scored at the x rows of the input projection's output. The neuron score is by default taken where
the down projection reads it (after activation and gate), which is also defined for gated MLPs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from regrow.compress.depth import layer_blocks
from regrow.compress.importance_config import NeuronSite, SequenceAggregation
from regrow.core.errors import InputError
from regrow.model.blocks import Block
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.device import device_of, to_device

#: Block symbol to the projection that scores the block's own channels: of a Mamba-2 block by the
#: x rows of its output, else by its input.
SITES = {"M": "in_proj", "*": "o_proj", "-": "down_proj"}

#: Site to one number a channel.
Sums = dict[str, Tensor]


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
        sums: aggregation over a window's tokens to site to the sum over windows of ``a_b``,
            (C,) fp64.
        squares: likewise the sum over windows of ``a_b^2``.
        cosines: (L + 1, L + 1) fp64; entry i, j is the sum over tokens of the cosine between the
            residual stream before layer i and before layer j (L: before the final norm).
    """

    samples: int
    tokens: int
    sums: dict[SequenceAggregation, Sums]
    squares: dict[SequenceAggregation, Sums]
    cosines: Tensor

    @property
    def sites(self) -> dict[str, int]:
        """Site to its number of channels."""
        return {site: len(total) for site, total in next(iter(self.sums.values())).items()}

    def __add__(self, other: Statistics) -> Statistics:
        if self.sums.keys() != other.sums.keys():
            raise ValueError("statistics of different sequence aggregations cannot be added")
        if self.sites != other.sites:
            raise ValueError("statistics of models with different sites cannot be added")

        def added(one: dict[Any, Sums], two: dict[Any, Sums]) -> dict[Any, Sums]:
            return {k: {site: one[k][site] + two[k][site] for site in one[k]} for k in one}

        return Statistics(
            self.samples + other.samples,
            self.tokens + other.tokens,
            added(self.sums, other.sums),
            added(self.squares, other.squares),
            self.cosines + other.cosines,
        )

    def require_finite(self) -> None:
        """Make sure that every sum is a number.

        Raises:
            InputError: names the first site that saw NaN or infinity.
        """
        for squares in self.squares.values():
            for site, value in squares.items():
                _require_finite(site, value)
        _require_finite("the residual stream", self.cosines)


def _require_finite(where: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        raise InputError(
            f"activations at {where} are not finite: the checkpoint is damaged, or its dtype "
            "overflows; try it in fp32"
        )


def own_site(config: ModelConfig, symbol: str, neuron_site: NeuronSite = "post_act") -> str:
    """The projection at which a block's own channels are scored."""
    if symbol == "-" and neuron_site == "pre_act":
        return "gate_proj" if config.gated else "up_proj"
    return SITES[symbol]


def site_widths(config: ModelConfig, neuron_site: NeuronSite = "post_act") -> dict[str, int]:
    """Each site's name and number of channels, in the order of the forward pass."""
    widths = {"*": config.heads * config.head_dim, "-": config.intermediate_size}
    if config.mamba is not None:
        widths["M"] = config.mamba.inner
    sites = {}
    for index, symbol in enumerate(config.pattern):
        sites[f"blocks.{index}.norm"] = config.hidden_size
        name = own_site(config, symbol, neuron_site)
        sites[f"blocks.{index}.mixer.{name}"] = widths[symbol]
    return sites | {"norm": config.hidden_size}


def window_values(x: Tensor, weights: Tensor, aggregation: SequenceAggregation) -> Tensor:
    """One number a window and channel.

    ``mean``: the mean of |x|. ``l2``: the root of the sum of squares. ``var``: the mean square
    distance to the mean of x.

    Args:
        x: (B, T, C) activations.
        weights: (B, T) fp32, one over the window's number of tokens; 0 where a token is padding.
        aggregation: which.

    Returns:
        (B, C) fp32.
    """
    # A weighted sum over time is one matrix product, several times faster than a reduction over
    # a dimension that is not the last.
    if aggregation == "mean":
        return torch.bmm(weights[:, None], x.abs().float())[:, 0]
    if aggregation == "l2":
        used = (weights > 0).float()
        return torch.bmm(used[:, None], x.float().square())[:, 0].sqrt_()
    wide = x.float()
    centred = wide - torch.bmm(weights[:, None], wide)
    return torch.bmm(weights[:, None], centred.square_())[:, 0]


class Observer:
    """Gathers statistics while a decoder runs; attached by :meth:`attached`.

    Args:
        model: the decoder.
        aggregations: over a window's tokens; each one more costs a pass over the activations.
        neuron_site: where MLP neurons are scored.
    """

    def __init__(
        self,
        model: Decoder,
        aggregations: Sequence[SequenceAggregation] = ("mean",),
        neuron_site: NeuronSite = "post_act",
    ) -> None:
        self.model, self.neuron_site = model, neuron_site
        widths = site_widths(model.config, neuron_site)
        device = device_of(model)

        def zeros() -> dict[SequenceAggregation, Sums]:
            return {
                a: {s: torch.zeros(w, dtype=torch.float64) for s, w in widths.items()}
                for a in aggregations
            }

        self._sums, self._squares = zeros(), zeros()
        count = len(layer_blocks(model.config)) + 1
        self._cosines = torch.zeros(count, count, dtype=torch.float64)
        self._samples = self._tokens = 0
        self._weights = torch.zeros(0, 0, device=device)
        self._streams: list[Tensor] = []

    def observe(self, batch: CalibrationBatch, mask: Tensor | None = None) -> None:
        """Run one micro-batch and count it.

        Args:
            batch: (B, T) windows.
            mask: (B, T) bool, False where a token is padding, wherever in its row; each window
                counts with its own number of tokens. Windows without a token do not count.
        """
        tokens, valid = batch.tokens, mask
        if mask is None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        lengths = mask.sum(1)
        used = lengths > 0
        # |x| weighted by this and summed over time is the mean over a window's own tokens.
        self._weights = mask.float() / lengths.clamp(min=1)[:, None]
        self._streams = []
        self.model.hidden(tokens, batch.documents, valid=valid)
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
        config = self.model.config
        blocks = [cast(Block, block) for block in self.model.blocks]
        for index, block in enumerate(blocks):
            yield block.norm.register_forward_hook(self._output(f"blocks.{index}.norm"))
            name = own_site(config, block.symbol, self.neuron_site)
            site, module = f"blocks.{index}.mixer.{name}", getattr(block.mixer, name)
            if block.symbol == "M":
                assert config.mamba is not None  # a config with M has them
                inner = config.mamba.inner
                yield module.register_forward_hook(self._output(site, slice(inner, 2 * inner)))
            elif block.symbol == "-" and self.neuron_site == "pre_act":
                yield module.register_forward_hook(self._output(site))
            else:
                yield module.register_forward_pre_hook(self._input(site))
        yield self.model.norm.register_forward_hook(self._output("norm"))
        for layer in layer_blocks(config):
            yield blocks[layer[0]].register_forward_pre_hook(self._stream)
        yield self.model.norm.register_forward_pre_hook(self._stream)

    def _output(self, site: str, rows: slice = slice(None)) -> Callable[..., None]:
        return lambda module, inputs, output: self._add(site, output[..., rows])

    def _input(self, site: str) -> Callable[..., None]:
        return lambda module, inputs: self._add(site, inputs[0])

    def _stream(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._streams.append(inputs[0])

    def _add(self, site: str, x: Tensor) -> None:
        """Count (B, T, C) activations."""
        for aggregation in self._sums:
            values = window_values(x, self._weights, aggregation).double().cpu()
            self._sums[aggregation][site] += values.sum(0)
            self._squares[aggregation][site] += values.square().sum(0)

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


def measure(
    model: Decoder,
    batches: Iterable[CalibrationBatch],
    aggregations: Sequence[SequenceAggregation] = ("mean",),
    neuron_site: NeuronSite = "post_act",
) -> Statistics:
    """Statistics over micro-batches of whole windows.

    Args:
        model: the decoder, on any device.
        batches: (B, T) windows each.
        aggregations: over a window's tokens.
        neuron_site: where MLP neurons are scored.

    Raises:
        InputError: activations that are not finite.
    """
    observer, device = Observer(model, aggregations, neuron_site), device_of(model)
    with observer.attached():
        for batch in batches:
            observer.observe(to_device(batch, device))
    found = observer.statistics()
    found.require_finite()
    return found
