"""The verb ``curate annotate``: labels for documents, and a classifier that learns them.

Labels come from a file, from a chat endpoint or from a local model. ``labels.jsonl`` gets a line
as soon as a document has its label, so a killed run goes on with the documents that have none. The
classifier lies in ``export/``; it is not exported where it is worse than asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regrow.core.atomic import staged_folder
from regrow.core.errors import ConfigError, InputError, RunError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.core.seed import derive
from regrow.data import exhibits
from regrow.data.attributes import resolve_classifier
from regrow.data.attributes.annotators import (
    Annotator,
    ClassifierAnnotator,
    EndpointAnnotator,
    RankingAnnotator,
    is_language_model,
)
from regrow.data.attributes.examples import Example, groups, labelled, sample, tables
from regrow.data.attributes.features import Hashing
from regrow.data.attributes.kinds import Attribute, get_attribute
from regrow.data.attributes.labels import LABELS, Labels, label_all
from regrow.data.attributes.linear import LinearClassifier, drawn_from_each, train
from regrow.data.attributes.measures import calibration_error, evaluate, softmax
from regrow.data.attributes.prompt import Prompt
from regrow.data.settings.annotate import SAMPLE, AnnotateConfig
from regrow.io.endpoint import Endpoint
from regrow.io.parquet import num_rows
from regrow.io.runs import resolve_documents

REPLIES = "replies.jsonl"
_LEAST_TEXTS = 5  # of a class that is learned
_LEAST_FILES = 10  # of each class, for files to be held out whole


def plan(config: AnnotateConfig) -> Plan:
    """What will be labelled, and by whom.

    Raises:
        InputError: documents, labels, a prompt or a model that are missing or do not fit.
        ConfigError: a key or a library that is missing, or a setting without effect.
    """
    attribute = get_attribute(config.attribute)
    figures: dict[str, Any] = {"attribute": attribute.name}
    notes: list[str] = []
    if config.labels is not None:
        count = len(_from_file(config, attribute))
        figures |= {"labels": str(config.labels), "documents": min(config.sample or count, count)}
    else:
        there = sum(num_rows(path) for path in tables(_documents(config)))
        if not there:
            raise InputError(f"{config.documents}: holds no document to label")
        figures |= {"documents": min(config.sample or SAMPLE, there), "by": _annotator_name(config)}
        prompt = _prompt(config, attribute)
        _check_model(config, attribute, prompt)
        if prompt is not None:
            figures["classes"] = ", ".join(prompt.classes)
    if config.endpoint is not None:
        with Endpoint(config.endpoint):  # the key and the library are there
            pass
        if not config.endpoint.local:
            notes.append(f"texts of the documents are sent to {config.endpoint.base_url}")
            if config.endpoint.base_url.startswith("http://") and config.endpoint.api_key_env:
                notes.append("the key is sent unencrypted; use https:// if the endpoint has it")
    figures |= {"held_out": config.holdout, "min_macro_f1": config.min_macro_f1}
    return Plan(
        f"annotate {attribute.name} of {figures['documents']} documents", figures, (*notes,)
    )


def _check_model(config: AnnotateConfig, attribute: Attribute, prompt: Prompt | None) -> None:
    """Open a classifier; of a language model look at what its headers tell."""
    if config.model is None:
        return
    if prompt is None:
        ClassifierAnnotator(config.model, attribute)
        return
    from regrow.data.attributes.transformer import check

    check(resolve_classifier(config.model.path), config.model.device)


def _annotator_name(config: AnnotateConfig) -> str:
    if config.endpoint is not None:
        return f"{config.endpoint.model} at {config.endpoint.base_url}"
    assert config.model is not None
    return str(config.model.path)


def _documents(config: AnnotateConfig) -> Path:
    assert config.documents is not None
    return resolve_documents(config.documents)


def _prompt(config: AnnotateConfig, attribute: Attribute) -> Prompt | None:
    """What the annotator is asked; None for one that is a classifier.

    Raises:
        ConfigError: a prompt file for a classifier, or labels of a language model.
        InputError: a prompt file that cannot be used, or no classes.
    """
    if config.model is not None and not is_language_model(config.model.path):
        if config.prompt is not None:
            raise ConfigError(
                f"prompt: has no effect with {config.model.path}, a classifier, which is not asked"
            )
        return None
    if config.model is not None and config.model.labels:
        raise ConfigError(
            f"model.labels: has no effect with {config.model.path}, a language model, which ranks "
            "the classes of the prompt"
        )
    if config.prompt is not None:
        return Prompt.read(config.prompt, attribute)
    return Prompt.of(attribute)


def _from_file(config: AnnotateConfig, attribute: Attribute) -> list[tuple[Example, str]]:
    assert config.labels is not None
    if not config.labels.is_file():
        raise InputError(f"labels: {config.labels} is no file; name a .jsonl of labels")
    documents = _documents(config) if config.documents is not None else None
    found = labelled(config.labels, documents, attribute.classes)
    if not found:
        raise InputError(f"labels: {config.labels} holds no label")
    return found


def run(config: AnnotateConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/labels.jsonl`` and ``RUN/export``.

    Returns:
        ``attribute``, ``classes``, ``by``, ``labels`` (class to documents), ``failed``,
        ``left_out`` (rare classes), ``held_out_by``, ``held_out`` (figures of
        :func:`regrow.data.attributes.measures.evaluate`, and ``ece_uncalibrated``),
        ``calibration``, ``classifier`` (its id), ``endpoint`` (what was spent), ``exhibits``.

    Raises:
        InputError: as in :func:`plan`.
        RunError: too many documents without a label, too few labels, or a classifier below
            ``min_macro_f1``; labels are kept.
        EndpointError: the endpoint failed or the budget is used up; labels are kept.
        Interrupted: after Ctrl-C, between two documents.
    """
    attribute = get_attribute(config.attribute)
    if config.documents is not None:
        run.input(_documents(config), "documents")
    if config.labels is not None:
        run.input(config.labels, "labels")
        pairs = _from_file(config, attribute)
        made: dict[str, Any] = {"by": f"file {config.labels.name}", "failed": 0}
        if config.sample is not None and config.sample < len(pairs):
            pairs.sort(key=lambda pair: derive(config.seed, "annotate", pair[0].id))
            pairs = sorted(pairs[: config.sample], key=lambda pair: pair[0].id)
    else:
        pairs, made = _label(config, attribute, run)
    return {"attribute": attribute.name, **made, **_learn(config, attribute, pairs, run)}


def _label(
    config: AnnotateConfig, attribute: Attribute, run: Run
) -> tuple[list[tuple[Example, str]], dict[str, Any]]:
    """Labels by an endpoint or a model, those of an earlier attempt included."""
    examples = sample(_documents(config), config.sample or SAMPLE, config.seed)
    prompt = _prompt(config, attribute)
    with ExitStack() as stack:
        endpoint = None
        annotator: Annotator
        if config.endpoint is not None and prompt is not None:
            endpoint = stack.enter_context(Endpoint(config.endpoint, run.path / REPLIES))
            annotator = EndpointAnnotator(endpoint, prompt)
        else:
            assert config.model is not None
            run.input(config.model.path, "annotator")
            annotator = (
                ClassifierAnnotator(config.model, attribute)
                if prompt is None
                else RankingAnnotator(config.model, prompt)
            )
        book = Labels(run.path / LABELS, annotator.by)
        try:
            label_all(book, examples, annotator, config.max_failed, run)
        finally:
            book.close()
            if endpoint is not None:
                run.log("endpoint", **endpoint.spent.as_json())
        made: dict[str, Any] = {"by": annotator.by, "failed": len(book.failed)}
        if endpoint is not None:
            made["endpoint"] = {
                "base_url": endpoint.config.base_url,
                "model": endpoint.config.model,
                **endpoint.spent.as_json(),
            }
    return [(e, book.labels[e.id]) for e in examples if e.id in book.labels], made


def _learn(
    config: AnnotateConfig, attribute: Attribute, pairs: Sequence[tuple[Example, str]], run: Run
) -> dict[str, Any]:
    """Train on most of the labels, measure on the rest, export what is good enough."""
    counts = Counter(label for _, label in pairs)
    order = [label for label in attribute.classes if label in counts] or sorted(counts)
    kept = tuple(label for label in order if counts[label] >= _LEAST_TEXTS)
    left_out = {label: counts[label] for label in order if label not in kept}
    if len(kept) < 2:
        raise RunError(
            f"a classifier needs two classes with {_LEAST_TEXTS} documents each; there is only",
            [f"{counts[label]} of {label}" for label in order],
        )
    pairs = [pair for pair in pairs if pair[1] in kept]
    examples, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    by, together = groups(examples, labels, _LEAST_FILES)
    truth = np.array([kept.index(label) for label in labels], np.int64)
    held = drawn_from_each(truth, config.holdout, config.seed, together)
    inside, outside = np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()
    classifier = train(
        [examples[i].text for i in inside],
        [labels[i] for i in inside],
        hashing=Hashing(config.buckets),
        seed=config.seed,
        order=kept,
        groups=[together[i] for i in inside],
        facts={"attribute": attribute.name},
    )
    texts = [examples[i].text for i in outside]
    figures = _figures(classifier, texts, truth[outside])
    run.log("measured", macro_f1=figures["macro_f1"], accuracy=figures["accuracy"])
    _require_floor(figures, config.min_macro_f1, run.path)
    with staged_folder(run.export) as folder:
        facts = {
            **classifier.facts,
            "trained_documents": len(inside),
            "held_out": {k: figures[k] for k in ("texts", "accuracy", "macro_f1", "ece")},
        }
        replace(classifier, facts=facts).save(folder)
    return {
        "classes": list(kept),
        "labels": {label: counts[label] for label in order},
        "left_out": left_out,
        "trained_documents": len(inside),
        "held_out_by": by,
        "held_out": figures,
        "calibration": {
            "scale": classifier.calibration.scale,
            "shift": list(classifier.calibration.shift),
        },
        "classifier": LinearClassifier.load(run.export).id,
        "exhibits": list(_exhibits(attribute.name, examples, labels, kept, figures)),
    }


def _figures(
    classifier: LinearClassifier, texts: Sequence[str], truth: np.ndarray
) -> dict[str, Any]:
    logits = classifier.logits(texts)
    figures = evaluate(softmax(classifier.calibration(logits)), truth, classifier.labels)
    return {**figures, "ece_uncalibrated": calibration_error(softmax(logits), truth)[0]}


def _require_floor(figures: dict[str, Any], floor: float, folder: Path) -> None:
    if figures["macro_f1"] < floor:
        low, high = figures["macro_f1_interval"]
        worst = sorted(figures["f1"].items(), key=lambda pair: pair[1])[:5]
        raise RunError(
            f"the classifier is not exported: its macro-F1 on {figures['texts']} held-out "
            f"documents is {figures['macro_f1']:.3f} (95 %: {low:.3f} to {high:.3f}), below "
            f"min_macro_f1 {floor:g}; always saying {figures['majority']['label']} gives "
            f"{figures['majority']['macro_f1']:.3f}. Give more labels or clearer classes; or start "
            "a run with a lower min_macro_f1 and the labels that are there already "
            f"(labels={folder / LABELS} where this run made them)",
            [f"F1 of {label}: {value:.3f}" for label, value in worst],
        )


def _exhibits(
    name: str,
    examples: Sequence[Example],
    labels: Sequence[str],
    classes: Sequence[str],
    figures: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """What the page shows: labels by source, figures by class, confusion, reliability."""
    counts = Counter(zip((e.source for e in examples), labels, strict=True))
    sources = sorted({e.source for e in examples})
    rows = [[source, *(counts[source, label] for label in classes)] for source in sources]
    yield exhibits.table(f"{name}: labels by source", ["source", *classes], rows)
    table = np.array(figures["confusion"])
    by_class = []
    for number, label in enumerate(classes):
        right, said, met = table[number, number], table[:, number].sum(), table[number].sum()
        by_class.append(
            [
                label,
                int(met),
                float(right / said) if said else 0.0,
                float(right / met) if met else 0.0,
                figures["f1"][label],
            ]
        )
    heads = [name, "held out", "precision", "recall", "F1"]
    yield exhibits.table(f"{name}: figures on held-out documents, by class", heads, by_class)
    rows = [[label, *row] for label, row in zip(classes, table.tolist(), strict=True)]
    title = f"{name}: what held-out documents are (rows) and were taken for"
    yield exhibits.table(title, [name, *classes], rows)
    bins = figures["reliability"]
    if len(bins) > 1:
        sure = [row["confidence"] for row in bins]
        yield exhibits.curve(
            f"{name}: how often the classifier is right, by how sure it is",
            sure,
            {"measured": [row["accuracy"] for row in bins], "perfect": sure},
            "probability of the chosen class",
            "share that is right",
        )
