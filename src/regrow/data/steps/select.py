"""Selection by importance resampling: documents that look like a target stay.

Source: DSIR (arXiv 2302.03169); a source at a time, and a target chosen by attributes, after Data,
Data Everywhere (arXiv 2407.06380).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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
from regrow.data.example_texts import check_places, texts_in
from regrow.data.pii import Masker
from regrow.data.selection import ALL, FEATURES, MADE, Extract, Target, Weigh, count, portions
from regrow.data.steps.decontaminate import Decontaminate
from regrow.data.words import Ints

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

SMALL_TARGET = 10_000  # tokens
_FACTS = "target.json"
_SHOWN = 5
_BINS = 40


class Select:
    """Adds ``select_log_weight``, ``select_tokens`` and ``select_group``; drops what is not drawn.

    The log weight of a document is the sum over its n-grams of how much likelier each is in the
    target than among the documents. A document that belongs to the target itself is compared with
    the rest of the target.

    Args:
        config: ``select``.

    Raises:
        ConfigError: no target or no share, or a condition that is none.
        InputError: a target that does not exist.
    """

    name = "select"
    version = 1
    per_document = False

    def __init__(self, config: CurateConfig) -> None:
        settings = config.select
        target = settings.target
        if not target.given:
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
        check_places(target.files, "select.target.files")
        # Text that models are evaluated with must not say what they learn from.
        self.evaluated = Decontaminate(config) if Decontaminate.name in config.steps else None
        self.pii = config.pii
        self.seed = derive(config.seed, "select") % 2**32

    def notes(self) -> list[str]:
        """What a reader of the plan should know; reads the target.

        Raises:
            InputError: it holds words of the sets that ``decontaminate`` names.
        """
        if self.condition is not None:
            return []
        self._refuse_evaluated()
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

    def makes(self) -> pa.Schema:
        """The group, tokens and log weight."""
        return MADE

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
    def _target(self) -> Target:
        return Target.of(self._texts())

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Hash the n-grams of every document once, then compare.

        Raises:
            InputError: no target; one with texts that are documents as well, or that hold words of
                the sets that ``decontaminate`` names.
        """
        work = folder / WORK
        work.mkdir()
        if not self.condition:
            self._refuse_evaluated()
        digests = frozenset() if self.condition else self._target.digests
        extract = Extract(self.condition, digests)
        reads = ("text", *(self.condition.columns if self.condition else ()))
        made = engine.map_batches(frame, extract, reads, FEATURES, keep=("id", "source"))
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
        weigh = Weigh(target, raw, self.settings.laplace, self.settings.scope == "global")
        scores = engine.map_batches(
            features, weigh, ("source", "buckets", "wanted"), MADE, processes=False
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

    def _refuse_evaluated(self) -> None:
        if self.evaluated is None:
            return
        index, items = self.evaluated.index, set[int]()
        for some in portions(self._texts()):
            for found in index.find(some).items.values():
                items.update(found.tolist())
        if items:
            names = [
                f"{index.names[index.set_of(np.array(one))]}:{index.ids[one]}"
                for one in sorted(items)
            ]
            raise InputError(
                f"select.target.files: they hold words of {len(items):,} items of the sets in "
                "decontaminate.against, and what looks like these would be kept; leave their texts "
                "out of the target",
                names[:_SHOWN],
            )

    def _counted(self, features: engine.Frame) -> tuple[dict[str, Ints], Ints, int]:
        """N-grams by group, those of the documents of the target, and how many these are."""
        raw: dict[str, Ints] = {}
        target, texts = np.zeros(dsir.BUCKETS, np.int64), 0
        for batch in engine.batches(features.select("source", "buckets", "wanted")):
            sources = np.array(batch["source"].to_pylist(), object)
            held = np.array(batch["buckets"].to_pylist(), object)
            for source in set(sources.tolist()):
                group = ALL if self.settings.scope == "global" else source
                raw.setdefault(group, np.zeros(dsir.BUCKETS, np.int64))
                raw[group] += count(held[sources == source].tolist())
            wanted = batch["wanted"].to_numpy(zero_copy_only=False)
            target += count(held[wanted].tolist())
            texts += sum(map(bool, held[wanted].tolist()))
        return raw, target, texts

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Drop what is too short, and what is not drawn.

        Of each source, or of all together, the share that stays is of the documents that are long
        enough.
        """
        shutil.rmtree(folder / WORK, ignore_errors=True)  # the scores are stored by now
        parts: dict[str, list[tuple[dsir.Floats, dsir.Floats, Ints]]] = {}
        for batch in engine.batches(scores.select("id", *MADE.names)):
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
        return engine.judged(scores, _Judge(self, drawn), ("id", *MADE.names))

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
        joined = scores.join(verdicts, on="id").select(*MADE.names, "reason")
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
            values = np.concatenate(parts)[:, 1]
            edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), _BINS + 1)
            shown.append(exhibits.histogram(title, values, edges))
        return shown


def _small(tokens: int) -> str:
    return (
        f"select.target has {tokens:,} tokens, fewer than {SMALL_TARGET:,}: its n-grams are told "
        "badly; give more text, or set select.laplace"
    )


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
