"""The heuristic rules: what each measures, and within which bounds a document stays.

Each rule is a column of the step ``filter``; a preset is bounds for some of them, in the order in
which a document is judged, cheap ones first. Documents of the kind ``code`` take the preset
``code``, all others one of the rest.

Sources: Rae et al., Scaling Language Models (2021), table A1 and appendix A.1 (``gopher``);
Penedo et al., The FineWeb Datasets (2024) (``fineweb``); Data, Data Everywhere (arXiv 2407.06380)
(``prose`` and ``code``, with what it took from C4 and from StarCoder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bounds = tuple[float | None, float | None]
Kind = Literal["prose", "code"]
PresetName = Literal["prose", "gopher", "fineweb"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One figure of a document.

    Args:
        name: of the column and in ``filter.rules``.
        says: what it measures.
        kind: of the documents that have it.
        needs: what must be known of the language: ``list`` its words and phrases, ``blanks`` that
            it is written with blanks between words, ``comments`` how the programming language
            marks them, ``tokenizer`` that the settings name one.
        top: where the histogram of it ends; values above count in the last bin.
        logarithmic: whether the histogram's bins grow.
    """

    name: str
    says: str
    kind: Kind = "prose"
    needs: Literal["", "list", "blanks", "comments", "tokenizer"] = ""
    top: float = 1.0
    logarithmic: bool = False


_ALL = (
    Rule("words", "words", needs="blanks", top=1e6, logarithmic=True),
    Rule("mean_word_length", "characters a word", needs="blanks", top=20),
    Rule("non_alphanumeric", "share of characters other than letters, digits, newlines and .,?!"),
    Rule("digits", "share of characters that are digits"),
    Rule("white_space", "share of characters that are white space"),
    Rule("parentheses", "share of characters that are brackets", top=0.4),
    Rule("urls", "share of characters within addresses of pages"),
    Rule("symbols_per_word", "hash signs or ellipses, whichever are more, a word", needs="blanks"),
    Rule("words_with_letter", "share of words that hold a letter", needs="blanks"),
    Rule("longest_word", "characters of the longest word", "prose", "blanks", 1e5, True),
    Rule("common_words", "how many common words of the language it holds", needs="list", top=12),
    Rule("bullet_lines", "share of lines that begin with a bullet"),
    Rule("ellipsis_lines", "share of lines that end with an ellipsis"),
    Rule("ended_lines", "share of lines that end with an end mark or a closing quote"),
    Rule("short_lines", "share of lines of at most 30 characters"),
    Rule(
        "boilerplate_lines",
        "share of lines with a phrase such as 'privacy policy'",
        "prose",
        "list",
    ),
    Rule("lines_per_word", "line ends a word", needs="blanks"),
    Rule("unique_lines", "share of lines that stand for the first time"),
    Rule("unique_line_characters", "share of characters in lines that stand for the first time"),
    Rule("unique_paragraphs", "share of paragraphs that stand for the first time"),
    Rule("unique_paragraph_characters", "share of characters in paragraphs of a first time"),
    *(
        Rule(
            f"top_{n}gram",
            f"share of characters in its commonest {n} words in a row",
            "prose",
            "blanks",
        )
        for n in (2, 3, 4)
    ),
    *(
        Rule(
            f"repeated_{n}gram",
            f"share of characters in {n} words in a row that stood before",
            "prose",
            "blanks",
        )
        for n in (5, 6, 7, 8, 9, 10)
    ),
    Rule("code_lines", "lines", "code", top=1e5, logarithmic=True),
    Rule("code_letters", "share of characters that are letters", "code"),
    Rule("code_comments", "share of characters in comments", "code", "comments"),
    Rule("characters_per_token", "characters a token of filter.tokenizer", "code", "tokenizer", 10),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _ALL}

_BASIC: dict[str, Bounds] = {
    "words": (50, 100_000),
    "mean_word_length": (3, 10),
}
_REPETITION: dict[str, Bounds] = {
    "unique_lines": (0.70, None),
    "unique_line_characters": (0.80, None),
    "unique_paragraphs": (0.70, None),
    "unique_paragraph_characters": (0.80, None),
    "top_2gram": (None, 0.20),
    "top_3gram": (None, 0.18),
    "top_4gram": (None, 0.16),
    "repeated_5gram": (None, 0.15),
    "repeated_6gram": (None, 0.14),
    "repeated_7gram": (None, 0.13),
    "repeated_8gram": (None, 0.12),
    "repeated_9gram": (None, 0.11),
    "repeated_10gram": (None, 0.10),
}
_GOPHER: dict[str, Bounds] = {
    **_BASIC,
    "symbols_per_word": (None, 0.10),
    "words_with_letter": (0.80, None),
    "common_words": (2, None),
    "bullet_lines": (None, 0.90),
    "ellipsis_lines": (None, 0.30),
    **_REPETITION,
}
PRESETS: dict[str, dict[str, Bounds]] = {
    "prose": {
        **_BASIC,
        "non_alphanumeric": (None, 0.25),
        "digits": (None, 0.15),
        "white_space": (None, 0.25),
        "parentheses": (None, 0.10),
        "urls": (None, 0.20),
        "symbols_per_word": (None, 0.10),
        "words_with_letter": (0.80, None),
        "longest_word": (None, 1000),
        "common_words": (2, None),
        "bullet_lines": (None, 0.90),
        "ellipsis_lines": (None, 0.30),
        "ended_lines": (0.15, None),
        "boilerplate_lines": (None, 0.40),
        **_REPETITION,
    },
    "gopher": _GOPHER,
    "fineweb": {
        **_GOPHER,
        "ended_lines": (0.12, None),
        "short_lines": (None, 0.67),
        "lines_per_word": (None, 0.30),
        "unique_line_characters": (0.99, None),
    },
    "code": {
        "code_lines": (10, 20_000),
        "code_letters": (0.25, None),
        "code_comments": (0.01, 0.85),
        "characters_per_token": (2.5, None),
    },
}


def bounds_of(
    preset: PresetName, overrides: dict[str, Bounds | None], tokenizer: bool
) -> dict[str, Bounds]:
    """The rules that judge, with their bounds, in their order.

    Args:
        preset: of documents that are no code.
        overrides: rule to other bounds, or to None for a rule that shall not judge.
        tokenizer: whether there is one; without, ``characters_per_token`` cannot judge.
    """
    chosen: dict[str, Bounds | None] = {**PRESETS[preset], **PRESETS["code"], **overrides}
    if not tokenizer:
        chosen["characters_per_token"] = None
    found: dict[str, Bounds] = {}
    for name in RULES:
        bounds = chosen.get(name)
        if bounds is not None:
            found[name] = bounds
    return found
