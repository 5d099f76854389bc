"""Selection by importance resampling: documents that look like a target stay.

Source: DSIR (arXiv 2302.03169); a source at a time, and a target chosen by attributes, after Data,
Data Everywhere (arXiv 2407.06380).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regrow.core.atomic import read_json, write_json
from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.core.seed import derive
from regrow.data import dsir, engine, exhibits
from regrow.data.clusters import WORK
from regrow.data.condition import Condition
from regrow.data.example_texts import check_places, text_digest, texts_in
from regrow.data.pii import Masker
from regrow.data.settings.attributes import columns_without_classifier
from regrow.data.words import Ints

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

SMALL_TARGET = 10_000  # tokens
_FACTS = "target.json"
_MADE = pa.schema(
    [
        pa.field("select_group", pa.string()),
        pa.field("select_tokens", pa.int64()),
        pa.field("select_log_weight", pa.float64()),
    ]
)
_FEATURES = pa.schema(
    [
        pa.field("buckets", pa.binary()),
        pa.field("wanted", pa.bool_()),
        pa.field("known", pa.bool_()),
    ]
)
_JUDGED = pa.schema([("reason", pa.string()), ("value", pa.float64())])
_ALL = "all"
_BATCH_BYTES = 4 << 20
_SHOWN = 5
_EDGES = np.linspace(-2, 2, 41)
_LOCAL = threading.local()


class Select:
    """Adds ``select_log_weight``, ``select_tokens`` and ``select_group``; drops what is not drawn.

    The log weight of a document is the sum over its n-grams of how much likelier each is in the
    target than among the documents. A document that belongs to the target itself is compared with
    the rest of the target.

    Args:
        config: ``select``.

    Raises:
        ConfigError: no target or no share, a condition that cannot be, or one on an attribute
            without a classifier.
        InputError: a target that does not exist.
    """

    name = "select"
    version = 1
    per_document = False

    def __init__(self, config: CurateConfig) -> None:
        settings = config.select
        target = settings.target
        if not target.files and target.where is None:
            raise ConfigError(
                "steps: 'select' is there, but select.target says nothing; set select.target.files "
                "or select.target.where, or leave the step out"
            )
        if settings.keep_fraction is None:
            raise ConfigError(
                "steps: 'select' is there, but select.keep_fraction is not set; set the share of "
                "each source's documents that stays, typically 0.5 to 0.95"
            )
        if isinstance(settings.keep_fraction, dict):
            names = config.source_names()
            for name in settings.keep_fraction:
                if name not in names:
                    raise ConfigError(
                        f"select.keep_fraction: no source {name!r}{nearest(name, names)} "
                        f"(sources: {', '.join(names)})"
                    )
        self.settings = settings
        self.condition: Condition | None = None
        if target.where is not None:
            self.condition = Condition.read(target.where, "select.target.where")
            missing = columns_without_classifier(self.condition.columns, config.attributes)
            if missing:
                raise ConfigError("select.target.where cannot be told", missing)
        check_places(target.files, "select.target.files")
        self.pii = config.pii
        self.seed = derive(config.seed, "select") % 2**32

    def notes(self) -> list[str]:
        """What a reader of the plan should know."""
        if self.condition is not None:
            return []
        hasher, found = dsir.Hasher(), 0
        for text in self._texts():
            found += int(hasher.features([text]).tokens.sum())
            if found >= SMALL_TARGET:
                return []
        return [_small(found)]

    def reads(self) -> tuple[str, ...]:
        """The text, the source, and what the target's condition asks for."""
        asked = self.condition.columns if self.condition else ()
        return tuple(dict.fromkeys(("text", "source", *(c for c in asked if c != "id"))))

    def key(self) -> Any:
        """The target, and what it is compared with."""
        target = self.settings.target.where or self._target.digest
        return [target, self.settings.scope, self.settings.laplace]

    def _texts(self) -> Iterator[str]:
        """Texts of the target's files, masked as the documents are."""
        masker = Masker(self.pii)
        for text in texts_in(self.settings.target.files, "select.target.files"):
            yield masker.mask(text, "prose")

    @cached_property
    def _target(self) -> _Target:
        return _Target.of(self._texts())

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Hash the n-grams of every document once, then compare.

        Raises:
            InputError: no target, or one with texts that are documents as well.
        """
        work = folder / WORK
        work.mkdir()
        digests = frozenset() if self.condition else self._target.digests
        extract = _Extract(self.condition, digests)
        reads = ("text", *(self.condition.columns if self.condition else ()))
        made = engine.map_batches(frame, extract, reads, _FEATURES, keep=("id", "source"))
        features = engine.stored(made, work / "features")
        if digests:
            self._refuse_known(features)
        raw, wanted, texts = self._counted(features)
        target = wanted if self.condition else self._target.counts
        texts = texts if self.condition else self._target.texts
        tokens = int(target.sum() + texts) // 2
        if not tokens:
            raise InputError(
                f"select.target: {self._named()} gives no text; "
                + ("loosen the condition" if self.condition else "name files with text")
            )
        write_json(folder / _FACTS, {"texts": texts, "tokens": tokens, "of": self._named()})
        weigh = _Weigh(target, raw, self.settings.laplace, self.settings.scope == "global")
        scores = engine.map_batches(
            features, weigh, ("source", "buckets", "wanted"), _MADE, processes=False
        )
        scores = engine.stored(scores, work / "weighed")
        shutil.rmtree(work / "features")
        return scores

    def _named(self) -> str:
        if self.condition:
            return self.condition.text
        return ", ".join(self.settings.target.files)

    def _refuse_known(self, features: engine.Frame) -> None:
        known = sorted(
            row["id"] for row in engine.rows(features.where(features["known"]).select("id"))
        )
        if known:
            raise InputError(
                f"select.target.files: {len(known):,} of its texts are documents as well, which "
                "would then choose themselves; leave them out of the target, or their files out of "
                "the sources",
                known[:_SHOWN],
            )

    def _counted(self, features: engine.Frame) -> tuple[dict[str, Ints], Ints, int]:
        """N-grams by group, those of the documents of the target, and how many these are."""
        raw: dict[str, Ints] = {}
        target, texts = np.zeros(dsir.BUCKETS, np.int64), 0
        for batch in engine.batches(features.select("source", "buckets", "wanted")):
            sources = np.array(batch["source"].to_pylist(), object)
            held = np.array(batch["buckets"].to_pylist(), object)
            for source in set(sources.tolist()):
                group = _ALL if self.settings.scope == "global" else source
                raw.setdefault(group, np.zeros(dsir.BUCKETS, np.int64))
                raw[group] += _count(held[sources == source].tolist())
            wanted = batch["wanted"].to_numpy(zero_copy_only=False)
            target += _count(held[wanted].tolist())
            texts += sum(map(bool, held[wanted].tolist()))
        return raw, target, texts

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Drop what is too short, and what is not drawn.

        Of each source, or of all together, the share that stays is of the documents that are long
        enough.
        """
        shutil.rmtree(folder / WORK, ignore_errors=True)  # the scores are stored by now
        parts: dict[str, list[tuple[dsir.Floats, dsir.Floats, Ints]]] = {}
        for batch in engine.batches(scores.select("id", *_MADE.names)):
            groups, tokens, keys, ties = self._ranked(batch)
            for group in set(groups.tolist()):
                rows = (groups == group) & (tokens >= self.settings.min_tokens)
                parts.setdefault(group, []).append((keys[rows], ties[rows], tokens[rows]))
        drawn = {}
        for group, arrays in parts.items():
            share = self._share(group)
            keys, ties, tokens = (np.concatenate(one) for one in zip(*arrays, strict=True))
            if share is not None and len(keys):
                bucketed = self.settings.length == "bucketed"
                edges = dsir.length_edges(tokens) if bucketed else np.empty(0)
                inside = np.searchsorted(edges, tokens, side="right")
                found = dsir.cuts(keys, ties, inside, share, len(edges) + 1)
                drawn[group] = _Drawn(share, edges, found)
        function = _Judge(self, drawn)
        reads = ("id", *_MADE.names)
        return engine.map_batches(scores, function, reads, _JUDGED, processes=False)

    def _share(self, group: str) -> float | None:
        given = self.settings.keep_fraction
        return given.get(group) if isinstance(given, dict) else given

    def _ranked(self, batch: pa.RecordBatch) -> tuple[Any, Ints, dsir.Floats, dsir.Floats]:
        """Groups, tokens, what documents are ranked by, and what decides between equals."""
        tokens = batch["select_tokens"].to_numpy(zero_copy_only=False)
        keys = batch["select_log_weight"].to_numpy(zero_copy_only=False).astype(np.float64)
        if self.settings.length == "mean":
            keys = keys / np.maximum(1, 2 * tokens - 1)
        ties = dsir.uniforms(batch["id"].to_pylist(), self.seed)
        if self.settings.noise:
            keys = keys + dsir.gumbel(ties)
        return np.array(batch["select_group"].to_pylist(), object), tokens, keys, ties

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """The target, what stays of each source, and how like the target documents are."""
        facts = read_json(folder / _FACTS)
        rows = [["target", facts["of"]], ["texts", facts["texts"]], ["tokens", facts["tokens"]]]
        if facts["tokens"] < SMALL_TARGET:
            rows.append(["warning", _small(facts["tokens"])])
        shown = [exhibits.table("select: the target", ["figure", "value"], rows)]
        verdicts = self.judge(scores, folder).select("id", "reason")
        joined = scores.join(verdicts, on="id").select(*_MADE.names, "reason")
        found: dict[str, list[np.ndarray]] = {}
        for batch in engine.batches(joined):
            groups = np.array(batch["select_group"].to_pylist(), object)
            tokens = batch["select_tokens"].to_numpy(zero_copy_only=False)
            weights = batch["select_log_weight"].to_numpy(zero_copy_only=False)
            stays = batch["reason"].is_null().to_numpy(zero_copy_only=False)
            table = np.column_stack([tokens, weights / np.maximum(1, 2 * tokens - 1), stays])
            for group in set(groups.tolist()):
                found.setdefault(group, []).append(table[groups == group])
        rows = []
        for group, parts in sorted(found.items()):
            tokens, weights, stays = np.concatenate(parts).T
            short, kept = tokens < self.settings.min_tokens, stays == 1
            gone = ~kept & ~short
            middle = [
                round(float(np.median(weights[w])), 4) if w.any() else None for w in (kept, gone)
            ]
            share = round(float(tokens[kept].sum() / max(1, tokens.sum())), 4)
            untouched = self._share(group) is None
            counts = [len(tokens), 0 if untouched else int(short.sum()), int(kept.sum())]
            rows.append([group, *counts, share, *middle])
        columns = ["group", "documents", "too short", "kept", "tokens kept"]
        columns += ["log weight an n-gram, kept", "dropped"]
        shown.append(exhibits.table("select: what stays", columns, rows))
        for group, parts in sorted(found.items())[:4]:
            title = f"select: log weight an n-gram: {group}"
            shown.append(exhibits.histogram(title, np.concatenate(parts)[:, 1], _EDGES))
        return shown


def _small(tokens: int) -> str:
    return (
        f"select.target has {tokens:,} tokens, fewer than {SMALL_TARGET:,}: its n-grams are told "
        "badly; give more text, or set select.laplace"
    )


def _count(held: Sequence[bytes]) -> Ints:
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
class _Target:
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
    def of(cls, texts: Iterator[str]) -> _Target:
        """Read texts, some at a time."""
        counts, number, total = np.zeros(dsir.BUCKETS, np.int64), 0, 0
        digests: set[bytes] = set()
        hasher = dsir.Hasher()
        for some in _portions(texts):
            features = hasher.features(some)
            counts += features.counts()
            number += int(np.count_nonzero(features.tokens))
            digests.update(map(plain_digest, some))
            total += sum(int.from_bytes(text_digest(text), "big") for text in some)
        return cls(counts, number, frozenset(digests), f"{total % (1 << 128):032x}")


def _portions(texts: Iterator[str]) -> Iterator[list[str]]:
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
class _Extract:
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
class _Weigh:
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
        groups = [_ALL] * len(sources) if self.pooled else sources
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


@dataclass(frozen=True, slots=True)
class _Drawn:
    """How a group is drawn from: a share, bounds of lengths, and the last key and tie of each."""

    share: float
    edges: dsir.Floats
    cuts: dsir.Floats


@dataclass(frozen=True, slots=True)
class _Judge:
    """Reason and value of a batch of scores; a group that is not drawn from stays whole."""

    step: Select
    drawn: Mapping[str, _Drawn]

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        groups, tokens, keys, ties = self.step._ranked(batch)
        least = self.step.settings.min_tokens
        reasons: Any = np.full(len(groups), None, object)
        values: Any = np.full(len(groups), None, object)
        weights = batch["select_log_weight"].to_pylist()
        for group in set(groups.tolist()):
            if self.step._share(group) is None:
                continue
            short = np.flatnonzero((groups == group) & (tokens < least))
            reasons[short] = f"select_tokens below {least}"
            values[short] = tokens[short].astype(float)
            if group not in self.drawn:
                continue
            drawn = self.drawn[group]
            rows = np.flatnonzero((groups == group) & (tokens >= least))
            cut = drawn.cuts[np.searchsorted(drawn.edges, tokens[rows], side="right")]
            stays = (keys[rows] > cut[:, 0]) | (
                (keys[rows] == cut[:, 0]) & (ties[rows] >= cut[:, 1])
            )
            for row in rows[~stays].tolist():
                reasons[row] = f"select_log_weight not among the {100 * drawn.share:g} % kept"
                values[row] = weights[row]
        return {"reason": reasons.tolist(), "value": values.tolist()}
