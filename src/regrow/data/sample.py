"""A bounded, seeded sample of documents, in which some sources or languages may count more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.core.seed import derive
from regrow.io.parquet import num_rows, read_batches


class Group(NamedTuple):
    """Documents that are sampled alike."""

    source: str
    language: str


class DocumentSample:
    """Texts of a table, at most so many bytes of them.

    Ids are hashes and tables are sorted by them, so rows in their order are a random sample; a
    seed chooses where it starts. Without weights documents are taken in order as they fit. With
    weights each group of documents, those of one source and language, gets its share of the bytes:
    in proportion to its own bytes times its weights. A group that has less text than its share is
    repeated.

    Args:
        table: a split's ``.parquet``, sorted by id.
        sample_bytes: UTF-8 bytes at most.
        seed: 0 starts with the first row.
        weights: how often a source counts; 1 where it is not named.
        language_weights: how often a language counts; 1 where it is not named.
    """

    def __init__(
        self,
        table: Path,
        sample_bytes: int,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        language_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.table, self.sample_bytes, self.seed = table, sample_bytes, seed
        self.weights = dict(weights or {})
        self.language_weights = dict(language_weights or {})
        self.documents = 0
        self.taken: dict[Group, int] = {}
        """Bytes given so far, by group."""

    @property
    def bytes(self) -> int:
        """Bytes given so far."""
        return sum(self.taken.values())

    @property
    def weighted(self) -> bool:
        """Whether some documents count more than others."""
        return bool(self.weights or self.language_weights)

    def check(self) -> None:
        """Make sure that the weights name sources and languages of the table.

        Raises:
            ConfigError: with every name that is not there.
        """
        if not self.weighted:
            return
        sources, languages = set[str](), set[str]()
        for batch in read_batches(self.table, ["source", "language"]):
            sources.update(pc.unique(batch["source"]).to_pylist())
            languages.update(pc.unique(batch["language"]).to_pylist())
        problems = _unknown("weights", self.weights, sources)
        problems += _unknown("language_weights", self.language_weights, languages)
        if problems:
            raise ConfigError(f"weights that fit no document of {self.table}", problems)

    def _weight(self, group: Group) -> float:
        own = self.weights.get(group.source, 1.0)
        return own * self.language_weights.get(group.language, 1.0)

    def texts(self) -> Iterator[str]:
        """The sample; ``bytes``, ``documents`` and ``taken`` tell what was given.

        Raises:
            ConfigError: every document has weight 0.
        """
        self.documents, self.taken = 0, {}
        return self._repeated() if self.weighted else self._as_they_fit()

    def _as_they_fit(self) -> Iterator[str]:
        total = 0
        for group, text in self._rows():
            size = len(text.encode())
            if total + size > self.sample_bytes:
                if total:
                    continue
                text, size = _cut(text, self.sample_bytes)
            total += size
            yield self._given(group, text, size)
            if total >= self.sample_bytes:
                return

    def _repeated(self) -> Iterator[str]:
        sizes = self._sizes()
        wanted = {group: self._weight(group) * size for group, size in sizes.items()}
        if not sum(wanted.values()):
            raise ConfigError(f"every document of {self.table} has weight 0; give one a weight")
        scale = min(1.0, self.sample_bytes / sum(wanted.values()))
        passes = {group: divmod(int(scale * wanted[group]), sizes[group]) for group in sizes}
        left = {group: rest for group, (_, rest) in passes.items()}
        for group, text in self._rows():
            size = len(text.encode())
            for _ in range(passes[group][0]):
                yield self._given(group, text, size)
            if size > left[group]:
                # A group with no document that fits gets a part of its first one.
                if left[group] < passes[group][1] or passes[group][0]:
                    continue
                text, size = _cut(text, left[group])
                if not text:
                    continue
            left[group] -= size
            yield self._given(group, text, size)

    def _given(self, group: Group, text: str, size: int) -> str:
        self.documents += 1
        self.taken[group] = self.taken.get(group, 0) + size
        return text

    def _sizes(self) -> dict[Group, int]:
        """UTF-8 bytes of each group that has any."""
        sizes: dict[Group, int] = {}
        for batch in read_batches(self.table, ["source", "language", "text"]):
            lengths = pc.binary_length(batch["text"]).to_pylist()
            for group, size in zip(_groups(batch), lengths, strict=True):
                sizes[group] = sizes.get(group, 0) + size
        return {group: size for group, size in sizes.items() if size}

    def _rows(self) -> Iterator[tuple[Group, str]]:
        """Documents that hold text, from the seed's row to the one before it."""
        start = 0
        if self.seed:
            rows = num_rows(self.table)
            start = derive(self.seed, "document sample") % max(1, rows)
        for first in (True, False) if start else (True,):
            at = 0
            for batch in read_batches(self.table, ["source", "language", "text"]):
                begin, end = at, at + batch.num_rows
                at = end
                part = batch.slice(max(0, start - begin)) if first else batch
                if not first:
                    part = batch.slice(0, max(0, min(batch.num_rows, start - begin)))
                if not part.num_rows:
                    continue
                pairs = zip(_groups(part), part["text"].to_pylist(), strict=True)
                yield from ((group, text) for group, text in pairs if text)
                if not first and end >= start:
                    break


def _groups(batch: pa.RecordBatch) -> Iterator[Group]:
    columns = batch["source"].to_pylist(), batch["language"].to_pylist()
    return (Group(source, language) for source, language in zip(*columns, strict=True))


def _cut(text: str, size: int) -> tuple[str, int]:
    """The beginning of ``text`` in at most ``size`` bytes, and its bytes."""
    data = text.encode()[:size]
    kept = data.decode(errors="ignore")
    return kept, len(kept.encode())


def _unknown(key: str, weights: Mapping[str, float], known: set[str]) -> list[str]:
    names = sorted(known)
    listed = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
    what = "source" if key == "weights" else "language"
    return [
        f"{key}.{name}: no document has this {what}{nearest(name, names)} (known: {listed})"
        for name in sorted(set(weights) - known)
    ]
