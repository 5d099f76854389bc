"""Trees of source code: every file of text is a document, in the language of its suffix."""

from __future__ import annotations

import os
from collections.abc import Iterator

from regrow.core.errors import InputError
from regrow.data.settings.sources import CheckoutSource
from regrow.data.sources.plain import read_plain
from regrow.data.sources.pool import Item, Unit
from regrow.data.sources.record import Origin, listed, one_unit
from regrow.io.places import Place

_LANGUAGES = {
    "python": "py pyi",
    "c": "c h",
    "c++": "cc cpp cxx hh hpp hxx",
    "c#": "cs",
    "css": "css scss less",
    "go": "go",
    "haskell": "hs",
    "html": "html htm",
    "java": "java",
    "javascript": "js mjs cjs jsx",
    "json": "json",
    "julia": "jl",
    "kotlin": "kt kts",
    "lua": "lua",
    "make": "mk",
    "markdown": "md",
    "ocaml": "ml mli",
    "perl": "pl pm",
    "php": "php",
    "r": "r",
    "restructuredtext": "rst",
    "ruby": "rb",
    "rust": "rs",
    "scala": "scala",
    "shell": "sh bash zsh",
    "sql": "sql",
    "swift": "swift",
    "tex": "tex",
    "toml": "toml",
    "typescript": "ts tsx",
    "verilog": "v sv",
    "vhdl": "vhd vhdl",
    "xml": "xml",
    "yaml": "yaml yml",
}
LANGUAGE_OF = {f".{s}": name for name, suffixes in _LANGUAGES.items() for s in suffixes.split()}


def units(config: CheckoutSource) -> list[Unit]:
    """The tree as one unit.

    Raises:
        ConfigError, InputError: nothing there, or it cannot be listed.
    """
    places = listed(config)  # without hidden names, so without .git
    if not places:
        raise InputError(f"source {config.name!r}: {config.path} is empty, so no documents")
    return one_unit(config, places, _read)


def _read(config: CheckoutSource, place: Place) -> Iterator[Item]:
    origin = Origin(config, place)
    if os.path.islink(place.where):  # what it leads to is in the tree anyway, or is not of it
        return iter([origin.reject(0, "link")])
    if not place.is_regular:
        return iter([origin.reject(0, "unreadable", True, "not a regular file")])
    suffix = os.path.splitext(place.name.lower())[1]
    return read_plain(origin, "code", language=LANGUAGE_OF.get(suffix, ""), skip_binary=True)
