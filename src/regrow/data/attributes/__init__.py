"""Attributes of documents: what the classes are, and the classifiers that tell them.

Lives here: the classes of quality, domain, type of speech and toxicity (``kinds.py``), the pieces
of a long document that are read (``windows.py``), a linear classifier over hashed n-grams
(``features.py``, ``linear.py``), any Hugging Face sequence classifier (``sequence.py``), what
labels documents to learn from (``annotators.py``, ``ranker.py``), and the figures of a classifier
(``measures.py``).
May touch: ``core``, ``io``, settings, ``words.py`` and ``permutation.py``, NumPy; SciPy and
scikit-learn for training; torch and transformers in ``sequence.py`` and ``ranker.py`` alone, on
first use.
To add a kind of classifier: a file with a class that satisfies :class:`Classifier`, and its line
in :func:`open_classifier`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from regrow.core.errors import InputError, RunError

CLASSIFIER = "classifier.json"


class Classifier(Protocol):
    """What the step and the annotators ask of a classifier."""

    @property
    def id(self) -> str:
        """``<kind>-<12 hex of its files' content>``: the same files, the same id."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, in the order of its outputs."""
        ...

    def probabilities(self, texts: Sequence[str]) -> Any:
        """``(texts, classes)`` float64; of a long text the logits of its windows are averaged.

        A row depends on its own text alone, whatever it was given together with.
        """
        ...


def resolve_classifier(path: Path) -> Path:
    """The folder of a classifier: ``path`` itself, or ``path/export`` of a run.

    Raises:
        InputError: neither holds a ``classifier.json`` or a Hugging Face ``config.json``.
    """
    path = Path(path)
    for folder in (path, path / "export"):
        if (folder / CLASSIFIER).is_file() or (folder / "config.json").is_file():
            return folder
    if not path.exists():
        raise InputError(f"{path}: no such path; give a classifier's folder, or the run made it")
    if (path / "status.json").is_file():
        raise InputError(
            f"{path}: this run has exported no classifier (it has not finished, or its classifier "
            "was refused); look at its status.json"
        )
    raise InputError(
        f"{path}: no classifier there ({CLASSIFIER} or config.json); give the run of curate "
        "annotate that made one, or the folder of a Hugging Face sequence classifier"
    )


def open_classifier(path: Path, device: str = "cpu") -> Classifier:
    """The classifier in a folder, or in a run's export.

    Args:
        path: the folder or the run.
        device: ``cpu`` or ``cuda``; linear classifiers always work on the CPU.

    Raises:
        InputError: there is none, or it is broken.
        ConfigError: a library or a device that is missing.
    """
    folder = resolve_classifier(path)
    if (folder / CLASSIFIER).is_file():
        from regrow.data.attributes.linear import LinearClassifier

        return LinearClassifier.load(folder)
    from regrow.data.attributes.sequence import SequenceClassifier

    return SequenceClassifier.load(folder, device)


@lru_cache(maxsize=8)
def reopened(path: Path, name: str, device: str = "cpu") -> Classifier:
    """A classifier that was opened before, read once in each process.

    Args:
        path: the folder or the run.
        name: its id when it was.
        device: as of :func:`open_classifier`.

    Raises:
        RunError: it is another one by now.
    """
    found = open_classifier(path, device)
    if found.id != name:
        raise RunError(f"{path}: changed while it was in use, from {name} to {found.id}")
    return found


def match_labels(
    found: Sequence[str], classes: Sequence[str], names: Mapping[str, str], where: str
) -> list[str]:
    """A classifier's labels in an attribute's words.

    Labels are compared without case, and with ``_``, ``-`` and blanks taken as one.

    Args:
        found: the classifier's own.
        classes: the attribute's; empty where any will do.
        names: own label to attribute's label, where they differ.
        where: the classifier, for messages.

    Raises:
        InputError: a label that is no class, two that are the same one, or a name of none.
    """
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise InputError(
            f"{where}: labels names {unknown[0]!r}, which is none of the classifier's "
            f"({', '.join(found)})"
        )
    canonical = {_plain(name): name for name in classes}
    matched = []
    for label in found:
        said = names.get(label, label)
        if classes and _plain(said) not in canonical:
            raise InputError(
                f"{where}: its label {said!r} is none of the attribute's classes "
                f"({', '.join(classes)}); say which it is by labels: {{{label}: CLASS}}"
            )
        matched.append(canonical.get(_plain(said), said))
    twice = sorted({label for label in matched if matched.count(label) > 1})
    if twice:
        raise InputError(f"{where}: two of its labels are {twice[0]!r}; each class may stand once")
    return matched


def _plain(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())
