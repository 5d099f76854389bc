"""JSON Lines, read so that one broken line costs one line, and written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from regrow.core import atomic
from regrow.io.places import decompressed, unreadable

MAX_LINE_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its object, or why there is none.

    Args:
        number: counted from 1.
        value: the object; None where ``error`` is set.
        error: what is wrong with the line, without its content.
    """

    number: int
    value: dict[str, Any] | None
    error: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def parse_line(number: int, raw: bytes) -> Line:
    """The object that the bytes of one line hold."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        return Line(number, None, f"not UTF-8 ({error.reason} at byte {error.start})")
    except RecursionError:
        return Line(number, None, "JSON nested too deeply")
    except json.JSONDecodeError as error:
        return Line(number, None, f"not JSON ({error.msg} at column {error.colno})")
    except ValueError as error:
        return Line(number, None, f"not usable JSON ({error})")
    if not isinstance(value, dict):
        return Line(number, None, f"not a JSON object but {type(value).__name__}")
    return Line(number, value)


def _bounded_lines(file: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """Lines of at most ``limit`` bytes; None in place of a longer one, which is never held."""
    while raw := file.readline(limit + 1):
        if len(raw) <= limit or raw.endswith(b"\n"):
            yield raw
            continue
        while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
            pass
        yield None


def read_jsonl(path: Path, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Every non-empty line of a ``.jsonl``, ``.jsonl.gz`` or ``.jsonl.zst`` file.

    Broken lines come with their error. A file that stops being readable (truncated, disk error)
    ends with one line that says so.

    Args:
        path: the file; compressed when its name ends in ``.gz`` or ``.zst``.
        max_line_bytes: a longer line is an error, and is skipped without being held in memory.
    """
    return read_lines(lambda: decompressed(path.open("rb"), path.name), max_line_bytes)


def read_lines(
    open_file: Callable[[], BinaryIO], max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Line]:
    """The same for a file wherever it lies.

    Args:
        open_file: opens it as a stream of plain lines.
        max_line_bytes: as above.
    """
    number = 0
    try:
        with open_file() as file:
            for raw in _bounded_lines(file, max_line_bytes):
                number += 1
                if raw is None:
                    yield Line(number, None, f"longer than {max_line_bytes} bytes")
                    continue
                content = raw.removeprefix(_BOM) if number == 1 else raw
                if content.strip():
                    yield parse_line(number, content)
    except unreadable() as error:
        yield Line(number + 1, None, f"unreadable from here on ({error})")


def open_to_add(path: Path) -> BinaryIO:
    """A file that only grows, made where it is missing; a line that a kill cut short is taken off.

    Whoever reads what is there opens it first: what is read is then what stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    return file


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    lines = (json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records)
    atomic.write_text(path, "".join(lines))
