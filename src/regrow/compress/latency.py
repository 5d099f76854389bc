"""Milliseconds of a shape on this machine, from a table of measured layers.

One layer of each kind and size is measured, the embedding and the head of each width too; a shape
takes the sum of its parts. Parts are measured as they run in a model: with its caches filled to the
length that is asked about, and with so many copies taking turns that together they are as large as
the source: a layer is found in the processor's cache only where it would be there in a model too.

Legend: B sequences at once, S tokens of each; decode reads one token after S, prefill reads S.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regrow.compress.budgets import Limit, figure_text, sequence_of
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.shape_search import Candidates, evenness, words
from regrow.core.errors import ConfigError
from regrow.model.blocks import Block, SequenceContext
from regrow.model.cache import Cache
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.rope import inverse_frequencies, rotation
from regrow.model.shapes import block_parameters, kv_bytes_per_token, weight_bytes
from regrow.train.device import resolve_device, resolve_threads

Key = tuple[str, tuple[int, ...]]
Floats = npt.NDArray[np.float64]

#: Measured shapes that are enough to choose from.
ENOUGH = 32
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_ANCHORS = 5
_PASSES, _SECONDS = 7, 0.25
#: Below so many bytes the time of a block depends on what ran before it.
_SMALL = 64_000_000
#: More bytes than a processor caches.
_BEYOND_CACHE = 1_000_000_000
#: The estimate from the anchors may be this much too high before a shape is passed over unmeasured.
_DOUBT = 1.15


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is timed.

    Args:
        kind: one token after ``sequence`` others, or ``sequence`` tokens at once.
        sequence: S.
        batch: B.
        dtype: of weights, keys and values.
    """

    kind: Literal["decode", "prefill"]
    sequence: int
    batch: int
    dtype: Literal["bf16", "fp32"]


class LatencyTable:
    """Measured parts of the shapes that one source can be cut to; a part is measured once.

    Args:
        source: what the shapes are cut from: its pattern and all that cutting leaves.
        conditions: what is timed.
    """

    def __init__(self, source: ModelConfig, conditions: Conditions) -> None:
        self.source = source
        self.conditions = conditions
        self.device = resolve_device("auto")
        self.milliseconds: dict[Key, float] = {}

    def total_ms(self, config: ModelConfig) -> float:
        """The sum over the parts of a shape, ms."""
        blocks = (
            config.pattern.count(symbol) * self.part_ms(config, symbol)
            for symbol in sorted(set(config.pattern))
        )
        return self.part_ms(config, "outer") + sum(blocks)

    def part_ms(self, config: ModelConfig, part: str) -> float:
        """One block of kind ``part``, or with ``outer`` the embedding, final norm and head, ms."""
        key = key_of(config, part)
        if key not in self.milliseconds:
            timed = self._outer(config) if part == "outer" else self._block(config, part)
            self.milliseconds[key] = timed
        return self.milliseconds[key]

    def rows(self) -> list[dict[str, Any]]:
        """The table as JSON-able rows."""
        return [
            {"part": part, "sizes": list(sizes), "ms": value}
            for (part, sizes), value in sorted(self.milliseconds.items())
        ]

    def _block(self, config: ModelConfig, symbol: str) -> float:
        of, dtype = self.conditions, _DTYPES[self.conditions.dtype]
        nbytes = block_parameters(config, symbol) * dtype.itemsize
        copies = _copies(self.source, nbytes, dtype)
        time_, start = (1, of.sequence) if of.kind == "decode" else (of.sequence, 0)
        with torch.no_grad():
            x = torch.randn(of.batch, time_, config.hidden_size).to(self.device, dtype)
            context = _context(config, start, time_, self.device)

            def turns(kind: str, copies: int) -> Callable[[], None]:
                made = cycle([self._runnable(config, kind) for _ in range(copies)])

                def once() -> None:
                    block, state = next(made)
                    block(x, context, state)

                return once

            # What stands between two such blocks of a model leaves its own code and data behind.
            others = [turns(kind, 1) for kind in sorted(set(config.pattern) - {symbol})]
            small = nbytes * len(others) < _SMALL
            return _least_ms(turns(symbol, copies), self.device, copies, others if small else ())

    def _runnable(self, config: ModelConfig, symbol: str) -> tuple[Any, Any]:
        """A block and what it remembers."""
        of, dtype = self.conditions, _DTYPES[self.conditions.dtype]
        block = _filled(Block(config, symbol), dtype, self.device)
        return block, block.mixer.new_state(of.batch, of.sequence + 1, self.device, dtype)

    def _outer(self, config: ModelConfig) -> float:
        of, dtype = self.conditions, _DTYPES[self.conditions.dtype]
        bare = _bare(config)
        copies = _copies(self.source, weight_bytes(bare, dtype.itemsize), dtype)
        with torch.no_grad():
            made = [_filled(Decoder(bare), dtype, self.device) for _ in range(copies)]
            for model in made:
                model.blocks = nn.ModuleList()
            turns = cycle(made)
            count = 1 if of.kind == "decode" else of.sequence
            tokens = torch.zeros(of.batch, count).long().to(self.device)
            start = of.sequence if of.kind == "decode" else 0

            def once() -> None:
                model = next(turns)
                cache = Cache([], start, of.sequence + 1)
                model.head(model.hidden(tokens, cache=cache)[:, -1]).argmax(-1)

            return _least_ms(once, self.device, copies)


def _bare(config: ModelConfig) -> ModelConfig:
    """The smallest decoder with the embedding, positions, norm and head of a shape."""
    head_dim = config.head_dim or 2
    rotary = config.rotary_fraction if config.head_dim else 0.0
    return config.replace(
        pattern="*-",
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=head_dim,
        rotary_fraction=rotary,
        intermediate_size=1,
    )


def key_of(config: ModelConfig, part: str) -> Key:
    """The sizes that the time of a part depends on."""
    if part == "*":
        return part, (config.hidden_size, config.heads, config.kv_heads)
    if part == "-":
        return part, (config.hidden_size, config.intermediate_size)
    if part == "M" and config.mamba is not None:
        return part, (config.hidden_size, config.mamba.heads, config.mamba.head_dim)
    return part, (config.hidden_size,)


def table_of(source: ModelConfig, budget: BudgetTarget) -> LatencyTable:
    """The table that this process keeps for a source under a budget's conditions.

    Kept, so that what a plan measured is what the run goes by.
    """
    sequence = sequence_of(source, budget)
    return _table(source, Conditions(budget.latency, sequence, budget.batch, budget.dtype))


@lru_cache(maxsize=8)
def _table(source: ModelConfig, conditions: Conditions) -> LatencyTable:
    torch.set_num_threads(resolve_threads("auto"))
    return LatencyTable(source, conditions)


def assembled_ms(config: ModelConfig, conditions: Conditions) -> float:
    """The whole shape with random weights, measured, ms: what a sum of the table is held against.

    Args:
        config: the shape; must fit into memory.
        conditions: what is timed.
    """
    device, dtype = resolve_device("auto"), _DTYPES[conditions.dtype]
    with torch.no_grad():
        model = _filled(Decoder(config), dtype, device)
        count = 1 if conditions.kind == "decode" else conditions.sequence
        tokens = torch.zeros(conditions.batch, count).long().to(device)
        cache = model.new_cache(conditions.batch, conditions.sequence + 1, dtype)

        def once() -> None:
            cache.length = conditions.sequence if conditions.kind == "decode" else 0
            model.head(model.hidden(tokens, cache=cache)[:, -1]).argmax(-1)

        return _least_ms(once, device, 1)


def fastest(
    source: ModelConfig, found: Candidates, budget: BudgetTarget, limits: Sequence[Limit]
) -> Candidates:
    """Of shapes that hold everything else, the first :data:`ENOUGH` that are fast enough.

    The latency of all is estimated from a few measured sizes of each part; then, from the most even
    and nearest on, each shape's own parts are measured, and only what was measured is given.

    Args:
        source: what they are cut from.
        found: the shapes.
        budget: with ``latency_ms``.
        limits: all bounds of the budget.

    Raises:
        ConfigError: none is fast enough, or the source is and nothing else is bounded.
    """
    table = table_of(source, budget)
    bound = next(limit for limit in limits if limit.figure == "latency_ms")
    if len(limits) == 1 and table.total_ms(source) <= bound.value:
        raise ConfigError(
            f"budget.latency_ms: the source takes {table.total_ms(source):.4g} ms here, which is "
            f"within {bound.value:.4g} ms already; nothing has to be cut"
        )
    estimated = estimate(table, source, found)
    targets = [lim for lim in limits if lim.is_target]
    if targets:
        logs = [np.log(getattr(found, lim.figure) / lim.value) for lim in targets]
        miss = np.square(np.stack(logs)).sum(0)
    else:
        ratios = [getattr(found, lim.figure) / lim.value for lim in limits if lim is not bound]
        # Too slow by the estimate is no reason to come late, but faster than needed is.
        ratios.append(np.minimum(estimated / bound.value, 1.0))
        miss = np.square(np.log(np.stack(ratios).max(0)))
    score = evenness(source, found, budget) + miss
    likely = np.flatnonzero(estimated <= _DOUBT * bound.value)
    order = likely[np.lexsort((-found.hidden_size[likely], score[likely]))]
    rows: list[int] = []
    measured = np.full(len(found), np.nan)
    for row in order[: 8 * ENOUGH]:
        measured[row] = table.total_ms(found.config(source, int(row)))
        if measured[row] <= bound.value:
            rows.append(int(row))
            if len(rows) == ENOUGH:
                break
    if not rows:
        raise _too_slow(found, estimated, measured, bound)
    return found.with_latency(measured).take(np.array(rows, dtype=np.intp))


def _too_slow(found: Candidates, estimated: Floats, measured: Floats, bound: Limit) -> ConfigError:
    known = np.where(np.isnan(measured), estimated, measured)
    row = int(np.argmin(known))
    how = "about " if np.isnan(measured[row]) else ""
    return ConfigError(
        f"budget.latency_ms: no legal shape takes at most {bound.text()} here",
        [
            f"nearest: {how}{figure_text('latency_ms', known[row])} with {words(found, row)}",
            "allow more axes or wider max_width_cut and max_depth_cut, or more milliseconds",
        ],
    )


def estimate(table: LatencyTable, source: ModelConfig, found: Candidates) -> Floats:
    """(count,) ms of many shapes, from a few measured sizes of each part.

    Between measured sizes the time goes in a straight line with the bytes that a part reads (one
    token at a time) or with its parameters (many).
    """
    total = np.zeros(len(found))
    columns: dict[str, tuple[str, ...]] = {
        "outer": ("hidden_size",),
        "*": ("hidden_size", "heads", "kv_heads"),
        "-": ("hidden_size", "intermediate_size"),
        "M": ("hidden_size", "mamba_heads", "mamba_head_dim"),
    }
    for part in ("outer", *sorted(set(source.pattern))):
        sizes = np.stack([getattr(found, name) for name in columns[part]], axis=1)
        _, firsts, inverse = np.unique(sizes, axis=0, return_index=True, return_inverse=True)
        configs = [found.config(source, int(row)) for row in firsts]
        work = np.array([_work(table, config, part) for config in configs], dtype=np.float64)
        order = np.argsort(work, kind="stable")
        places = np.unique(np.linspace(0, len(order) - 1, min(_ANCHORS, len(order))).round())
        anchors = [int(order[int(place)]) for place in places]
        times = [table.part_ms(configs[index], part) for index in anchors]
        each = np.interp(work, work[anchors], times)[inverse.reshape(-1)]
        if part == "outer":
            total += each
        elif source.is_transformer:
            total += found.layers * each
        else:
            total += source.pattern.count(part) * each
    return total


def _work(table: LatencyTable, config: ModelConfig, part: str) -> float:
    if part == "outer":
        return float(config.hidden_size)
    work = float(block_parameters(config, part))
    if part == "*" and table.conditions.kind == "decode":
        cached = kv_bytes_per_token(config, 1) / config.pattern.count("*")
        work += cached * table.conditions.sequence * table.conditions.batch
    return work


def _copies(source: ModelConfig, nbytes: int, dtype: torch.dtype) -> int:
    """How many parts of ``nbytes`` read as much as a pass over the whole source does."""
    whole = min(weight_bytes(source, dtype.itemsize), _BEYOND_CACHE)
    return max(1, -(-whole // nbytes))


def _filled(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    """Small weights that are no zeros, in a dtype and on a device."""
    for parameter in module.parameters():
        parameter.requires_grad_(False).fill_(0.01)
    return module.to(device, dtype).eval()


def _context(config: ModelConfig, start: int, time_: int, device: torch.device) -> SequenceContext:
    rotary: tuple[Tensor, Tensor] | None = None
    if config.rotary_dim:
        places = torch.arange(start, start + time_, device=device)
        rotary = rotation(places, inverse_frequencies(config).to(device))
    return SequenceContext(rotary, None, start)


def _least_ms(
    once: Callable[[], None],
    device: torch.device,
    copies: int,
    between: Sequence[Callable[[], None]] = (),
) -> float:
    """The shortest of at least :data:`_PASSES` passes, after every copy was run; ms.

    Whatever else the machine does can only make a pass longer.
    """
    for _ in range(max(2, copies)):
        once()
    spent: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(spent) < _PASSES or (time.perf_counter() < until and len(spent) < 1000):
        for other in between:
            other()
        began = _clock(device)
        once()
        spent.append(_clock(device) - began)
        if len(spent) >= 3 and sum(spent) > 8 * _SECONDS:
            break
    return 1000 * min(spent)


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
