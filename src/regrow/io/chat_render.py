"""Render one chat template; run as a script, in a process of its own, by :mod:`regrow.io.chat`.

A template comes with a model, from strangers. Jinja's sandbox keeps it from the interpreter, but
bounds neither its loops nor its strings; limits on the whole process do. Reads one JSON object
from stdin, writes one to stdout; imports nothing of regrow, so that it starts quickly.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant said, for training; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Names(Namespace):
    """A namespace without private names, which the sandbox would not check."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a template may not set {name!r}")
        super().__setitem__(name, value)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def render(template: str, variables: dict[str, Any], max_characters: int) -> str:
    """The text of a template, with the names and filters that ``transformers`` gives to one.

    Raises:
        TemplateError: a broken template, one that refuses the conversation, too long a text.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_refuse,
        strftime_now=lambda form: datetime.now().strftime(form),
        namespace=_Names,
    )
    pieces, size = [], 0
    for piece in environment.from_string(template).generate(**variables):
        size += len(piece)
        if size > max_characters:
            raise TemplateError(f"its text exceeds {max_characters:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _limit(seconds: int, memory: int) -> None:
    """Bound what this process may take from now on, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's deadline remains
        return
    bounds = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):  # a lower one is set already
            continue


def main() -> None:
    """Answer ``{"text": ...}``, or ``{"error": ...}``."""
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["memory"])
    try:
        answer = {"text": render(request["template"], request["variables"], request["characters"])}
    except MemoryError:
        answer = {"error": f"it needs more than {request['memory'] >> 20} MiB"}
    except Exception as error:  # whatever a stranger's template can raise
        line = getattr(error, "lineno", None)
        answer = {"error": f"{error or type(error).__name__}{f' (line {line})' if line else ''}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
