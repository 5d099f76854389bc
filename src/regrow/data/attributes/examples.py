"""Which documents are labelled: a sample spread over sources, or what a file of labels names."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrow.core.errors import InputError
from regrow.core.registry import nearest
from regrow.core.seed import derive
from regrow.data.attributes import match_labels
from regrow.io.jsonl import read_jsonl
from regrow.io.parquet import read_batches

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Example:
    """A document to label or labelled.

    Args:
        id: unique.
        text: whole.
        source: that it is of; ``labels`` where it came with its label.
        file: what it was read from; documents of one file stay together when some are held out.
    """

    id: str
    text: str
    source: str
    file: str


def tables(documents: Path) -> list[Path]:
    """The tables that may be learned from: the training split, or all where nothing is split."""
    train = documents / "train.parquet"
    if train.exists():
        return [train]
    return sorted(p for p in documents.glob("*.parquet") if p.name != "dropped.parquet")


def sample(documents: Path, count: int, seed: int) -> list[Example]:
    """``count`` documents, as many of each source as far as it has them, sorted by id.

    Which ones depends on the ids and the seed alone. Only ids and hashes of the chosen are held
    while the tables are read.

    Raises:
        InputError: no document there.
    """
    paths = tables(documents)
    sizes: Counter[str] = Counter()
    # The smallest hashes of each source: a heap of the largest first, cut to the share it can get.
    kept: dict[str, list[tuple[int, str]]] = {}
    for path in paths:
        for batch in read_batches(path, ("id", "source")):
            for name, source in zip(
                batch["id"].to_pylist(), batch["source"].to_pylist(), strict=True
            ):
                sizes[source] += 1
                heap = kept.setdefault(source, [])
                entry = (-derive(seed, "annotate", name), name)
                if len(heap) < count:
                    heapq.heappush(heap, entry)
                elif entry > heap[0]:
                    heapq.heapreplace(heap, entry)
    if not sizes:
        raise InputError(f"{documents}: holds no document to label")
    chosen = {
        name
        for source, share in even_shares(sizes, count).items()
        for _, name in heapq.nlargest(share, kept[source])
    }
    return by_id(documents, chosen)


def even_shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of each source make up ``count``: equal numbers, as far as each source has them."""
    shares: dict[str, int] = {}
    left = min(count, sum(sizes.values()))
    order = sorted(sizes, key=lambda name: (sizes[name], name))
    for number, name in enumerate(order):
        shares[name] = min(sizes[name], left // (len(order) - number))
        left -= shares[name]
    return shares


def by_id(documents: Path, ids: Collection[str]) -> list[Example]:
    """The documents with these ids, sorted by id; those that are not there are left out."""
    wanted = set(ids)
    columns = ("id", "text", "source", "file")
    found = []
    for path in tables(documents):
        for batch in read_batches(path, columns):
            for index, name in enumerate(batch["id"].to_pylist()):
                if name in wanted:
                    values = (batch[column][index].as_py() for column in columns)
                    found.append(Example(*values))
    return sorted(found, key=lambda example: example.id)


def labelled(
    path: Path, documents: Path | None, classes: Sequence[str]
) -> list[tuple[Example, str]]:
    """What a file of labels says: lines of ``label`` and ``text``, or of ``label`` and ``id``.

    A line may also have ``source`` and ``file``. Lines whose label is null are passed over, so
    that what an earlier run labelled can be given. Texts that stand twice count once.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``.
        documents: where ids are looked up.
        classes: that labels may be; empty where any will do.

    Returns:
        Sorted by id.

    Raises:
        InputError: lines that cannot be used, each with its number; ids that are no document; a
            text that has two labels.
    """
    problems: list[str] = []
    labels: dict[str, str] = {}
    own: dict[str, Example] = {}
    named: set[str] = set()
    for line in read_jsonl(path):
        where = f"{path}:{line.number}"
        if line.value is None:
            problems.append(f"{where}: {line.error}")
            continue
        label, text, name = (line.value.get(key) for key in ("label", "text", "id"))
        if label is None and "label" in line.value:
            continue
        if not isinstance(label, str) or not (isinstance(text, str) or isinstance(name, str)):
            problems.append(f"{where}: a line holds 'label' and 'text' or 'id', all of them texts")
            continue
        if text is None:
            key = str(name)
            named.add(key)
        else:
            key = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
            source = line.value.get("source")
            file = line.value.get("file")
            own[key] = Example(
                key,
                text,
                source if isinstance(source, str) else "labels",
                file if isinstance(file, str) else "",
            )
        if labels.setdefault(key, label) != label:
            problems.append(f"{where}: labelled {label!r}, but {labels[key]!r} on an earlier line")
    if named and documents is None:
        problems.append(f"{path}: names documents by id; set documents to the run that holds them")
    found = by_id(documents, named) if named and documents is not None else []
    lacking = sorted(named - {example.id for example in found}) if documents is not None else []
    if lacking:
        problems.append(
            f"{path}: {len(lacking)} of {len(named)} ids are no document of {documents}, such as "
            f"{lacking[0]!r}"
        )
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise InputError(f"{path} cannot be used as labels", [*problems[:_SHOWN], *more])
    return sorted(_matched([*own.values(), *found], labels, classes, path), key=lambda x: x[0].id)


def _matched(
    found: Sequence[Example], labels: Mapping[str, str], classes: Sequence[str], path: Path
) -> Iterator[tuple[Example, str]]:
    """The examples with their labels in the attribute's words."""
    words: dict[str, str] = {}
    for label in sorted(set(labels.values())):
        try:
            words[label] = match_labels([label], classes, {}, str(path))[0]
        except InputError:
            known = ", ".join(classes)
            raise InputError(
                f"{path}: label {label!r} is none of the attribute's"
                f"{nearest(label, list(classes))} (known: {known})"
            ) from None
    for example in found:
        yield example, words[labels[example.id]]


def groups(examples: Sequence[Example], labels: Sequence[str], least: int) -> tuple[str, list[str]]:
    """What stays together when some are held out: files, where each class has enough of them.

    Args:
        examples: ``(N,)``.
        labels: ``(N,)``.
        least: files that each class needs; with fewer, each text stands for itself.

    Returns:
        ``file`` or ``text``, and ``(N,)`` names; the same text always has the same one where they
        stand for themselves.
    """
    files: dict[str, set[str]] = {}
    for example, label in zip(examples, labels, strict=True):
        files.setdefault(label, set()).add(example.file)
    if all(len(names - {""}) >= least for names in files.values()):
        return "file", [f"file {example.file}" for example in examples]
    return "text", [
        "text " + hashlib.blake2b(" ".join(e.text.split()).encode("utf-8", "replace")).hexdigest()
        for e in examples
    ]
