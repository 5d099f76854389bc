"""Comments of program text, found by one regular expression a family of languages.

The expression also matches string literals, so that a comment's mark within one is none. That is a
scanner, not a parser: it never fails on text that does not compile.
"""

from __future__ import annotations

import re
from functools import cache

_QUOTED = r'"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
_DOUBLE = r'"(?:\\.|[^"\\\n])*"'
_C_BLOCK = r"/\*[\s\S]*?(?:\*/|\Z)"

# The group ``note`` is the comment. A triple-quoted string counts where it is a statement of its
# own, which is how a docstring looks.
_FAMILIES = {
    "python": (
        r'(?P<note>#[^\n]*|^[ \t]*[rRuU]?(?:"""[\s\S]*?(?:"""|\Z)' + r"|'''[\s\S]*?(?:'''|\Z)))"
        r'|"""[\s\S]*?(?:"""|\Z)' + r"|'''[\s\S]*?(?:'''|\Z)|" + _QUOTED
    ),
    "hash": r"(?P<note>(?<![^\s;()])#[^\n]*)|" + _QUOTED,
    "c": rf"(?P<note>//[^\n]*|{_C_BLOCK})|" + _QUOTED + r"|`(?:\\.|[^`\\])*`",
    "php": rf"(?P<note>//[^\n]*|#[^\n]*|{_C_BLOCK})|" + _QUOTED,
    "css": rf"(?P<note>{_C_BLOCK})|" + _QUOTED,
    "sql": rf"(?P<note>--[^\n]*|{_C_BLOCK})|'(?:''|[^'])*'|" + _DOUBLE,
    "lua": r"(?P<note>--\[\[[\s\S]*?(?:\]\]|\Z)|--[^\n]*)|" + _QUOTED,
    "haskell": r"(?P<note>\{-[\s\S]*?(?:-\}|\Z)|--[^\n]*)|" + _DOUBLE,
    "dash": r"(?P<note>--[^\n]*)|" + _DOUBLE,
    "ml": r"(?P<note>\(\*[\s\S]*?(?:\*\)|\Z))|" + _DOUBLE,
    "percent": r"(?P<note>(?<!\\)%[^\n]*)",
    "lisp": r"(?P<note>;[^\n]*|#\|[\s\S]*?(?:\|#|\Z))|" + r'"(?:\\.|[^"\\])*"',
    "fortran": r"(?P<note>![^\n]*)|" + _QUOTED,
    "markup": r"(?P<note><!--[\s\S]*?(?:-->|\Z))",
    # What is indented below belongs to it; directives, targets and footnotes are none.
    "rst": r"(?P<note>^\.\.(?![ \t]+(?:[\w-]+::|_|\[|\|))[^\n]*(?:\n[ \t]+[^\n]*)*)",
    "none": r"(?P<note>(?!))",
}
_MEMBERS = {
    "python": "python cython starlark",
    "hash": "awk bash cmake coffeescript crystal dockerfile elixir graphql julia make makefile "
    "nim nix perl powershell r ruby shell sh tcl toml yaml zsh",
    "c": "c c++ cpp c# csharp cuda d dart f# fsharp go groovy java javascript jsx kotlin "
    "objective-c objectivec proto protobuf rust scala solidity swift tsx typescript "
    "verilog systemverilog zig",
    "php": "php",
    "css": "css less scss",
    "sql": "sql plsql",
    "lua": "lua",
    "haskell": "haskell elm purescript agda",
    "dash": "ada vhdl",
    "ml": "ocaml coq pascal delphi",
    "percent": "erlang latex matlab octave prolog tex",
    "lisp": "assembly clojure common-lisp emacs-lisp lisp racket scheme",
    "fortran": "fortran",
    "markup": "html markdown svg vue xml",
    "rst": "restructuredtext",
    "none": "json",
}
COMMENT_LANGUAGES = {name: family for family, names in _MEMBERS.items() for name in names.split()}


@cache
def _pattern(family: str) -> re.Pattern[str]:
    return re.compile(_FAMILIES[family], re.MULTILINE)


def comment_share(text: str, language: str) -> float | None:
    """Share of a text's characters that are within comments and docstrings, their marks included.

    Args:
        text: program text.
        language: lower case, one of ``COMMENT_LANGUAGES``.

    Returns:
        None for a language whose comments are not known.
    """
    family = COMMENT_LANGUAGES.get(language.lower().replace(" ", "-"))
    if family is None:
        return None
    inside = 0
    for match in _pattern(family).finditer(text):
        start, end = match.span("note")
        inside += end - start
    return inside / len(text) if text else 0.0
