"""Training samples: sample k is a pure function of (seed, k), so that resuming is one integer.

Within a source, windows of ``sequence`` + 1 tokens start every ``sequence`` tokens: each token but
the first is the target of exactly one window. Epoch e visits the windows in the order of a keyed
permutation. Which source comes next is the phase's interleave. Nothing depends on batch sizes,
on the number of processes, or on what was loaded before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.core.seed import derive
from regrow.data.interleave import Interleave
from regrow.data.permutation import permute
from regrow.data.shards import Shard

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one mixture.

    Args:
        name: for logs.
        weights: source to weight, each above 0; they need not sum to 1.
        samples: how many windows the phase has.
    """

    name: str
    weights: Mapping[str, float]
    samples: int


class Sample(NamedTuple):
    """One window. Tensors are int64, (sequence,)."""

    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None
    source: str
    window: int


class Batch(NamedTuple):
    """Windows side by side. Tensors are int64, (batch, sequence).

    Args:
        tokens: token ids.
        targets: the next token of each position; ``IGNORED`` where there is none to predict.
        documents: number of the document within its window, from 0; None without document mask.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None


class Loader:
    """Windows of several sources in the order of the phases.

    Args:
        shards: by source; those that no phase names are not used.
        phases: in order.
        sequence: tokens of a window.
        seed: of the shuffles.
        document_mask: whether documents of one window are kept apart.

    Raises:
        ConfigError: no phase, weights that are not positive, a source without a shard, a source
            with fewer tokens than one window, shards of different tokenizers.
    """

    def __init__(
        self,
        shards: Mapping[str, Shard],
        phases: Sequence[Phase],
        sequence: int,
        seed: int,
        document_mask: bool = False,
    ) -> None:
        if not phases:
            raise ConfigError("no phase; name at least one with its weights")
        if sequence < 1:
            raise ConfigError(f"sequence is {sequence}, but must be at least 1")
        self.phases, self.sequence, self.seed = tuple(phases), sequence, seed
        self.document_mask = document_mask
        for phase in phases:
            _check_phase(phase, shards)
        names = sorted({name for phase in phases for name in phase.weights})
        self._shards = {name: shards[name] for name in names}
        self.windows = {name: _windows(name, shards[name], sequence) for name in names}
        _check_one_tokenizer(self._shards)
        self._interleaves = [Interleave(phase.weights, phase.samples) for phase in phases]
        self._ends = np.cumsum([phase.samples for phase in phases])
        # How often each source was drawn before each phase: its epochs go on across phases.
        self._before: list[dict[str, int]] = []
        drawn = dict.fromkeys(names, 0)
        for phase, interleave in zip(self.phases, self._interleaves, strict=True):
            self._before.append(dict(drawn))
            for name, count in interleave.counts(phase.samples).items():
                drawn[name] += count

    @property
    def samples(self) -> int:
        """Windows of all phases together."""
        return int(self._ends[-1])

    def sample(self, k: int) -> Sample:
        """Window ``k``, the same whenever it is asked for.

        Raises:
            IndexError: not in 0 .. samples-1.
        """
        batch = self.batch(k, 1)
        source, window = self.where(k, 1)[0]
        documents = None if batch.documents is None else batch.documents[0]
        return Sample(batch.tokens[0], batch.targets[0], documents, source, window)

    def batch(self, first: int, count: int) -> Batch:
        """Windows ``first`` .. ``first + count - 1``.

        Raises:
            IndexError: not all in 0 .. samples-1.
        """
        places = self.where(first, count)
        span = self.sequence + 1
        tokens = np.empty((count, span), dtype=np.int64)
        starts_here = np.zeros((count, span), dtype=np.int64) if self.document_mask else None
        for row, (source, window) in enumerate(places):
            shard = self._shards[source]
            start = window * self.sequence
            tokens[row] = shard.tokens[start : start + span]
            if starts_here is not None:
                _mark_starts(shard, start, starts_here[row])
        return _batch(tokens, starts_here)

    def where(self, first: int, count: int) -> list[tuple[str, int]]:
        """Source and window of each of ``count`` samples from ``first`` on.

        Raises:
            IndexError: not all in 0 .. samples-1.
        """
        if first < 0 or count < 0 or first + count > self.samples:
            raise IndexError(
                f"samples {first} to {first + count - 1} of {self.samples} were asked for"
            )
        k = np.arange(first, first + count)
        phase_of = np.searchsorted(self._ends, k, side="right")
        found: list[tuple[str, int]] = [("", 0)] * count
        for phase in np.unique(phase_of):
            rows = np.flatnonzero(phase_of == phase)
            begin = int(self._ends[phase]) - self.phases[phase].samples
            interleave = self._interleaves[phase]
            sources, occurrences = interleave.locate(k[rows] - begin)
            for index in np.unique(sources):
                name = interleave.names[index]
                chosen = sources == index
                windows = self._windows_of(name, occurrences[chosen] + self._before[phase][name])
                for row, window in zip(rows[chosen].tolist(), windows.tolist(), strict=True):
                    found[row] = (name, window)
        return found

    def _windows_of(self, source: str, drawn: np.ndarray) -> np.ndarray:
        """Window of the n-th draw from a source, for each n in ``drawn``."""
        size = self.windows[source]
        epochs, index = np.divmod(drawn, size)
        windows = np.empty_like(index)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            key = derive(self.seed, "windows", source, int(epoch))
            windows[rows] = permute(index[rows], size, key)
        return windows

    def ledger(self, samples: int) -> dict[str, dict[str, float]]:
        """What the first ``samples`` samples draw from each source.

        Returns:
            Source to ``tokens`` (targets of its windows) and ``epochs`` (1.0 is each window once).
        """
        totals = dict.fromkeys(self._shards, 0)
        left = min(samples, self.samples)
        for phase, interleave in zip(self.phases, self._interleaves, strict=True):
            here = min(left, phase.samples)
            for name, count in interleave.counts(here).items():
                totals[name] += count
            left -= here
        return {
            name: {"tokens": count * self.sequence, "epochs": count / self.windows[name]}
            for name, count in totals.items()
        }


def _check_phase(phase: Phase, shards: Mapping[str, Shard]) -> None:
    if phase.samples < 1:
        raise ConfigError(
            f"phase {phase.name!r} has {phase.samples} samples; give it at least one, or drop it"
        )
    for name in phase.weights:
        if name not in shards:
            known = ", ".join(sorted(shards)) or "none"
            raise ConfigError(
                f"phase {phase.name!r} gives a weight to {name!r}, which has no shard"
                f"{nearest(name, list(shards))} (shards: {known})"
            )


def _windows(name: str, shard: Shard, sequence: int) -> int:
    windows = (shard.num_tokens - 1) // sequence
    if windows < 1:
        raise ConfigError(
            f"source {name!r} has {shard.num_tokens} tokens, too few for one window of "
            f"{sequence} + 1; shorten the sequence to {max(1, shard.num_tokens - 1)} or leave "
            "the source out"
        )
    return windows


def _check_one_tokenizer(shards: Mapping[str, Shard]) -> None:
    first = next(iter(shards.values()))
    for name, shard in shards.items():
        if (shard.tokenizer_sha256, shard.vocab_size) != (first.tokenizer_sha256, first.vocab_size):
            raise ConfigError(
                f"sources {first.source!r} and {name!r} were tokenized with different tokenizers "
                f"({first.vocab_size} and {shard.vocab_size} ids); tokenize them with one"
            )


def _mark_starts(shard: Shard, start: int, row: np.ndarray) -> None:
    """Put a 1 where a document begins inside the window; the window's own start is none."""
    starts = shard.document_starts
    low, high = np.searchsorted(starts, (start + 1, start + len(row)))
    row[np.asarray(starts[low:high]) - start] = 1


def _batch(tokens: np.ndarray, starts_here: np.ndarray | None) -> Batch:
    """Tokens and targets of windows (batch, sequence + 1), kept apart where documents start."""
    targets = tokens[:, 1:].copy()
    documents = None
    if starts_here is not None:
        targets[starts_here[:, 1:] == 1] = IGNORED
        documents = torch.from_numpy(np.cumsum(starts_here[:, :-1], axis=1))
    return Batch(torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(targets), documents)


def evaluation_batches(
    shard: Shard,
    sequence: int,
    batch: int,
    max_tokens: int | None = None,
    document_mask: bool = False,
) -> Iterator[Batch]:
    """A shard from its start in windows that do not overlap: each token but the first once.

    The last window may be shorter than the text asks: it is filled up with id 0 and ``IGNORED``
    targets. The last batch may have fewer rows.

    Args:
        shard: to read.
        sequence: tokens of a window.
        batch: windows of a batch.
        max_tokens: targets in all; None for the whole shard.
        document_mask: as in :class:`Loader`.
    """
    targets = shard.num_tokens - 1
    if max_tokens is not None:
        targets = min(targets, max_tokens)
    starts = range(0, max(0, targets), sequence)
    for at in range(0, len(starts), batch):
        rows = starts[at : at + batch]
        tokens = np.zeros((len(rows), sequence + 1), dtype=np.int64)
        starts_here = np.zeros_like(tokens) if document_mask else None
        lengths = []
        for row, start in enumerate(rows):
            length = min(sequence, targets - start)
            tokens[row, : length + 1] = shard.tokens[start : start + length + 1]
            lengths.append(length)
            if starts_here is not None:
                _mark_starts(shard, start, starts_here[row])
        made = _batch(tokens, starts_here)
        for row, length in enumerate(lengths):
            made.targets[row, length:] = IGNORED
        yield made
