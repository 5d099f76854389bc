"""Continue token sequences with a decoder's own predictions.

Legend: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from regrow.model.decoder import Decoder


def sample(
    logits: Tensor,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One id for each row of logits.

    Args:
        logits: (B, V).
        temperature: 0 takes the largest logit; otherwise logits are divided by it.
        top_k: keep only this many of the largest.
        top_p: keep the smallest set of the most likely ids whose probabilities reach this sum
            (arXiv 1904.09751); always at least one.
        generator: source of randomness, on the device of the logits.

    Returns:
        (B,) int64.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = logits.softmax(-1)
    if top_p is not None and top_p < 1.0:
        ordered, ids = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, ids, ordered)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def stream(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """New ids one step at a time; arguments as of :func:`generate`.

    Yields:
        (B,) int64. A row that has ended repeats ``eos_id``; the stream ends with its last row.

    Raises:
        ValueError: an impossible setting, or an empty prompt.
    """
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ValueError(f"a prompt of shape (batch, time) is needed, not {tuple(tokens.shape)}")
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, but is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, but is {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], but is {top_p}")
    return _stream(model, tokens, max_new_tokens, temperature, top_k, top_p, eos_id, generator)


def _stream(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    eos_id: int | None,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    batch, time = tokens.shape
    cache = model.new_cache(batch, time + max_new_tokens)
    ended = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    inputs = tokens
    for _ in range(max_new_tokens):
        # Entered anew for each step: a generator must not leave its mode on in its caller.
        with torch.no_grad():
            hidden = model.hidden(inputs, cache=cache)
            ids = sample(model.head(hidden[:, -1]), temperature, top_k, top_p, generator)
            if eos_id is not None:
                ids = torch.where(ended, eos_id, ids)
                ended = ended | (ids == eos_id)
        yield ids
        if eos_id is not None and bool(ended.all()):
            return
        inputs = ids[:, None]


def generate(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Prompts with their continuations.

    Args:
        model: the decoder.
        tokens: (B, T) int64 prompts of one length.
        max_new_tokens: at most this many are added.
        temperature: 0 for greedy decoding.
        top_k: see :func:`sample`.
        top_p: see :func:`sample`.
        eos_id: a row ends with it and is filled up with it; when all have ended, decoding stops.
        generator: source of randomness.

    Returns:
        (B, T + new) int64.

    Raises:
        ValueError: see :func:`stream`.
    """
    steps = stream(model, tokens, max_new_tokens, temperature, top_k, top_p, eos_id, generator)
    return torch.cat([tokens, *(ids[:, None] for ids in steps)], dim=1)
