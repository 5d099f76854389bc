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
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits.

        Args:
            tokens: (B, T) int64 ids.
            documents: (B, T) integers, constant within a document. Attention stays inside each
                run of equal values, Mamba-2 states start anew with it, and so do positions.
            cache: what earlier calls left; the tokens follow those it holds, and it grows.
            valid: (B, T) bool, False where a token is padding, wherever in its row. Padding is
                never looked at, takes no position and leaves states as they are; its own logits
                mean nothing.

        Returns:
            (B, T, V) logits.

        Raises:
            ValueError: documents together with a cache or with padding, or a cache that is full.
        """
        return cast(Tensor, self.head(self.hidden(tokens, documents, cache, valid)))

    def hidden(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, (B, T, D); arguments as in :meth:`forward`."""
        context = self._context(tokens, documents, cache, valid)
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
        self,
        tokens: Tensor,
        documents: Tensor | None,
        cache: Cache | None,
        valid: Tensor | None = None,
    ) -> SequenceContext:
        time, device = tokens.shape[1], tokens.device
        start = cache.length if cache is not None else 0
        if documents is not None and cache is not None:
            raise ValueError("packed documents cannot be decoded with a cache: pass one of them")
        if documents is not None and valid is not None:
            raise ValueError("packed documents have no padding: pass documents or valid, not both")
        if cache is not None and start + time > cache.capacity:
            raise ValueError(f"the cache has room for {cache.capacity} tokens, not {start + time}")
        window = self.config.sliding_window
        mask: Tensor | None = None
        places: Tensor | None = None
        if documents is not None:
            places, documents, mask = _packed(documents, window)
            positions = places
        elif valid is not None or (cache is not None and cache.valid is not None):
            positions, mask = _padded(tokens, cache, valid, window)
        else:
            positions = torch.arange(start, start + time, device=device)
            if time > 1 and (start or (window is not None and window < time)):
                mask = _near(positions, torch.arange(start + time, device=device), window)
                mask = mask[None, None]
        rotary = None
        if self.config.rotary_dim:
            if self._frequencies.device != device:
                self._frequencies = self._frequencies.to(device)
            rotary = rotation(positions, self._frequencies)
        return SequenceContext(rotary, mask, start, documents, places, valid)


def _near(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """(..., T, S) True where a key lies at or before the query, and inside the window."""
    distance = queries[..., :, None] - keys[..., None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _packed(documents: Tensor, window: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (B, T) that restart with each document, a number (B, T) of its own for each, and
    the (B, 1, T, T) mask inside them.
    """
    batch, time = documents.shape
    index = torch.arange(time, device=documents.device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    # Two tokens share a document exactly when the same token begins theirs.
    first = torch.where(begins, index.expand(batch, time), 0).cummax(dim=1).values
    mask = (first[:, :, None] == first[:, None, :]) & _near(index, index, window)
    return index - first, first, mask[:, None]


def _padded(
    tokens: Tensor, cache: Cache | None, valid: Tensor | None, window: int | None
) -> tuple[Tensor, Tensor]:
    """Positions (B, T) that count real tokens only, and the (B, 1, T, S) mask without padding."""
    batch, time = tokens.shape
    start = cache.length if cache is not None else 0
    everywhere = torch.ones(batch, time, dtype=torch.bool, device=tokens.device)
    seen = valid = everywhere if valid is None else valid
    if cache is not None:
        if cache.valid is None:
            shape = (batch, cache.capacity)
            cache.valid = torch.ones(shape, dtype=torch.bool, device=tokens.device)
        cache.valid[:, start : start + time] = valid
        seen = cache.valid[:, : start + time]
    places = (seen.cumsum(1) - 1).clamp_(min=0)
    slots = torch.arange(start + time, device=tokens.device)
    mask = (slots[start:, None] >= slots) & seen[:, None, :]
    if window is not None:
        mask &= places[:, start:, None] - places[:, None, :] < window
    # Padding may look at itself: a row of the mask without any True has no softmax.
    mask |= slots[start:, None] == slots
    return places[:, start:], mask[:, None]
