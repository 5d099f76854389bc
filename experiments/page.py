"""The tables of an experiment's README.md, each between its marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path


def fill(page: Path, tables: Mapping[str, str]) -> None:
    """Put each text between ``<!-- name -->`` and ``<!-- /name -->``; a page of the marks alone is
    made where there is none."""
    marks = {name: (f"<!-- {name} -->", f"<!-- /{name} -->") for name in tables}
    empty = "\n\n".join(map("\n".join, marks.values())) + "\n"
    text = page.read_text(encoding="utf-8") if page.exists() else empty
    for name, (begin, end) in marks.items():
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        made = f"{begin}\n{tables[name]}\n{end}"
        text = pattern.sub(lambda _, made=made: made, text)  # type: ignore[misc]
    page.write_text(text, encoding="utf-8")


def markdown_table(
    head: Sequence[str], lines: Sequence[Sequence[str]], left: int | None = None
) -> str:
    """Rows under headings, as Markdown.

    Args:
        head: the headings.
        lines: the rows.
        left: columns of words; the rest are numbers, on the right. None for words alone.
    """
    words = len(head) if left is None else left
    rule = [*("---" for _ in head[:words]), *("---:" for _ in head[words:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *lines))
