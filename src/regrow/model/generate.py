"""Continue token sequences with a decoder's own predictions.

Legend: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from regrow.model.decoder import Decoder

Generators = torch.Generator | Sequence[torch.Generator] | None


def pad_left(rows: Sequence[Tensor | Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of different lengths as one batch whose rows end together.

    Args:
        rows: ids of each prompt, one-dimensional.
        pad_id: what stands in the places before a shorter prompt; nothing ever reads it.

    Returns:
        (B, T) int64 ids, and (B, T) bool, True where an id is a prompt's own; T is the longest.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("at least one prompt is needed")
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        if len(row):
            tokens[place, longest - len(row) :] = torch.as_tensor(row, dtype=torch.int64)
            valid[place, longest - len(row) :] = True
    return tokens, valid


def sample(
    logits: Tensor,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generators = None,
) -> Tensor:
    """One id for each row of logits.

    Args:
        logits: (B, V).
        temperature: 0 takes the largest logit; otherwise logits are divided by it.
        top_k: keep only this many of the largest.
        top_p: keep the smallest set of the most likely ids whose probabilities reach this sum
            (arXiv 1904.09751); always at least one.
        generator: source of randomness, on the device of the logits; or one for each row, on the
            CPU, so that what a row draws does not depend on the others.

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
    if generator is None or isinstance(generator, torch.Generator):
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
    return _draw(probabilities, generator)


def _draw(probabilities: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Ids by the inverse of each row's distribution function, from one number a row.

    Rounding can change an id only where the number falls within it of a step of the function, so a
    row's ids are the same in any batch (and on any device) but for one draw in millions.
    """
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    sums = probabilities.double().cumsum(-1)
    # Below the total even where the product rounds up to it: the last id that is found has mass.
    below = torch.nextafter(sums[:, -1:], torch.zeros_like(sums[:, -1:]))
    target = torch.minimum(uniform.to(sums.device) * sums[:, -1:], below)
    return torch.searchsorted(sums, target, right=True).squeeze(-1)


def stream(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | Sequence[int] | None = None,
    generator: Generators = None,
    valid: Tensor | None = None,
) -> Generator[Tensor, None, None]:
    """New ids one step at a time; arguments as of :func:`generate`.

    Yields:
        (B,) int64. A row that has ended repeats its last id; the stream ends with its last row.

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
    if isinstance(generator, Sequence) and len(generator) != tokens.shape[0]:
        raise ValueError(f"{tokens.shape[0]} rows need as many generators, not {len(generator)}")
    if valid is not None:
        if valid.shape != tokens.shape:
            raise ValueError(
                f"valid has shape {tuple(valid.shape)}, but the prompts {tuple(tokens.shape)}"
            )
        if not bool(valid[:, -1].all()):
            raise ValueError("every prompt must end in the last column: pad on the left")
    ends = (eos_id,) if isinstance(eos_id, int) else tuple(eos_id or ())
    return _stream(model, tokens, max_new_tokens, temperature, top_k, top_p, ends, generator, valid)


def _stream(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    ends: tuple[int, ...],
    generator: Generators,
    valid: Tensor | None,
) -> Generator[Tensor, None, None]:
    batch, time = tokens.shape
    cache = model.new_cache(batch, time + max_new_tokens)
    ended = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    end_ids = torch.tensor(ends, dtype=torch.int64, device=tokens.device)
    inputs = tokens
    for _ in range(max_new_tokens):
        # Entered anew for each step: a generator must not leave its mode on in its caller.
        with torch.no_grad():
            hidden = model.hidden(inputs, cache=cache, valid=valid)
            ids = sample(model.head(hidden[:, -1]), temperature, top_k, top_p, generator)
            if ends:
                ids = torch.where(ended, inputs[:, -1], ids)
                ended = ended | torch.isin(ids, end_ids)
        yield ids
        if ends and bool(ended.all()):
            return
        inputs, valid = ids[:, None], None  # what is made is never padding


def generate(
    model: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | Sequence[int] | None = None,
    generator: Generators = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Prompts with their continuations.

    Args:
        model: the decoder.
        tokens: (B, T) int64 prompts; shorter ones are padded on the left (see :func:`pad_left`).
        max_new_tokens: at most this many are added.
        temperature: 0 for greedy decoding.
        top_k: see :func:`sample`.
        top_p: see :func:`sample`.
        eos_id: a row ends with it (or with any of several) and is filled up with the one that it
            ended with; when all have ended, decoding stops.
        generator: see :func:`sample`.
        valid: (B, T) bool, False where a prompt is padded; without it nothing is. A row's
            continuation is the one that it has alone.

    Returns:
        (B, T + new) int64.

    Raises:
        ValueError: see :func:`stream`.
    """
    steps = stream(
        model, tokens, max_new_tokens, temperature, top_k, top_p, eos_id, generator, valid
    )
    return torch.cat([tokens, *(ids[:, None] for ids in steps)], dim=1)
