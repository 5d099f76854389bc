"""A linear classifier over hashed n-grams: trained by scikit-learn, kept as safetensors and JSON.

A folder holds ``classifier.json`` (labels, hashing, calibration, figures) and
``classifier.safetensors``: ``buckets`` (B,) int32, the rising columns that training met,
``weights`` (B, K) float32 and ``bias`` (K,) float32. Nothing in it can run code. Classifying needs
NumPy and SciPy alone.

Legend: N texts, W windows, B buckets in use, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.core.seed import derive
from regrow.data.attributes import CLASSIFIER
from regrow.data.attributes.features import MAX_BUCKETS, VERSION, Hashing
from regrow.data.attributes.measures import Calibration, fit_calibration, softmax
from regrow.data.attributes.windows import averaged, in_windows
from regrow.io.hf import check_regular, read_json_object

WEIGHTS = "classifier.safetensors"
FORMAT = "regrow linear classifier"
MAX_CLASSES = 1024
MAX_BYTES = 2 << 30
_CALIBRATION_SHARE = 0.2
_ITERATIONS = 500
_STRENGTH = 30.0  # inverse of the L2 penalty, scikit-learn's C
DEFAULT_HASHING = Hashing()


@dataclass(frozen=True)
class LinearClassifier:
    """Logits ``features(text) @ weights + bias``, calibrated.

    Args:
        labels: ``(K,)``.
        hashing: how a text becomes a row.
        buckets: ``(B,)`` int32, rising.
        weights: ``(B, K)`` float32.
        bias: ``(K,)`` float32.
        calibration: of the logits.
        facts: what else ``classifier.json`` says (attribute, figures), JSON.
        id: ``linear-<12 hex>``; empty for one that lies in no folder.
    """

    labels: tuple[str, ...]
    hashing: Hashing
    buckets: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    calibration: Calibration
    facts: dict[str, Any]
    id: str = ""

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Row of each column in weights that have one more row, of zeros, for the unknown."""
        row_of = np.full(self.hashing.buckets, len(self.buckets), np.int32)
        row_of[self.buckets] = np.arange(len(self.buckets))
        zeros = np.zeros((1, len(self.labels)))
        return row_of, np.concatenate([self.weights.astype(np.float64), zeros])

    def row_logits(self, matrix: Any) -> np.ndarray:
        """``(W, K)`` float64 of rows of features, before calibration."""
        from scipy.sparse import csr_matrix

        row_of, weights = self._places
        shape = (matrix.shape[0], len(weights))
        known = csr_matrix((matrix.data, row_of[matrix.indices], matrix.indptr), shape=shape)
        found: np.ndarray = known @ weights + self.bias.astype(np.float64)
        return found

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """``(N, K)`` float64, before calibration: the mean over each text's windows."""
        pieces, counts = in_windows(texts)
        return averaged(self.row_logits(self.hashing.matrix(pieces)), counts)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """``(N, K)`` float64, calibrated."""
        return softmax(self.calibration(self.logits(texts)))

    def save(self, folder: Path) -> Path:
        """Write the two files into a folder, made if it is missing; equal ones give equal bytes."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"buckets": self.buckets, "weights": self.weights, "bias": self.bias}
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / WEIGHTS)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "labels": list(self.labels),
            "hashing": {
                "buckets": self.hashing.buckets,
                "words": list(self.hashing.words),
                "characters": list(self.hashing.characters),
            },
            "buckets_in_use": len(self.buckets),
            "calibration": {
                "scale": self.calibration.scale,
                "shift": list(self.calibration.shift),
            },
            **self.facts,
        }
        atomic.write_json(folder / CLASSIFIER, record)
        return folder

    @classmethod
    def load(cls, folder: Path) -> LinearClassifier:
        """Read a folder; every size is checked against the others before a tensor is read.

        Raises:
            InputError: a file that is missing, broken, too large or does not fit the other.
        """
        path = Path(folder) / CLASSIFIER
        record = read_json_object(path)
        labels, hashing, rows, calibration = _checked(path, record)
        buckets, weights, bias = _read_tensors(
            Path(folder) / WEIGHTS, rows, len(labels), hashing.buckets
        )
        own = {"format", "version", "labels", "hashing", "buckets_in_use", "calibration"}
        digest = sha256()
        for name in (CLASSIFIER, WEIGHTS):
            digest.update(bytes.fromhex(atomic.sha256_file(Path(folder) / name)))
        return cls(
            labels,
            hashing,
            buckets,
            weights,
            bias,
            calibration,
            {key: value for key, value in record.items() if key not in own},
            f"linear-{digest.hexdigest()[:12]}",
        )


def _checked(
    path: Path, record: dict[str, Any]
) -> tuple[tuple[str, ...], Hashing, int, Calibration]:
    """Labels, hashing, rows and calibration of a ``classifier.json``, each within its bounds."""
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise InputError(
            f"{path}: format {record.get('format')!r}, version {record.get('version')!r}; this "
            f"regrow reads {FORMAT!r}, version {VERSION}"
        )
    try:
        labels = tuple(record["labels"])
        spec = record["hashing"]
        hashing = Hashing(spec["buckets"], tuple(spec["words"]), tuple(spec["characters"]))
        rows = record["buckets_in_use"]
        scale = float(record["calibration"]["scale"])
        shift = tuple(float(value) for value in record["calibration"]["shift"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a classifier's record ({error!r})") from None
    lengths = (*hashing.words, *hashing.characters)
    power = isinstance(hashing.buckets, int) and 1 < hashing.buckets <= MAX_BUCKETS
    problems = [
        text
        for wrong, text in (
            (not all(isinstance(x, str) for x in labels), "labels that are no text"),
            (len(set(labels)) != len(labels), "a label that stands twice"),
            (not 2 <= len(labels) <= MAX_CLASSES, f"{len(labels)} labels"),
            (not power or hashing.buckets & (hashing.buckets - 1), f"{hashing.buckets} buckets"),
            (not _small_lengths(lengths), f"runs of {list(lengths)}"),
            (not isinstance(rows, int) or not 0 <= rows <= MAX_BUCKETS, f"{rows} in use"),
            (not (0 < scale < 1e6) or not np.all(np.isfinite(shift)), "an impossible calibration"),
            (len(shift) not in (0, len(labels)), f"{len(shift)} shifts"),
        )
        if wrong
    ]
    if problems:
        raise InputError(f"{path}: holds what no classifier of regrow can", problems)
    return labels, hashing, rows, Calibration(scale, shift)


def _small_lengths(lengths: Sequence[Any]) -> bool:
    return 0 < len(lengths) <= 16 and all(type(n) is int and 1 <= n <= 16 for n in lengths)


def _read_tensors(
    path: Path, rows: int, classes: int, buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``buckets``, ``weights`` and ``bias``, whose header must say what the record says."""
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 30} GiB, so no such file of regrow")
    expected = {
        "buckets": ([rows], "I32"),
        "weights": ([rows, classes], "F32"),
        "bias": ([classes], "F32"),
    }
    try:
        with safe_open(path, framework="numpy") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (view.get_shape(), view.get_dtype()) for name, view in views.items()}
            if found != expected:
                raise InputError(f"{path}: holds {found}, but {CLASSIFIER} beside it {expected}")
            places, weights, bias = (file.get_tensor(name) for name in expected)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: truncated or broken ({error}); make it again") from None
    rising = not rows or (places[0] >= 0 and places[-1] < buckets and np.all(np.diff(places) > 0))
    if not rising:
        raise InputError(f"{path}: buckets are not rising numbers below {buckets}")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise InputError(f"{path}: holds numbers that are not finite; make it again")
    return places, weights, bias


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    hashing: Hashing = DEFAULT_HASHING,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    order: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> LinearClassifier:
    """Logistic regression on the windows' features, calibrated on a fifth that it did not see.

    A fifth of each class, drawn by ``seed``, is left out of a first fit whose logits on it give
    the calibration; the classifier itself is fitted on all. However rare a class is, it weighs as
    much as any other. The same arguments give the same bits.

    Args:
        texts: ``(N,)``; of a long one every window counts as an example.
        labels: ``(N,)`` their classes, at least two.
        hashing: how a text becomes a row; by default words of 1 and 2, characters of 3 and 4.
        seed: of the fifth.
        facts: kept in ``classifier.json``.
        order: the classes in the order of the outputs; by default sorted.
        groups: ``(N,)`` texts that stay together when the fifth is drawn.

    Raises:
        InputError: fewer than two classes, or one with a single text.
    """
    names = tuple(order) or tuple(sorted(set(labels)))
    index = {name: number for number, name in enumerate(names)}
    truth = np.array([index[label] for label in labels], np.int64)
    counts = np.bincount(truth, minlength=len(names))
    if len(names) < 2 or counts.min() < 2:
        shown = ", ".join(f"{n} of {name}" for name, n in zip(names, counts.tolist(), strict=True))
        raise InputError(f"a classifier needs two classes with two texts each; there is {shown}")
    pieces, windows = in_windows(texts)
    rows = _Rows(hashing.matrix(pieces), truth, windows)
    left_out = drawn_from_each(truth, _CALIBRATION_SHARE, seed, groups)
    untrained = LinearClassifier(
        names,
        hashing,
        np.zeros(0, np.int32),
        np.zeros((0, len(names)), np.float32),
        np.zeros(len(names), np.float32),
        Calibration(),
        dict(facts or {}),
    )
    part = _fit(untrained, rows.of(~left_out))
    unseen = rows.of(left_out)
    calibration = fit_calibration(
        averaged(part.row_logits(unseen.matrix), unseen.windows), unseen.truth
    )
    return replace(_fit(untrained, rows), calibration=calibration)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Examples: the features of every window ``(W, columns)``, of each text its class and how many
    windows it has."""

    matrix: Any
    truth: np.ndarray
    windows: np.ndarray

    def of(self, chosen: np.ndarray) -> _Rows:
        """Those of some texts, ``(N,)`` bool."""
        rows = np.repeat(chosen, self.windows)
        return _Rows(self.matrix[rows], self.truth[chosen], self.windows[chosen])


def drawn_from_each(
    truth: np.ndarray, share: float, seed: int, groups: Sequence[str] = ()
) -> np.ndarray:
    """``(N,)`` bool: about ``share`` of each class, in whole groups, and never all of its groups.

    Args:
        truth: ``(N,)`` classes.
        share: within (0, 1).
        seed: of the draw.
        groups: ``(N,)`` texts that stay together; each alone by default. A group counts as of its
            commonest class.
    """
    names = np.array(groups) if len(groups) else np.arange(len(truth)).astype(str)
    members: dict[str, list[int]] = {}
    for number, name in enumerate(names.tolist()):
        members.setdefault(name, []).append(number)
    by_class: dict[int, list[str]] = {}
    for name in sorted(members, key=lambda name: derive(seed, "left out", name)):
        by_class.setdefault(int(np.bincount(truth[members[name]]).argmax()), []).append(name)
    chosen = np.zeros(len(truth), bool)
    for of_class in by_class.values():
        wanted = share * sum(len(members[name]) for name in of_class)
        taken = 0
        for name in of_class[:-1]:
            # A group is taken where that brings the sum nearer to what is wanted.
            if taken and taken + len(members[name]) / 2 > wanted:
                break
            chosen[members[name]] = True
            taken += len(members[name])
    return chosen


def _fit(start: LinearClassifier, rows: _Rows) -> LinearClassifier:
    """``start`` with weights; classes weigh alike, and the texts of one, and a text's windows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    classes = len(start.labels)
    used = np.unique(rows.matrix.indices).astype(np.int32)
    share = len(rows.truth) / classes / np.bincount(rows.truth)
    weight = share[rows.truth] / rows.windows
    model = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS)
    # One thread: more would add up in another order. A fit that is cut short is still a classifier,
    # whose figures on held-out texts say what it is worth.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(
            rows.matrix[:, used],
            np.repeat(rows.truth, rows.windows),
            sample_weight=np.repeat(weight, rows.windows),
        )
    weights, bias = model.coef_.T, model.intercept_
    if classes == 2:
        weights = np.concatenate([-weights / 2, weights / 2], axis=1)
        bias = np.concatenate([-bias / 2, bias / 2])
    return replace(
        start,
        buckets=used,
        weights=np.ascontiguousarray(weights, np.float32),
        bias=bias.astype(np.float32),
    )
