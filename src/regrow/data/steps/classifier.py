"""A classifier of quality: what looks like the positive examples stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regrow.core.atomic import read_json, write_json
from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.data import engine, exhibits
from regrow.data.attributes import open_classifier, reopened
from regrow.data.attributes.linear import drawn_from_each, train
from regrow.data.attributes.measures import evaluate
from regrow.data.attributes.windows import WINDOW_CHARACTERS
from regrow.data.example_texts import (
    check_places,
    fixed_sample,
    texts_digest,
    texts_in,
    texts_where,
)

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

POSITIVE, NEGATIVE = "positive", "negative"
_MADE = pa.schema([("classifier_score", pa.float64())])
_FACTS = "facts.json"
_HELD_OUT = 0.2
# A book is many examples; each is read whole.
_PIECE = WINDOW_CHARACTERS
_EDGES = np.linspace(0, 1, 41)


class ClassifierFilter:
    """Adds ``classifier_score``, the probability of the positive class; null for code.

    Without a ``model``, logistic regression over hashed n-grams is trained on four fifths of the
    examples, measured on the rest, and kept with the scores.

    Args:
        config: ``classifier`` names examples or a model, and what is kept.

    Raises:
        ConfigError: neither of them, or nothing that says what is kept.
        InputError: files that do not exist, or a model that is broken or has no such class.
    """

    name = "classifier"
    version = 1

    def __init__(self, config: CurateConfig) -> None:
        settings = self.settings = config.classifier
        if settings.model is None and not settings.positive:
            raise ConfigError(
                "steps: 'classifier' is there, but nothing says what is wanted; set "
                "classifier.positive to files of such text, classifier.model to a run of curate "
                "annotate, or leave the step out"
            )
        if settings.keep is None and settings.threshold is None:
            raise ConfigError(
                "classifier: set keep (the share of documents to keep, such as 0.1) or threshold "
                "(the least score, such as 0.5)"
            )
        self.seed = config.seed
        self._id = ""
        if settings.model is not None:
            model = open_classifier(settings.model)
            self._id = model.id
            labels = list(model.labels)
            if settings.label not in labels:
                raise InputError(
                    f"classifier.label: {settings.label!r} is no class of {settings.model}"
                    f"{nearest(str(settings.label), labels)} (classes: {', '.join(labels)})"
                )
        check_places(settings.positive, "classifier.positive")
        check_places(settings.negative, "classifier.negative")

    @property
    def per_document(self) -> bool:
        """Whether the classifier is the same whatever the documents are."""
        return self.settings.model is not None or bool(self.settings.negative)

    @cached_property
    def _examples(self) -> tuple[list[str], list[str]]:
        settings = self.settings
        both = ((settings.positive, POSITIVE), (settings.negative, NEGATIVE))
        positive, negative = (
            fixed_sample(texts_in(places, f"classifier.{name}"), settings.max_bytes)
            for places, name in both
        )
        return positive, negative

    def reads(self) -> tuple[str, ...]:
        """The text and its kind."""
        return ("text", "kind")

    def makes(self) -> pa.Schema:
        """The score."""
        return _MADE

    def key(self) -> Any:
        """The model by its content, or the examples."""
        settings = self.settings
        if settings.model is not None:
            return [self._id, settings.label, settings.code]
        digests = [texts_digest(texts) for texts in self._examples]
        return [digests, settings.max_bytes, settings.min_macro_f1, settings.code, self.seed]

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Train the classifier, which stays in ``folder``, and ask it of every document.

        Raises:
            InputError: too few examples, or a classifier that cannot tell them apart.
        """
        settings = self.settings
        home, label, stamp = settings.model, settings.label or POSITIVE, ""
        if home is None:
            positive, negative = self._examples
            if not settings.negative:
                chosen = frame if settings.code else frame.where(frame["kind"] != "code")
                negative = fixed_sample(texts_where(chosen, None), settings.max_bytes)
            stamp = self._train(positive, negative, folder)
            home = folder
        measure = _Measure(home, stamp or self._id, label, settings.code)
        return engine.map_batches(frame, measure, self.reads(), _MADE, batch_rows=256)

    def _train(self, positive: Sequence[str], negative: Sequence[str], folder: Path) -> str:
        texts, names, groups = [], [], []
        for name, examples in ((POSITIVE, positive), (NEGATIVE, negative)):
            pieces = [(f"{name}-{i}", p) for i, text in enumerate(examples) for p in _pieces(text)]
            # Pieces of a text stay together, unless there are hardly any texts.
            alone = len(examples) < 5
            groups += [f"{g}-{i}" if alone else g for i, (g, _) in enumerate(pieces)]
            texts += [piece for _, piece in pieces]
            names += [name] * len(pieces)
        order = (NEGATIVE, POSITIVE)
        truth = np.array([order.index(name) for name in names], np.int64)
        counts = np.bincount(truth, minlength=2)
        if counts.min() < 5:
            raise InputError(
                f"classifier: {counts[1]} positive and {counts[0]} negative examples (a text, or "
                f"{_PIECE} characters of one); give five of each at the least, better hundreds"
            )
        held_out = drawn_from_each(truth, _HELD_OUT, self.seed, groups)
        learned = np.flatnonzero(~held_out).tolist()
        classifier = train(
            [texts[i] for i in learned],
            [names[i] for i in learned],
            seed=self.seed,
            order=order,
            groups=[groups[i] for i in learned],
        )
        rest = [texts[i] for i in np.flatnonzero(held_out).tolist()]
        figures = evaluate(classifier.probabilities(rest), truth[held_out], order)
        least = self.settings.min_macro_f1
        if figures["macro_f1"] < least:
            raise InputError(
                f"classifier: tells positive from negative with a macro-F1 of "
                f"{figures['macro_f1']:.2f} on {len(rest)} held-out examples, below "
                f"classifier.min_macro_f1 {least:g}; give clearer or more examples, or lower it"
            )
        classifier.save(folder)
        write_json(folder / _FACTS, {"examples": counts.tolist(), **figures})
        return open_classifier(folder).id

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Drop what scores below the bound; of equal scores none or all go."""
        del folder
        function = partial(judge_batch, self._bound(_known(scores)), self.settings.keep)
        return engine.judged(scores, function, _MADE.names)

    def _bound(self, values: np.ndarray) -> float:
        if self.settings.threshold is not None or not len(values):
            return self.settings.threshold or 0.0
        return lowest_kept(values, self.settings.keep or 1.0)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """The scores with the bound, and the classifier's figures on examples held out."""
        values = _known(scores)
        title = "probability of the positive class"
        shown = [exhibits.histogram(title, values, _EDGES, [self._bound(values)])]
        if (folder / _FACTS).exists():
            facts = read_json(folder / _FACTS)
            rows = [
                ["positive examples", facts["examples"][1]],
                ["negative examples", facts["examples"][0]],
                ["held out", facts["texts"]],
                ["accuracy, held out", facts["accuracy"]],
                ["macro-F1, held out", facts["macro_f1"]],
                ["expected calibration error, held out", facts["ece"]],
            ]
            shown.append(exhibits.table("the quality classifier", ["figure", "value"], rows))
        return shown


def _known(scores: engine.Frame) -> np.ndarray:
    parts = [
        batch["classifier_score"].to_numpy(zero_copy_only=False)
        for batch in engine.batches(scores.select("classifier_score"))
    ]
    values = np.concatenate(parts) if parts else np.zeros(0)
    known: np.ndarray = values[~np.isnan(values)]
    return known


def _pieces(text: str) -> list[str]:
    """A text in pieces of some pages, cut at blanks where there are any."""
    pieces = []
    while len(text) > _PIECE:
        cut = text.rfind(" ", _PIECE // 2, _PIECE)
        cut = _PIECE if cut < 0 else cut
        pieces.append(text[:cut])
        text = text[cut:]
    pieces.append(text)
    return [piece for piece in pieces if piece.strip()]


def lowest_kept(values: np.ndarray, share: float) -> float:
    """The bound from which on at least ``share`` of the values lie, and as few more as may be."""
    kept = min(len(values), max(1, int(np.ceil(share * len(values) - 1e-9))))
    return float(np.partition(values, len(values) - kept)[len(values) - kept])


def judge_batch(bound: float, share: float | None, batch: pa.RecordBatch) -> Mapping[str, Any]:
    """Reason and value of a batch with ``classifier_score``; what has none stays."""
    if share is None:
        why = f"classifier_score below {bound:g}"
    else:
        why = f"classifier_score not in the highest {100 * share:g} %"
    values = batch["classifier_score"].to_pylist()
    goes = [value is not None and value < bound for value in values]
    return {
        "reason": [why if one else None for one in goes],
        "value": [value if one else None for value, one in zip(values, goes, strict=True)],
    }


@dataclass(frozen=True, slots=True)
class _Measure:
    """The score of a batch; small, so that it can be sent to other processes."""

    folder: Path
    id: str
    label: str
    code: bool

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        kinds = batch["kind"].to_pylist()
        rows = [row for row, kind in enumerate(kinds) if self.code or kind != "code"]
        found = np.full(batch.num_rows, np.nan)
        if rows:
            classifier = reopened(self.folder, self.id)
            texts = batch["text"].take(pa.array(rows)).to_pylist()
            column = list(classifier.labels).index(self.label)
            found[rows] = classifier.probabilities(texts)[:, column]
        return {"classifier_score": pa.array(found, pa.float64(), from_pandas=True)}
