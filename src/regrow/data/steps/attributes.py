"""Attributes of documents, told by classifiers: quality, domain, type of speech, toxicity.

Source: Data, Data Everywhere (arXiv 2407.06380). Nothing is dropped here: toxicity, for one, must
be weighed together with quality, and both are for ``select`` and for the weights of ``tokenize``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regrow.core.errors import ConfigError, InputError, RunError
from regrow.data import engine, exhibits
from regrow.data.attributes import match_labels, open_classifier, reopened
from regrow.data.attributes.kinds import (
    TOXIC_AT,
    TOXICITY_BIN_NAMES,
    TOXICITY_BINS,
    Attribute,
    attribute_columns,
    get_attribute,
    probability_column,
)
from regrow.data.config import CurateConfig
from regrow.data.settings.attributes import ClassifierConfig

CROSSED = (
    ("quality", "domain"),
    ("quality", "speech"),
    ("toxicity", "domain"),
    ("toxicity", "quality"),
)
_BATCH_ROWS = 256
_EDGES = np.linspace(0, 1, 21)


@dataclass(frozen=True, slots=True)
class _Told:
    """One attribute and what tells it; small, so that it can be sent to other processes."""

    attribute: Attribute
    path: Path
    device: str
    id: str
    labels: tuple[str, ...]

    def fields(self) -> list[pa.Field]:
        """The columns it gives."""
        names = attribute_columns(self.attribute, self.labels)
        numbers = self._numbers()
        return [pa.field(n, pa.float32() if n in numbers else pa.string()) for n in names]

    def _numbers(self) -> list[str]:
        if self.attribute.positive:
            return [self.attribute.name]
        return [probability_column(self.attribute.name, label) for label in self.labels]

    def columns(self, texts: Sequence[str]) -> dict[str, Any]:
        """Values of the columns for each text.

        Raises:
            RunError: a probability that is no number.
        """
        # What is stored decides, so that label and bin always agree with it.
        found = reopened(self.path, self.id, self.device).probabilities(texts).astype(np.float32)
        if not np.isfinite(found).all():
            raise RunError(
                f"{self.path}: gives probabilities of {self.attribute.name} that are none"
            )
        name = self.attribute.name
        columns: dict[str, Any] = {f"{name}_classifier": [self.id] * len(texts)}
        if self.attribute.positive:
            positive = found[:, self.labels.index(self.attribute.positive)]
            negative = next(c for c in self.attribute.classes if c != self.attribute.positive)
            place = np.digitize(positive, np.array(TOXICITY_BINS, np.float32))
            return columns | {
                name: positive,
                f"{name}_label": np.where(
                    positive >= TOXIC_AT, self.attribute.positive, negative
                ).tolist(),
                f"{name}_bin": [TOXICITY_BIN_NAMES[number] for number in place.tolist()],
            }
        best = found.argmax(axis=1) if len(texts) else []
        columns[name] = [self.labels[number] for number in best]
        for number, column in enumerate(self._numbers()):
            columns[column] = found[:, number]
        return columns


@dataclass(frozen=True, slots=True)
class _Tell:
    """All attributes of a batch of documents."""

    told: tuple[_Told, ...]

    def __call__(self, batch: pa.RecordBatch) -> dict[str, Any]:
        texts = batch["text"].to_pylist()
        columns: dict[str, Any] = {}
        for one in self.told:
            columns |= one.columns(texts)
        return columns


class Attributes:
    """Adds for each attribute its label, the probability of each class, and the classifier's id.

    Of toxicity: its probability, its label at 0.5 (``toxicity_label``), and its bin
    (``toxicity_bin``: low below 0.3, medium below 0.6, else high).

    Args:
        config: ``attributes`` names the classifiers.

    Raises:
        InputError: no classifier where one is named, a broken one, or labels that are none of the
            attribute's classes.
        ConfigError: no classifier at all, or a library or a device that is missing.
    """

    name = "attributes"
    version = 1
    per_document = True

    def __init__(self, config: CurateConfig) -> None:
        if not config.attributes:
            raise ConfigError(
                "steps: 'attributes' is there, but attributes names no classifier; set for example "
                "attributes.quality=RUN, a run of curate annotate, or leave the step out"
            )
        self.told = tuple(_told(name, given) for name, given in config.attributes.items())

    def reads(self) -> tuple[str, ...]:
        """The text."""
        return ("text",)

    def makes(self) -> pa.Schema:
        """The columns of each attribute."""
        return pa.schema([field for one in self.told for field in one.fields()])

    def key(self) -> Any:
        """The classifiers by their content, and what their labels are called."""
        return [[t.attribute.name, t.id, list(t.labels), t.device] for t in self.told]

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """``id`` and the columns of each attribute."""
        del folder
        # What holds a GPU or many threads of its own gains nothing from more processes.
        alone = any(one.device != "cpu" for one in self.told)
        return engine.map_batches(
            frame,
            _Tell(self.told),
            ("text",),
            self.makes(),
            batch_rows=_BATCH_ROWS,
            processes=not alone,
        )

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Every document stays."""
        del folder
        return engine.all_kept(scores)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """Documents by class, cross tables, and how sure the classifiers were."""
        del folder
        shown = [self._shares(scores, one) for one in self.told]
        names = {one.attribute.name: one for one in self.told}
        for first, second in _pairs(list(names)):
            shown.extend(_crossed(scores, names[first], names[second]))
        shown.extend(self._sureness(scores, one) for one in self.told)
        return shown

    def _shares(self, scores: engine.Frame, one: _Told) -> dict[str, Any]:
        column, classes = _classes(one)
        counts = {row[column]: row["documents"] for row in _counted(scores, [column])}
        total = sum(counts.values()) or 1
        rows = [[c, counts.get(c, 0), counts.get(c, 0) / total] for c in classes]
        title = f"{one.attribute.name} of the documents, by {one.id}"
        return exhibits.table(title, [one.attribute.name, "documents", "share"], rows)

    def _sureness(self, scores: engine.Frame, one: _Told) -> dict[str, Any]:
        if one.attribute.positive:
            values = _values(scores, [one.attribute.name])[:, 0]
            title, bounds = f"{one.attribute.name}: probability", TOXICITY_BINS
            return exhibits.histogram(title, values, _EDGES, bounds)
        columns = [probability_column(one.attribute.name, label) for label in one.labels]
        values = _values(scores, columns).max(axis=1)
        title = f"{one.attribute.name}: probability of the chosen class"
        return exhibits.histogram(title, values, _EDGES)


def _told(name: str, given: ClassifierConfig) -> _Told:
    attribute = get_attribute(name)
    classifier = open_classifier(given.path, given.device)
    where = f"attributes.{name}: {given.path}"
    found = list(classifier.labels)
    if attribute.positive and len(found) == 1:  # a score of toxicity alone
        return _Told(attribute, given.path, given.device, classifier.id, (attribute.positive,))
    classes = () if attribute.positive and len(found) > 2 else attribute.classes
    labels = tuple(match_labels(found, classes, given.labels, where))
    if attribute.positive and attribute.positive not in labels:
        raise InputError(
            f"{where}: which of its labels ({', '.join(found)}) is {attribute.positive}? Say so by "
            f"labels: {{LABEL: {attribute.positive}}}"
        )
    return _Told(attribute, given.path, given.device, classifier.id, labels)


def _classes(one: _Told) -> tuple[str, Sequence[str]]:
    """The column that holds an attribute as a class, and the classes that it can hold."""
    if one.attribute.positive:
        return f"{one.attribute.name}_bin", TOXICITY_BIN_NAMES
    known = one.attribute.classes or one.labels
    return one.attribute.name, [label for label in known if label in one.labels]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the four that the card always crosses, then any with an attribute of one's own."""
    fixed = [pair for pair in CROSSED if pair[0] in names and pair[1] in names]
    standard = {name for pair in CROSSED for name in pair}
    own = [p for p in combinations(names, 2) if not standard.issuperset(p)]
    return fixed + own


def _crossed(scores: engine.Frame, first: _Told, second: _Told) -> list[dict[str, Any]]:
    """Counts, and the same as shares of their row."""
    (row_column, row_names), (column_column, column_names) = _classes(first), _classes(second)
    counts = {
        (row[row_column], row[column_column]): row["documents"]
        for row in _counted(scores, [row_column, column_column])
    }
    title = f"{first.attribute.name} by {second.attribute.name}"
    table = [[counts.get((r, c), 0) for c in column_names] for r in row_names]
    heads = [first.attribute.name, *column_names]
    numbers = [[name, *row] for name, row in zip(row_names, table, strict=True)]
    shares = [
        [name, *(n / (sum(row) or 1) for n in row)]
        for name, row in zip(row_names, table, strict=True)
    ]
    return [
        exhibits.table(f"{title}: documents", heads, numbers),
        exhibits.table(f"{title}: shares of a row", heads, shares),
    ]


def _counted(scores: engine.Frame, columns: Sequence[str]) -> list[dict[str, Any]]:
    counted = scores.groupby(*columns).agg(scores["id"].count().alias("documents"))
    return engine.rows(counted)


def _values(scores: engine.Frame, columns: Sequence[str]) -> np.ndarray:
    """``(documents, columns)`` float32, in any order."""
    parts = [
        np.column_stack([batch[name].to_numpy(zero_copy_only=False) for name in columns])
        for batch in engine.batches(scores.select(*columns))
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(columns)), np.float32)
