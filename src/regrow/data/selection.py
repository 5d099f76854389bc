"""What selection computes of documents and targets: buckets of n-grams, and log weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from regrow.data import dsir
from regrow.data.condition import Condition
from regrow.data.example_texts import text_digest
from regrow.data.words import Ints

FEATURES = pa.schema(
    [
        pa.field("buckets", pa.binary()),
        pa.field("wanted", pa.bool_()),
        pa.field("known", pa.bool_()),
    ]
)
MADE = pa.schema(
    [
        pa.field("select_group", pa.string()),
        pa.field("select_tokens", pa.int64()),
        pa.field("select_log_weight", pa.float64()),
    ]
)
#: The group of all documents, where sources are not told apart.
ALL = "all"
_BATCH_BYTES = 4 << 20
_LOCAL = threading.local()


def count(held: Sequence[bytes]) -> Ints:
    """``(BUCKETS,)`` n-grams in each bucket, of documents whose buckets are given."""
    buckets = np.frombuffer(b"".join(held), np.uint16)
    return np.bincount(buckets, minlength=dsir.BUCKETS).astype(np.int64)


def _hasher() -> dsir.Hasher:
    """One a thread: it remembers n-grams."""
    if not hasattr(_LOCAL, "hasher"):
        _LOCAL.hasher = dsir.Hasher()
    found: dsir.Hasher = _LOCAL.hasher
    return found


def plain_digest(text: str) -> bytes:
    """16 bytes that are equal for texts which differ in white space alone."""
    return text_digest(" ".join(text.split()))


@dataclass(frozen=True, slots=True)
class Target:
    """What the files of a target hold.

    Args:
        counts: ``(BUCKETS,)`` n-grams.
        texts: texts with a token.
        digests: of the texts.
        digest: of all of them, in whatever order they came.
    """

    counts: Ints
    texts: int
    digests: frozenset[bytes]
    digest: str

    @classmethod
    def of(cls, texts: Iterator[str]) -> Target:
        """Read texts, some at a time."""
        counts, number, total = np.zeros(dsir.BUCKETS, np.int64), 0, 0
        digests: set[bytes] = set()
        hasher = dsir.Hasher()
        for some in portions(texts):
            features = hasher.features(some)
            counts += features.counts()
            number += int(np.count_nonzero(features.tokens))
            digests.update(map(plain_digest, some))
            total += sum(int.from_bytes(text_digest(text), "big") for text in some)
        return cls(counts, number, frozenset(digests), f"{total % (1 << 128):032x}")


def portions(texts: Iterator[str]) -> Iterator[list[str]]:
    """Texts, some at a time, in bounded memory."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _BATCH_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


@dataclass(frozen=True, slots=True)
class Extract:
    """Buckets of each document of a batch, and whether it belongs to the target."""

    condition: Condition | None
    digests: frozenset[bytes]

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        texts = batch["text"].to_pylist()
        features = _hasher().features(texts)
        bounds = features.first.tolist()
        wanted = [False] * len(texts)
        if self.condition:
            wanted = self.condition.holds(batch).tolist()
        return {
            "buckets": [features.buckets[a:b].tobytes() for a, b in pairwise(bounds)],
            "wanted": wanted,
            "known": [bool(self.digests) and plain_digest(text) in self.digests for text in texts],
        }


@dataclass(frozen=True)
class Weigh:
    """Log weights of a batch of features."""

    target: Ints
    raw: Mapping[str, Ints]
    laplace: float
    pooled: bool

    @cached_property
    def _ratios(self) -> dict[str, dsir.Floats]:
        return {g: dsir.log_ratio(self.target, raw, self.laplace) for g, raw in self.raw.items()}

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        sources = batch["source"].to_pylist()
        groups = [ALL] * len(sources) if self.pooled else sources
        held = [np.frombuffer(one, np.uint16) for one in batch["buckets"].to_pylist()]
        weights = []
        for group, buckets, wanted in zip(groups, held, batch["wanted"].to_pylist(), strict=True):
            if wanted:
                raw = self.raw[group]
                weights.append(dsir.own_log_weight(buckets, self.target, raw, self.laplace))
            else:
                weights.append(dsir.log_weight(buckets, self._ratios[group]))
        tokens = [(len(buckets) + 1) // 2 for buckets in held]
        return {"select_group": groups, "select_tokens": tokens, "select_log_weight": weights}
