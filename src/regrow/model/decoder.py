"""The decoder: an embedding, a string of pre-norm residual blocks, a final norm, an output head.

Legend: B batch, T time, D model, V vocabulary.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from regrow.model.blocks import Block, SequenceContext, fill_normal
from regrow.model.cache import Cache
from regrow.model.config import ModelConfig
from regrow.model.head import OutputHead
from regrow.model.norm import make_norm
from regrow.model.rope import inverse_frequencies, rotation


class Decoder(nn.Module):
    """A decoder-only language model of any pattern of blocks.

    A new decoder's matrices are zero until :meth:`initialise` or a folder fills them. Made under
    ``with torch.device("meta")`` it takes no memory.

    Args:
        config: the shape; kept as ``.config``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.zeros(config.vocab_size, config.hidden_size)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.blocks = nn.ModuleList(Block(config, symbol) for symbol in config.pattern)
        self.norm = make_norm(config)
        self.head = OutputHead(config, self.embed if config.tie_embeddings else None)
        # No buffer: casting the model to bf16 must not touch it, nor a meta device lose it.
        self._frequencies = inverse_frequencies(config)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights from one stream of random numbers; equal seeds give equal bytes.

        Linears and embeddings come from normal(0, init_std), biases are zero, gains one. In every
        layout but ``nemotron`` (whose public configuration has one std for all) the projections
        that write to the residual stream are scaled by ``1 / sqrt(blocks)``, two blocks a layer.

        Source: the scaling is GPT-2's (Radford et al. 2019, section 2.3).
        """
        std = self.config.init_std
        plain = self.config.layout == "nemotron"
        residual_std = std if plain else std / math.sqrt(len(self.config.pattern))
        fill_normal(self.embed.weight, std, generator)
        for block in self.blocks:
            block = cast(Block, block)
            block.norm.reset_parameters()
            block.mixer.initialise(generator, std, residual_std)  # type: ignore[operator]
        self.norm.reset_parameters()
        if not self.config.tie_embeddings:
            fill_normal(self.head.matrix, std, generator)

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Next-token logits.

        Args:
            tokens: (B, T) int64 ids.
            documents: (B, T) integers, constant within a document. Attention stays inside each
                run of equal values and positions restart with it.
            cache: what earlier calls left; the tokens follow those it holds, and it grows.

        Returns:
            (B, T, V) logits.

        Raises:
            ValueError: both documents and a cache, or a cache that is full.
        """
        return cast(Tensor, self.head(self.hidden(tokens, documents, cache)))

    def hidden(
        self, tokens: Tensor, documents: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states after the final norm, (B, T, D); arguments as in :meth:`forward`."""
        context = self._context(tokens, documents, cache)
        x = self.embed(tokens)
        for index, block in enumerate(self.blocks):
            x = block(x, context, cache.states[index] if cache is not None else None)
        if cache is not None:
            cache.length += tokens.shape[1]
        return cast(Tensor, self.norm(x))

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for ``capacity`` tokens of ``batch`` sequences.

        Args:
            batch: sequences decoded together.
            capacity: tokens each, prompt included.
            dtype: of keys and values; the weights' by default.
        """
        device, dtype = self.embed.weight.device, dtype or self.embed.weight.dtype
        states = [
            cast(Block, block).mixer.new_state(batch, capacity, device, dtype)  # type: ignore[operator]
            for block in self.blocks
        ]
        return Cache(states, 0, capacity)

    def _context(
        self, tokens: Tensor, documents: Tensor | None, cache: Cache | None
    ) -> SequenceContext:
        time, device = tokens.shape[1], tokens.device
        start = cache.length if cache is not None else 0
        mask: Tensor | None = None
        positions = torch.arange(start, start + time, device=device)
        if documents is not None:
            if cache is not None:
                raise ValueError(
                    "packed documents cannot be decoded with a cache: pass one of them"
                )
            positions, mask = _packed(documents)
        elif start and time > 1:
            mask = positions[:, None] >= torch.arange(start + time, device=device)
            mask = mask[None, None]
        if cache is not None and start + time > cache.capacity:
            raise ValueError(f"the cache has room for {cache.capacity} tokens, not {start + time}")
        if not self.config.rotary_dim:
            return SequenceContext(None, mask, start)
        if self._frequencies.device != device:
            self._frequencies = self._frequencies.to(device)
        return SequenceContext(rotation(positions, self._frequencies), mask, start)


def _packed(documents: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, T) that restart with each document, and the (B, 1, T, T) mask inside them."""
    batch, time = documents.shape
    index = torch.arange(time, device=documents.device).expand(batch, time)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    first = torch.where(begins, index, 0).cummax(dim=1).values
    # Two tokens share a document exactly when the same token begins theirs.
    mask = (first[:, :, None] == first[:, None, :]).tril()
    return index - first, mask[:, None]
