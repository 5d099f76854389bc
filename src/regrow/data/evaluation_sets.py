"""Sets that models are evaluated with, as texts to look for: public ones by name, others by path.

To add a public set: its reader and its line in ``PUBLIC``.
"""

from __future__ import annotations

import bz2
import csv
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.data.settings.decontaminate import EvaluationSetConfig
from regrow.data.sources.record import lookup
from regrow.io.jsonl import read_jsonl, read_lines
from regrow.io.places import Place, find, plain_suffix, unreadable

DATA_VARIABLE = "REGROW_DATA"
KINDS = (".jsonl", ".parquet", ".txt")
_HELLASWAG_LINES = 6  # context, number of the right ending, four endings


class Asked(NamedTuple):
    """One item of a set.

    Args:
        id: unique within the set.
        texts: what it consists of; runs of words do not go over from one to the next.
    """

    id: str
    texts: list[str]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A set by its name.

    Args:
        name: as in the settings.
        places: its files.
        read: gives its items; raises InputError where a file is broken.
    """

    name: str
    places: tuple[str, ...]
    read: Callable[[], Iterator[Asked]]


def open_sets(
    configs: Sequence[EvaluationSetConfig], data: Path | None, setting: str = "against"
) -> list[EvaluationSet]:
    """Find the files of sets; their first record is read, the rest is not.

    Args:
        configs: as given.
        data: the folder of public sets; None for the one that REGROW_DATA names.
        setting: where they stand, for messages.

    Raises:
        ConfigError: none is named, one of an unknown name, or no folder of public sets.
        InputError: files that do not exist, or hold no such field.
    """
    if not configs:
        raise ConfigError(
            f"{setting}: names no evaluation set; give names of public ones "
            f"({', '.join(PUBLIC)}), paths, or {{name: ..., path: ..., fields: [...]}}"
        )
    return [
        _public(one, data, setting) if one.path is None else _own(one, f"{setting}.{one.name}")
        for one in configs
    ]


def _public(config: EvaluationSetConfig, data: Path | None, setting: str) -> EvaluationSet:
    if config.name not in PUBLIC:
        raise ConfigError(
            f"{setting}: no public set {config.name!r}{nearest(config.name, list(PUBLIC))} (known: "
            f"{', '.join(PUBLIC)}); a file is given by its path, such as ./{config.name}.jsonl"
        )
    folder = data or (Path(found) if (found := os.environ.get(DATA_VARIABLE)) else None)
    layout = PUBLIC[config.name]
    if folder is None:
        raise ConfigError(
            f"{setting}: {config.name} is read from {layout.path} under the data folder, and none "
            f"is named; set data or {DATA_VARIABLE}, or give the set by its path"
        )
    path = folder / layout.path
    if not path.exists():
        raise InputError(
            f"{setting}: {path} does not exist; name the folder that holds it by data or "
            f"{DATA_VARIABLE}, or give the set by its path"
        )
    return EvaluationSet(config.name, (str(path),), lambda: layout.read(path))


def _own(config: EvaluationSetConfig, setting: str) -> EvaluationSet:
    assert config.path is not None
    try:
        places = find(config.path)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error
    places = [place for place in places if plain_suffix(place.name) in KINDS]
    if not places:
        raise InputError(f"{setting}: {config.path} holds no {', '.join(KINDS)} file")

    def read() -> Iterator[Asked]:
        missing = set(config.fields)
        seen: set[str] = set()
        for place in places:
            for number, record in _records(place):
                seen.update(record)
                texts = list(_texts(record))
                if config.fields:
                    found = {name: lookup(record, name) for name in config.fields}
                    missing -= {name for name, value in found.items() if value is not None}
                    texts = list(_texts(found))
                yield Asked(f"{place.name}:{number}" if len(places) > 1 else str(number), texts)
        if missing:
            name = min(missing)
            raise InputError(
                f"{setting}: no record of {config.path} has the field {name!r}"
                f"{nearest(name, sorted(seen))} (fields: {', '.join(sorted(seen)) or 'none'})"
            )

    first = next(_records(places[0]), None)
    if first is None:
        raise InputError(f"{setting}: {places[0].where} is empty")
    fields = dict(first[1])
    if config.fields and all(lookup(fields, name) is None for name in config.fields):
        name = config.fields[0]
        raise InputError(
            f"{setting}: no field {name!r} in {places[0].name}{nearest(name, list(fields))} "
            f"(fields: {', '.join(fields)})"
        )
    return EvaluationSet(config.name, tuple(place.where for place in places), read)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _records(place: Place) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Records with their numbers, from 1; those of plain text are its paragraphs."""
    kind = plain_suffix(place.name)
    try:
        if kind == ".parquet":
            yield from _rows(place)
        elif kind == ".jsonl":
            for line in read_lines(place.open_plain):
                if line.value is None:
                    raise InputError(f"{place.where}:{line.number}: {line.error}")
                yield line.number, line.value
        else:
            with place.open_plain() as file:
                text = file.read().decode("utf-8-sig")
            parts = (part for part in text.replace("\r\n", "\n").split("\n\n") if part.strip())
            yield from ((number, {"text": part}) for number, part in enumerate(parts, 1))
    except UnicodeDecodeError as error:
        raise InputError(f"{place.where} is not UTF-8 ({error.reason})") from error
    except (*unreadable(), pa.ArrowException) as error:
        raise InputError(f"{place.where} cannot be read ({error})") from error


def _rows(place: Place) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    with place.open() as opened, pq.ParquetFile(opened) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _json_lines(path: Path, fields: Sequence[str]) -> Iterator[Asked]:
    for line in read_jsonl(path):
        if line.value is None:
            raise InputError(f"{path}:{line.number}: {line.error}")
        missing = [name for name in fields if name not in line.value]
        if missing:
            raise InputError(f"{path}:{line.number}: no field {missing[0]!r}; not the public set")
        yield Asked(str(line.number), list(_texts([line.value[name] for name in fields])))


def _hellaswag(path: Path) -> Iterator[Asked]:
    try:
        lines = bz2.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if len(lines) % _HELLASWAG_LINES:
        raise InputError(f"{path} has {len(lines)} lines, not {_HELLASWAG_LINES} an item")
    for start in range(0, len(lines), _HELLASWAG_LINES):
        context, _, *endings = lines[start : start + _HELLASWAG_LINES]
        yield Asked(str(start // _HELLASWAG_LINES + 1), [context, *endings])


def _mmlu(folder: Path) -> Iterator[Asked]:
    for path in sorted(folder.glob("*_test.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                # Some copies have a line of headings.
                rows = (cells for cells in csv.reader(file) if cells[:1] != ["question"])
                for number, cells in enumerate(rows, 1):
                    yield Asked(f"{path.name.removesuffix('_test.csv')}:{number}", cells)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is no CSV file in UTF-8 ({error})") from error


class Layout(NamedTuple):
    """Where a public set lies under the data folder, and how it is read."""

    path: str
    read: Callable[[Path], Iterator[Asked]]


def _lines_of(path: str, *fields: str) -> Layout:
    return Layout(path, lambda found: _json_lines(found, fields))


_FOUNDRY = "eval-llm-foundry"
PUBLIC: dict[str, Layout] = {
    "gsm8k": _lines_of("eval-gsm8k/test.jsonl", "question", "answer"),
    "hellaswag": Layout("eval-hellaswag/hellaswag_val_full.txt.bz2", _hellaswag),
    "humaneval": _lines_of("eval-humaneval/HumanEval.jsonl.gz", "prompt", "canonical_solution"),
    "mmlu": Layout("eval-mmlu/test", _mmlu),
    "lambada": _lines_of(
        f"{_FOUNDRY}/language_understanding/lambada_openai.jsonl", "context", "continuation"
    ),
    "openbookqa": _lines_of(
        f"{_FOUNDRY}/commonsense_reasoning/openbook_qa.jsonl", "query", "choices"
    ),
    "piqa": _lines_of(f"{_FOUNDRY}/commonsense_reasoning/piqa.jsonl", "query", "choices"),
    "winogrande": _lines_of(
        f"{_FOUNDRY}/language_understanding/winogrande.jsonl", "context_options", "continuation"
    ),
}
