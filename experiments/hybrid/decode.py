"""Part E: time and memory of decoding against context, with random weights.

Sixteen blocks, eight mixers and eight MLPs: eight attention blocks, one of eight, or none.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.core.seed import derive
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import kv_bytes_per_token, state_bytes

PATTERNS = {"transformer": "*-" * 8, "mamba2": "M-" * 8, "hybrid": "M-M-M-M-*-M-M-M-"}
CONTEXTS = (512, 2048, 8192, 32768)
FLOAT = 4


def shape(model: str, hidden: int = 256) -> ModelConfig:
    """A config of hidden size 256: 4 heads of 64, Mamba-2 heads of 64 with 128 states."""
    pattern = PATTERNS[model]
    return ModelConfig(
        layers=8 if model == "transformer" else len(pattern),
        hidden_size=hidden,
        heads=4 if "*" in pattern else 0,
        vocab_size=256,
        pattern=pattern,
        activation="relu2",
        rotary_fraction=1.0 if model == "transformer" else 0.0,
        mamba=MambaConfig(state=128, head_dim=64, groups=1) if "M" in pattern else None,
        max_positions=1 << 16,
    )


def live_bytes(thing: Any) -> int:
    """Bytes of all tensors in a cache."""
    if isinstance(thing, Tensor):
        return thing.nbytes
    if isinstance(thing, list | tuple):
        return sum(live_bytes(part) for part in thing)
    if is_dataclass(thing):
        return sum(live_bytes(getattr(thing, field.name)) for field in fields(thing))
    return 0


def planned_bytes(config: ModelConfig, capacity: int) -> int:
    """What the planner says of one sequence of ``capacity`` tokens in fp32."""
    return state_bytes(config, FLOAT) + capacity * kv_bytes_per_token(config, FLOAT)


class _Decoding:
    """One model with a cache that already holds a context."""

    def __init__(self, model: str, context: int, new_tokens: int, hidden: int) -> None:
        self.config = shape(model, hidden)
        generator = torch.Generator().manual_seed(derive(0, "decode", model))
        self.decoder = Decoder(self.config)
        self.decoder.initialise(generator)
        self.context, self.new_tokens = context, new_tokens
        self.cache = self.decoder.new_cache(1, context + new_tokens)
        for state in self.cache.states:
            for part in (getattr(state, f.name) for f in fields(state)) if state else ():
                part.normal_(generator=generator)
        self.bytes = live_bytes(self.cache)
        self.planned = planned_bytes(self.config, context + new_tokens)

    @torch.no_grad()
    def seconds_per_token(self) -> float:
        """Processor time of a token, from the same context each time."""
        self.cache.length = self.context
        token = torch.zeros(1, 1, dtype=torch.int64)
        began = time.process_time()
        for _ in range(self.new_tokens):
            token = self.decoder(token, cache=self.cache)[:, -1:].argmax(-1)
        return (time.process_time() - began) / self.new_tokens


def measure(
    contexts: Sequence[int] = CONTEXTS, new_tokens: int = 16, repeats: int = 9, hidden: int = 256
) -> list[dict[str, Any]]:
    """Median time and bytes of each model at each context.

    All pairs of model and context take turns, so that a machine that is slower for a while is
    slower for all of them. The context is random numbers in the cache: reading it costs the same as
    a real one, and no prefill of 32 K tokens is needed.
    """
    pairs = [(name, context) for context in contexts for name in PATTERNS]
    decodings = {pair: _Decoding(*pair, new_tokens, hidden) for pair in pairs}
    times: dict[tuple[str, int], list[float]] = {pair: [] for pair in pairs}
    for repeat in range(repeats + 1):
        for pair, decoding in decodings.items():
            seconds = decoding.seconds_per_token()
            if repeat:  # the first one pays for allocations
                times[pair].append(1000 * seconds)
    return [
        {
            "part": "E",
            "name": f"E-{name}-{context}",
            "model": name,
            "context": context,
            "milliseconds": statistics.median(times[name, context]),
            "fastest": min(times[name, context]),
            "slowest": max(times[name, context]),
            "cache_bytes": decoding.bytes,
            "planned_bytes": decoding.planned,
        }
        for (name, context), decoding in decodings.items()
    ]
