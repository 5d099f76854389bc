"""Documents in whole epochs: how a bucket's tokens are drawn, never with replacement.

All documents are tokenized once into a pool, so that the buckets' tokens are known exactly. Then
each bucket is passed through as often as the blend says, each time in another order, and the last
pass ends between two documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regrow.core.atomic import read_json, write_json
from regrow.core.errors import InputError
from regrow.core.registry import nearest
from regrow.core.seed import derive
from regrow.data.permutation import permute
from regrow.data.shards import Shard, ShardWriter, Vocabulary
from regrow.data.weights import UNKNOWN, Values
from regrow.data.words import Ints

_ALL = "all"
_WHICH, _SIZES, _VALUES = "which.i4", "sizes.i8", "values.list"
_SLACK = 1e-9


def check_labels(table: Path, columns: Sequence[str], setting: str) -> None:
    """Refuse columns whose values can be no buckets.

    Args:
        table: of documents.
        columns: that are to tell the bucket.
        setting: that names them, for messages.

    Raises:
        InputError: one that the table lacks, or that is not of text.
    """
    schema = pq.read_schema(table)
    for name in columns:
        if name not in schema.names:
            raise InputError(
                f"{setting}: {table} has no column {name!r}{nearest(name, schema.names)} "
                f"(columns: {', '.join(schema.names)}); attributes get theirs from the step "
                "attributes of curate run"
            )
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{setting}: {name} holds {kind}, not labels; name a column of text")


def values_of(batch: pa.RecordBatch, columns: Sequence[str]) -> list[Values]:
    """What the columns hold in each row, as text."""
    found = [batch[name].to_pylist() for name in columns]
    return [
        tuple(UNKNOWN if value in (None, "") else str(value) for value in row)
        for row in zip(*found, strict=True)
    ]


class PoolWriter:
    """Writes tokenized documents with the values that tell their bucket.

    Args:
        folder: empty, inside a staged folder.
        vocabulary: of the ids.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.folder = folder
        self._numbers: dict[Values, int] = {}
        self._shard = ShardWriter(folder, _ALL, vocabulary)
        self._which = (folder / _WHICH).open("wb")
        self._sizes = (folder / _SIZES).open("wb")

    def add(self, values: Values, ids: Sequence[int], text_bytes: int) -> None:
        """Append one document."""
        number = self._numbers.setdefault(values, len(self._numbers))
        self._shard.add(ids, text_bytes)
        self._which.write(np.array([number], "<i4").tobytes())
        self._sizes.write(np.array([text_bytes], "<i8").tobytes())

    def __enter__(self) -> PoolWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._which.close()
        self._sizes.close()
        self._shard.__exit__(kind, error, trace)
        if kind is None:
            write_json(self.folder / _VALUES, [list(values) for values in self._numbers])


class Pool:
    """Tokenized documents in the order of their table.

    Args:
        folder: what a ``PoolWriter`` made.
    """

    def __init__(self, folder: Path) -> None:
        self._shard = Shard.open(folder / f"{_ALL}.json")
        self._values = [tuple(values) for values in read_json(folder / _VALUES)]
        self._which = np.fromfile(folder / _WHICH, "<i4")
        self._sizes = np.fromfile(folder / _SIZES, "<i8")
        self._ends = np.append(self._shard.document_starts[1:], self._shard.num_tokens)
        self._lengths: Ints = self._ends - self._shard.document_starts

    def counts(self) -> dict[Values, int]:
        """Values to the tokens of their documents, end-of-text ids included."""
        sums = np.bincount(self._which, self._lengths, len(self._values))
        return {
            values: int(count) for values, count in zip(self._values, sums.tolist(), strict=True)
        }

    def documents(self, of: Mapping[Values, str], bucket: str) -> Ints:
        """Numbers of a bucket's documents."""
        inside = np.array([of[values] == bucket for values in self._values], bool)
        return np.flatnonzero(inside[self._which])

    def drawn(self, documents: Ints, tokens: float, seed: int, bucket: str) -> Iterator[Ints]:
        """Documents in the order in which they are read, an epoch at a time.

        Args:
            documents: ``(documents,)`` numbers.
            tokens: how many are wanted; the last epoch ends at the nearest end of a document.
            seed: of the orders.
            bucket: its name; it has orders of its own.
        """
        lengths = self._lengths[documents]
        available = int(lengths.sum())
        full = floor(tokens / available + _SLACK)
        for epoch in range(full + 1):
            key = derive(seed, "documents", bucket, epoch)
            order = permute(np.arange(len(documents)), len(documents), key)
            if epoch == full:
                reach = np.concatenate([[0], np.cumsum(lengths[order])])
                order = order[: int(np.abs(reach - (tokens - full * available)).argmin())]
            if len(order):
                yield documents[order]

    def write(self, number: int, writer: ShardWriter) -> int:
        """Append a document to a shard; its tokens."""
        start, end = int(self._shard.document_starts[number]), int(self._ends[number])
        tokens: Any = self._shard.tokens[start : end - 1]  # the writer adds the end-of-text id
        writer.add(tokens, int(self._sizes[number]))
        return end - start
