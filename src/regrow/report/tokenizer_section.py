"""What a tokenizer makes of the text of each source and each language."""

from __future__ import annotations

from markupsafe import Markup

from regrow.report.format import amount, decimals, size
from regrow.report.record import RunFolder, mapping
from regrow.report.section import Column, Line, Section, Table, figure

_FIGURES = (
    ("trained_bytes", size),
    ("text_bytes", size),
    ("tokens", amount),
    ("tokens_per_byte", decimals),
    ("tokens_per_character", decimals),
    ("tokens_per_word", decimals),
)


def fertility(run: RunFolder) -> Section | None:
    """Tokens per byte, per character and per word: the fewer, the better the text is covered."""
    found = mapping(run.result.get("fertility"))
    body = Markup("")
    for key, name in (("by_source", "Source"), ("by_language", "Language")):
        rows = {str(k): mapping(v) for k, v in mapping(found.get(key)).items()}
        lines = [_line(row, value, f"{key}.{row}") for row, value in rows.items()]
        total = mapping(found.get("all"))
        if lines and total:
            lines.append(_line("all", total, "all", "rule"))
        if lines:
            body += Table(_columns(name), lines, f"Fertility by {name.lower()}").html()
    if not body:
        return None
    lead = (
        "How many tokens text becomes, on held-out text where there is some. Words are what stands "
        "between whitespace: in Chinese, Japanese or Thai, whole sentences."
    )
    keys = frozenset({"fertility", "bytes_per_token"})
    return Section("fertility", "Fertility", body, lead, ("result.json",), keys)


def _line(name: str, row: dict[str, object], where: str, css: str = "") -> Line:
    cells = [
        figure(row.get(k), write, f"result.json: fertility.{where}.{k}") for k, write in _FIGURES
    ]
    return Line([name, *cells], css)


def _columns(name: str) -> tuple[Column, ...]:
    return (
        Column(name, is_text=True),
        Column("Trained on"),
        Column("Measured on"),
        Column("Tokens"),
        Column("Tokens", "per byte"),
        Column("Tokens", "per character"),
        Column("Tokens", "per word"),
    )
