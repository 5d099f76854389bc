"""YAML 1.2 in and out, with the line that each value came from.

YAML 1.1 readers turn ``1e-3`` into a string, the language code ``no`` into False and ``12:30:45``
into 45045, and accept a key twice; this reader does none of that.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from regrow.core.errors import ConfigError

Location = tuple[str | int, ...]


def _reader() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    yaml.allow_duplicate_keys = False
    return yaml


def _plain(node: Any, path: Location, lines: dict[Location, int]) -> Any:
    """The same value in built-in types; fills ``lines`` with the 1-based line of each entry."""
    if isinstance(node, CommentedMap):
        for key in node:
            position = node.lc.data.get(key) if node.lc.data else None
            if position:
                lines[(*path, str(key))] = position[0] + 1
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            position = node.lc.data.get(index) if node.lc.data else None
            if position:
                lines[(*path, index)] = position[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        number = float(node)
        # `tokens: 1e6` is how people write a count; a float setting takes an integer as well.
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(node, (datetime.date, datetime.datetime)):
        return node.isoformat()
    if hasattr(node, "_yaml_value"):  # a timestamp kept by the round-trip loader
        return str(node)
    return str(node)


def _describe(error: YAMLError, name: str) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = (error.problem or error.context or "not valid YAML").splitlines()[0]
        return f"{name}:{mark.line + 1}: {problem}"
    return f"{name}: {str(error).splitlines()[0]}"


def read_yaml(path: Path) -> tuple[Any, dict[Location, int]]:
    """The value in a YAML file, and the line of each of its entries by their location.

    Raises:
        ConfigError: no such file, or not YAML; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error
    lines: dict[Location, int] = {}
    try:
        return _plain(_reader().load(text), (), lines), lines
    except YAMLError as error:
        raise ConfigError(_describe(error, str(path))) from error


def parse_value(text: str) -> Any:
    """The value of one ``key=value`` word, read as YAML 1.2 flow text.

    Raises:
        ConfigError: not YAML.
    """
    try:
        return _plain(_reader().load(text), (), {}) if text.strip() else ""
    except YAMLError as error:
        raise ConfigError(_describe(error, repr(text))) from error


def _quoted(value: Any) -> Any:
    """The same value, its strings marked for quoting where plain YAML would change them."""
    if isinstance(value, str):
        odd = not value.isprintable() or value != value.strip()
        return DoubleQuotedScalarString(value) if odd else value
    if isinstance(value, Mapping):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(item) for item in value]
    return value


def dump_yaml(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """YAML text of plain mappings, lists and scalars, in the given order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.version = (1, 2)
    # Long text stays on one line: folding changes some of the rarer space characters.
    yaml.width = 1 << 30
    stream = io.StringIO()
    yaml.dump(_quoted(value), stream)
    return stream.getvalue().removeprefix("%YAML 1.2\n---\n")
