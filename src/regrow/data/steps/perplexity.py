"""Perplexity: how far a document is from the target's language, by an n-gram model.

Source: Data, Data Everywhere (arXiv 2407.06380), where a fixed bound for one KenLM model drops
documents. A bound moves with the model, so that the default here is a share of each source and
language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regrow.core.atomic import read_json, sha256_file, write_json
from regrow.core.errors import ConfigError
from regrow.data import engine, exhibits
from regrow.data.condition import Condition
from regrow.data.example_texts import (
    check_places,
    fixed_sample,
    texts_digest,
    texts_in,
    texts_where,
)
from regrow.data.perplexity import BuiltIn, opened

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

_MADE = pa.schema([("ppl", pa.float64()), ("ppl_group", pa.string())])
_FACTS = "facts.json"
_BINS = 40
_SHOWN = 30


class Perplexity:
    """Adds ``ppl`` (null for code) and ``ppl_group``, its source and language.

    Args:
        config: ``perplexity`` names a target or a model.

    Raises:
        ConfigError: neither of them, a condition that is none, or kenlm is missing.
        InputError: files that do not exist, or are broken.
    """

    name = "perplexity"
    version = 1

    def __init__(self, config: CurateConfig) -> None:
        self.settings = config.perplexity
        target = self.settings.target
        if self.settings.model is not None:
            opened(None, "", self.settings.model, self.settings.pieces)
        elif not target.given:
            raise ConfigError(
                "steps: 'perplexity' is there, but nothing says what good text is; set "
                "perplexity.target.files to such text, perplexity.target.where to a condition such "
                "as \"source = 'wiki'\", perplexity.model to a KenLM model, or leave the step out"
            )
        self.condition: Condition | None = None
        if target.where is not None:
            self.condition = Condition.read(target.where, "perplexity.target.where")
        check_places(target.files, "perplexity.target.files")
        told = "language" in config.steps_before(self.name)
        self._language = "language_id" if told else "language"

    @property
    def per_document(self) -> bool:
        """Whether the model is the same whatever the documents are."""
        return self.condition is None

    @cached_property
    def _texts(self) -> list[str]:
        target = self.settings.target
        return fixed_sample(texts_in(target.files, "perplexity.target.files"), target.max_bytes)

    def reads(self) -> tuple[str, ...]:
        """The text, what groups it, and what the target's condition asks for."""
        asked = self.condition.columns if self.condition else ()
        own = ("text", "kind", "source", self._language)
        return tuple(dict.fromkeys((*own, *(c for c in asked if c != "id"))))

    def makes(self) -> pa.Schema:
        """The perplexity, and the group it is compared in."""
        return _MADE

    def key(self) -> Any:
        """The model, or what it is learned from."""
        settings = self.settings
        common = [self._language, settings.code]
        if settings.model is not None:
            files = (settings.model, settings.pieces)
            return [*common, *(None if f is None else sha256_file(f) for f in files)]
        target = settings.target
        given = target.where if target.where is not None else texts_digest(self._texts)
        return [*common, settings.order, settings.vocab_size, target.max_bytes, given]

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Learn the model, which stays in ``folder``, and ask it of every document.

        Raises:
            InputError: hardly any text to learn from.
        """
        settings = self.settings
        stamp = ""
        if settings.model is None:
            texts = self._texts
            if self.condition:
                chosen = texts_where(frame, self.condition)
                texts = fixed_sample(chosen, settings.target.max_bytes)
            model, tokens = BuiltIn.fit(
                texts, settings.order, settings.vocab_size, halves=self.condition is not None
            )
            model.save(folder)
            stamp = f"{texts_digest(texts)} {settings.order} {settings.vocab_size}"
            write_json(folder / _FACTS, {"texts": len(texts), "tokens": tokens})
        home = folder if settings.model is None else None
        measure = _Measure(
            home, stamp, settings.model, settings.pieces, self._language, settings.code
        )
        reads = ("text", "kind", "source", self._language)
        return engine.map_batches(frame, measure, reads, _MADE)

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Drop what lies beyond the bounds; of equal perplexities none or all go."""
        del folder
        bounds = self._bounds(scores)
        low, high = self.settings.min_ppl, self.settings.max_ppl
        function = partial(judge_batch, low, high, self.settings.share_dropped, bounds)
        return engine.judged(scores, function, _MADE.names)

    def _bounds(self, scores: engine.Frame) -> dict[str, float]:
        """The highest perplexity that stays, by group."""
        share = self.settings.share_dropped
        if not share:
            return {}
        return {g: highest_kept(values, share) for g, values in _by_group(scores).items()}

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """Perplexities by source and language, their histogram, and what the model learned from."""
        bounds = self._bounds(scores)
        low, high = self.settings.min_ppl or 0.0, self.settings.max_ppl or np.inf
        groups = sorted(_by_group(scores).items(), key=lambda item: (-len(item[1]), item[0]))
        rows = []
        for name, values in groups[:_SHOWN]:
            top = min(high, bounds.get(name, np.inf))
            dropped = int(np.count_nonzero((values > top) | (values < low)))
            points = np.quantile(values, [0.1, 0.5, 0.9]).round(1).tolist()
            rows.append(
                [name, len(values), *points, None if np.isinf(top) else round(top, 1), dropped]
            )
        columns = [
            "source, language",
            "documents",
            "10 %",
            "median",
            "90 %",
            "kept up to",
            "dropped",
        ]
        shown = [exhibits.table("perplexity by source and language", columns, rows)]
        for name, values in groups[: 1 if len(groups) == 1 else 4]:
            edges = np.geomspace(max(1.0, values.min()), max(2.0, values.max()) * 1.001, _BINS + 1)
            marks = [
                b for b in (self.settings.min_ppl, self.settings.max_ppl, bounds.get(name)) if b
            ]
            shown.append(exhibits.histogram(f"perplexity: {name}", values, edges, marks))
        if (folder / _FACTS).exists():
            facts = read_json(folder / _FACTS)
            row = [self.settings.order, facts["texts"], facts["tokens"]]
            shown.append(exhibits.table("the model's target", ["order", "texts", "tokens"], [row]))
        return shown


def _by_group(scores: engine.Frame) -> dict[str, np.ndarray]:
    """Perplexities that are known, by group."""
    parts: dict[str, list[np.ndarray]] = {}
    for batch in engine.batches(scores.select(*_MADE.names)):
        values = batch["ppl"].to_numpy(zero_copy_only=False)
        groups = np.array(batch["ppl_group"].to_pylist(), object)
        known = ~np.isnan(values)
        for group in set(groups[known].tolist()):
            parts.setdefault(group, []).append(values[known & (groups == group)])
    return {group: np.concatenate(arrays) for group, arrays in parts.items()}


def highest_kept(values: np.ndarray, share: float) -> float:
    """The bound above which at most ``share`` of the values lie."""
    dropped = int(share * len(values) + 1e-9)
    return float(np.partition(values, len(values) - dropped - 1)[len(values) - dropped - 1])


def judge_batch(
    low: float | None,
    high: float | None,
    share: float,
    bounds: Mapping[str, float],
    batch: pa.RecordBatch,
) -> Mapping[str, Any]:
    """Reason and value of a batch with ``ppl`` and ``ppl_group``; what has no perplexity stays."""
    reasons: list[str | None] = []
    values: list[float | None] = []
    pairs: Iterator[tuple[float | None, str]] = zip(
        batch["ppl"].to_pylist(), batch["ppl_group"].to_pylist(), strict=True
    )
    for value, group in pairs:
        reason = None
        if value is not None:
            if high is not None and value > high:
                reason = f"ppl above {high:g}"
            elif low is not None and value < low:
                reason = f"ppl below {low:g}"
            elif value > bounds.get(group, np.inf):
                reason = f"ppl in the highest {100 * share:g} %"
        reasons.append(reason)
        values.append(None if reason is None else value)
    return {"reason": reasons, "value": values}


@dataclass(frozen=True, slots=True)
class _Measure:
    """Perplexity and group of a batch; small, so that it can be sent to other processes."""

    folder: Path | None
    stamp: str
    model: Path | None
    pieces: Path | None
    language: str
    code: bool

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        kinds = batch["kind"].to_pylist()
        rows = [row for row, kind in enumerate(kinds) if self.code or kind != "code"]
        found = np.full(batch.num_rows, np.nan)
        if rows:
            texts = batch["text"].take(pa.array(rows)).to_pylist()
            model = opened(self.folder, self.stamp, self.model, self.pieces)
            found[rows] = model.perplexities(texts)
        names = zip(batch["source"].to_pylist(), batch[self.language].to_pylist(), strict=True)
        groups = [f"{source}, {language}" if language else source for source, language in names]
        return {"ppl": pa.array(found, pa.float64(), from_pandas=True), "ppl_group": groups}
