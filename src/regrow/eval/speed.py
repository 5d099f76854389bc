"""How fast a model reads and writes on this machine."""

from __future__ import annotations

import statistics
import time

import torch

from regrow.model.decoder import Decoder
from regrow.model.generate import stream


def decode_speed(
    model: Decoder, prompt_tokens: int = 32, new_tokens: int = 64, repeats: int = 3, seed: int = 0
) -> dict[str, float]:
    """Greedy decoding of one sequence with the cache; the median of ``repeats`` after a warm-up.

    What the tokens say does not matter for the time, so the prompt is drawn at random.

    Args:
        model: the decoder, on the device to measure, in the dtype to measure.
        prompt_tokens: read in one step.
        new_tokens: at least 2; the first comes out of reading the prompt, the rest are timed.
        repeats: at least 1.
        seed: of the prompt.

    Returns:
        ``decode_tokens_per_second`` and ``prefill_tokens_per_second``.
    """
    device = model.embed.weight.device
    generator = torch.Generator().manual_seed(seed)
    size = model.config.vocab_size
    prompt = torch.randint(0, size, (1, prompt_tokens), generator=generator).to(device)
    prefill, decode = [], []
    was_training = model.training
    model.eval()
    try:
        for repeat in range(repeats + 1):
            times = _one_pass(model, prompt, new_tokens)
            if repeat:  # the first one pays for allocations
                prefill.append(prompt_tokens / times[0])
                decode.append((new_tokens - 1) / times[1])
    finally:
        model.train(was_training)
    return {
        "decode_tokens_per_second": statistics.median(decode),
        "prefill_tokens_per_second": statistics.median(prefill),
    }


def _one_pass(model: Decoder, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds until the first new token, and from there to the last."""
    began = _clock(prompt.device)
    steps = stream(model, prompt, new_tokens)
    next(steps)
    first = _clock(prompt.device)
    for _ in steps:
        pass
    return first - began, _clock(prompt.device) - first


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
