"""What a decoder is made of: pre-norm residual blocks around a mixer, looked up by symbol.

A mixer is a module with

- ``__init__(config)``, its parameters allocated and zero (see :func:`linear`);
- ``forward(x, context, state)`` on (B, T, D), giving what is added to the residual stream;
- ``new_state(batch, capacity, device, dtype)``, what it remembers while decoding, or None;
- ``initialise(generator, std, residual_std)``, its fresh weights.

Legend: B batch, T time, D model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regrow.core.registry import Registry
from regrow.model.config import ModelConfig
from regrow.model.norm import make_norm


@dataclass(frozen=True, slots=True)
class SequenceContext:
    """What every block of one forward pass may need to know about the tokens' places.

    Attributes:
        rotation: cosine and sine for the rotary embedding, or None without one.
        mask: (B or 1, 1, T, S) bool, True where attention may look; None for plain causal.
        start: tokens that the caches already hold.
        documents: (B, T) a number of its own for each document of a row, or None for one each.
        positions: (B, T) place of each token in its document, where there are documents.
        valid: (B, T) bool, False where a token is padding; None where none is.
    """

    rotation: tuple[Tensor, Tensor] | None
    mask: Tensor | None
    start: int
    documents: Tensor | None = None
    positions: Tensor | None = None
    valid: Tensor | None = None


BLOCKS: Registry[type[nn.Module]] = Registry(
    "block",
    {
        "M": "regrow.model.mamba2:Mamba2",
        "*": "regrow.model.attention:Attention",
        "-": "regrow.model.mlp:MLP",
    },
)


def linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """An ``nn.Linear`` of zeros on the default device.

    torch's own constructor draws from the global generator; here weights come from a folder or from
    :meth:`Decoder.initialise`, and making a model changes no global state.
    """
    module = nn.Linear(inputs, outputs, bias=bias, device="meta")
    device = torch.get_default_device()
    if device.type != "meta":
        module.to_empty(device=device)
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    return module


@torch.no_grad()
def fill_normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Draw ``parameter`` from normal(0, std), in fp32 on the generator's device, in one order.

    The same generator gives the same values whatever the parameter's dtype or device, and torch
    draws normals on one thread.
    """
    drawn = torch.empty(parameter.shape, dtype=torch.float32, device=generator.device)
    parameter.copy_(drawn.normal_(0.0, std, generator=generator))


@torch.no_grad()
def initialise_linear(module: nn.Linear, std: float, generator: torch.Generator) -> None:
    """Weights from normal(0, std), bias zero."""
    fill_normal(module.weight, std, generator)
    if module.bias is not None:
        module.bias.zero_()


class Block(nn.Module):
    """One residual block: ``x + mixer(norm(x))``.

    Attributes:
        symbol: which kind.
        recompute: keep only the block's input for the gradient, and run it again in the backward
            pass (activation checkpointing): a third more work, a fraction of the memory.
        compiled: :meth:`add` as a compiler has made it, for passes with a gradient; or None.
    """

    def __init__(self, config: ModelConfig, symbol: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.recompute = False
        self.compiled: Callable[..., Tensor] | None = None
        self.norm = make_norm(config)
        self.mixer = BLOCKS.get(symbol)(config)

    def forward(self, x: Tensor, context: SequenceContext, state: Any = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        if state is not None or not torch.is_grad_enabled():
            return self.add(x, context, state)
        add = self.compiled or Block.add
        if self.recompute:
            return cast(Tensor, checkpoint(add, self, x, context, use_reentrant=False))
        return add(self, x, context)

    def add(self, x: Tensor, context: SequenceContext, state: Any = None) -> Tensor:
        """What :meth:`forward` does once."""
        return cast(Tensor, x + self.mixer(self.norm(x), context, state))
