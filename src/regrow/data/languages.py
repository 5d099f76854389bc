"""What language a text is in: py3langid's model, walked for a whole batch at a time.

The model is a finite automaton over bytes whose states name features, and naive Bayes over how
often each was met. The library walks one byte of one text at a time; here all texts of a batch
take a step together, which gives the same features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

CHARACTERS = 1500
_LINKS = re.compile(r"(?:https?://|www\.)\S+")
_DIGITS = re.compile(r"\d+")
# How much of a text is looked at for its sample: more only where links and digits took much.
_LOOKED_AT = (CHARACTERS * 5 // 4, CHARACTERS * 4)
NOTHING = "zxx"  # the model's own label for text in no language


def sample(text: str) -> str:
    """The beginning of a text without links and digits, at most ``CHARACTERS`` of it."""
    found = ""
    for size in _LOOKED_AT:
        found = text[:size]
        if "http" in found or "www." in found:
            found = _LINKS.sub(" ", found)
        found = _DIGITS.sub(" ", found)
        if len(found) >= CHARACTERS or len(text) <= size:
            break
    return found[:CHARACTERS]


class _Model:
    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.labels: list[str] = model.labels
        self.next = np.asarray(model.tk_nextmove, dtype=np.int32)
        self.row = np.asarray(model.tk_row, dtype=np.int32) << 8
        self.feature = np.asarray(model.tk_output, dtype=np.int32)
        self.weights = np.asarray(model.nb_ptc, dtype=np.float32)
        self.prior = np.asarray(model.nb_pc, dtype=np.float32)
        # Two columns of one label (a language in two scripts) count together.
        places = {label: place for place, label in enumerate(self.labels)}
        self.column = np.asarray([places[label] for label in model.nb_classes])

    def states(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """The states that each text passes, ``(bytes,)``."""
        lengths = np.asarray([len(text) for text in texts])
        order = np.argsort(-lengths, kind="stable")
        width = int(lengths.max(initial=0))
        letters = np.zeros((width, len(texts)), dtype=np.uint8)
        for place, index in enumerate(order):
            letters[: lengths[index], place] = np.frombuffer(texts[index], dtype=np.uint8)
        passed = np.zeros((width, len(texts)), dtype=np.int32)
        # How many texts are longer than each position: they stand first.
        longer = len(texts) - np.searchsorted(np.sort(lengths), np.arange(width), side="right")
        state = np.zeros(len(texts), dtype=np.int32)
        for at in range(width):
            on = longer[at]
            state = self.next[self.row[state[:on]] + letters[at, :on]]
            passed[at, :on] = state
        found: list[np.ndarray] = [np.empty(0, np.int32)] * len(texts)
        for place, index in enumerate(order):
            found[index] = passed[: lengths[index], place]
        return found

    def classify(self, text: bytes, states: np.ndarray) -> tuple[str, float]:
        features = self.feature[states]
        features, counts = np.unique(features[features >= 0], return_counts=True)
        if not len(features):
            return NOTHING, 0.0
        evidence = np.log1p(counts.astype(np.float32)) @ self.weights[features]
        # The library's own softening: divided by the root of the length it is calibrated.
        scores = (evidence + self.prior).astype(np.float64) / np.sqrt(len(text))
        odds = np.exp(scores - scores.max())
        merged = np.bincount(self.column, weights=odds, minlength=len(self.labels))
        best = int(merged.argmax())
        return self.labels[best], float(merged[best] / merged.sum())


@cache
def _model() -> _Model:
    return _Model()


def labels() -> list[str]:
    """The codes that can be told, ISO 639-1 where there is one."""
    return _model().labels


def identify(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Language and its probability for each text; ``zxx`` and 0 where nothing can be told.

    What comes out for a text does not depend on the others.

    Args:
        texts: any number; some hundreds at a time are fastest.
    """
    model = _model()
    samples = [sample(text) for text in texts]
    # The model has learned capitals as they are used: a text of nothing else is lowered.
    raw = [(one.lower() if one.isupper() else one).encode() for one in samples]
    return [model.classify(r, s) for r, s in zip(raw, model.states(raw), strict=True)]
