"""Questions and answers from docstrings: a name with its signature, and the first sentence.

The split of a pair is that of its module's code, so a model has not read the answers that it is
asked for. An answer that stands anywhere before, in whatever split, is dropped: train comes first.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

SPLITS = ("train", "validation", "test")
MIN_WORDS, MAX_CHARACTERS, MAX_SIGNATURE = 3, 200, 120
_SENTENCE = re.compile(r"^(.*?[.!?])(\s|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its answer."""

    module: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        """What is trained on and scored."""
        return f"{self.question} {self.answer}\n"


def pairs(module: str, source: str) -> Iterator[Pair]:
    """The pairs of one module's functions, methods and classes; none where it cannot be parsed.

    Args:
        module: its dotted name.
        source: its code; parsed, never executed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return
    yield from _members(module, module, tree.body)


def _members(module: str, owner: str, body: list[ast.stmt]) -> Iterator[Pair]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            answer = first_sentence(ast.get_docstring(node) or "")
            if answer and not node.name.startswith("__"):
                yield Pair(module, _question(owner, node), answer)
            if isinstance(node, ast.ClassDef):
                yield from _members(module, f"{owner}.{node.name}", node.body)


def _question(owner: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"Question: what is the class {owner}.{node.name}?\nAnswer:"
    signature = ast.unparse(node.args)
    if len(signature) > MAX_SIGNATURE:
        signature = signature[:MAX_SIGNATURE].rpartition(",")[0] + ", ..."
    return f"Question: what does {owner}.{node.name}({signature}) do?\nAnswer:"


def first_sentence(docstring: str) -> str:
    """The first sentence of the first paragraph on one line; empty where it is no usable answer."""
    paragraph = " ".join(docstring.strip().partition("\n\n")[0].split())
    found = _SENTENCE.match(paragraph)
    sentence = (found.group(1) if found else paragraph).strip()
    if len(sentence.split()) < MIN_WORDS or len(sentence) > MAX_CHARACTERS:
        return ""
    return sentence


def unique(by_split: dict[str, Iterable[Pair]]) -> dict[str, list[Pair]]:
    """Each split without the pairs whose question or answer stood before, train first."""
    seen: set[str] = set()
    kept: dict[str, list[Pair]] = {}
    for split in SPLITS:
        kept[split] = []
        for pair in sorted(by_split.get(split, ()), key=lambda p: (p.module, p.question)):
            keys = {_plain(pair.question), _plain(pair.answer)}
            if not keys & seen:
                kept[split].append(pair)
            seen |= keys
    return kept


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with its answer among others."""

    question: str
    options: tuple[str, ...]
    right: int


def choices(found: list[Pair], seed: int, options: int = 4) -> list[Choice]:
    """A choice for each pair: its answer and those of others of the same kind, in random order.

    Args:
        found: pairs of one split.
        seed: of the draws.
        options: how many there are.
    """
    made = []
    for index, pair in enumerate(found):
        random = Random(f"{seed}-{index}")
        kind = pair.question.split()[2]  # functions are not told apart from classes by their form
        others = [p.answer for p in found if p is not pair and p.question.split()[2] == kind]
        if len(others) < options - 1:
            continue
        answers = [pair.answer, *random.sample(others, options - 1)]
        random.shuffle(answers)
        made.append(Choice(pair.question, tuple(answers), answers.index(pair.answer)))
    return made
