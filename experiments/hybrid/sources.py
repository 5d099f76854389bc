"""What the models are trained and tested on; every sample is a function of (seed, number)."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from experiments.hybrid.training import Batch

from regrow.core.seed import derive
from regrow.eval.recall import IGNORED, AssociativeRecall, SelectiveCopying, TokenSequences
from regrow.eval.recall.phonebook import EXAMPLES, phonebook
from regrow.eval.recall.words import numbers


def _names(text: str) -> list[str]:
    return text.split()


#: Names of the small phonebook: one short word each, and no two end in the same letter.
NAMES = _names(
    "Ada Bob Mac Ned Joe Alf Meg Eli Raj Zak Sal Tim Ben Leo Kip Gus Pat Lou Kev Max Amy Liz"
)
_CHARACTERS = sorted({*"".join(NAMES), *"0123456789:. \n", *"Look up"})
PAD = len(_CHARACTERS)
CHARACTERS = PAD + 1
_TABLE = {character: index for index, character in enumerate(_CHARACTERS)}


def encode(text: str) -> list[int]:
    """Ids of a prompt's characters."""
    return [_TABLE[character] for character in text]


def _batch(sequences: TokenSequences, seed: int, first: int, count: int) -> Batch:
    made = sequences.batch(seed, first, count)
    return Batch(torch.from_numpy(made.tokens), torch.from_numpy(made.targets))


class Recall:
    """Multi-query associative recall; the size is the number of pairs."""

    vocab_size = AssociativeRecall(1).vocab_size

    def batch(self, seed: int, first: int, count: int, size: int) -> Batch:
        """``count`` sequences of ``size`` pairs."""
        return _batch(AssociativeRecall(size), seed, first, count)


class Copying:
    """Selective copying of symbols in eight times as much noise; the size is their number."""

    vocab_size = SelectiveCopying().vocab_size

    def batch(self, seed: int, first: int, count: int, size: int) -> Batch:
        """``count`` sequences with ``size`` symbols."""
        return _batch(SelectiveCopying(data=size, noise=8 * size), seed, first, count)


@dataclass(frozen=True, slots=True)
class Phonebook:
    """A phonebook in characters; the size is the number of lines.

    Args:
        announced: whether the asked name stands in front of the list too.
        testing: only the question counts; in training the digits of the two examples as well,
            which gives the loss more to learn from.
    """

    announced: bool
    testing: bool = False

    vocab_size = CHARACTERS
    digits = 4

    def batch(self, seed: int, first: int, count: int, size: int) -> Batch:
        """``count`` phonebooks of ``size`` lines."""
        rows = [self._row(derive(seed, "phonebook", k), size) for k in range(first, first + count)]
        longest = max(len(ids) for ids, _ in rows) - 1
        tokens = torch.full((count, longest), PAD)
        targets = torch.full((count, longest), IGNORED)
        for row, (ids, answers) in enumerate(rows):
            tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            for begin in answers:
                digits = torch.tensor(ids[begin : begin + self.digits])
                targets[row, begin - 1 : begin - 1 + self.digits] = digits
        return Batch(tokens, targets)

    def _row(self, seed: int, size: int) -> tuple[list[int], list[int]]:
        """Ids of a whole text, and where the digits of each answer begin."""
        generator = np.random.default_rng(seed)
        entries = [NAMES[i] for i in generator.permutation(len(NAMES))[:size]]
        phones = numbers(size, self.digits, generator)
        asked, *examples = (int(i) for i in generator.permutation(size)[: EXAMPLES + 1])
        question = phonebook(entries, phones, asked, examples, self.announced)
        text = f"{question.prompt} {question.answer}"
        answers = [len(text) - self.digits]
        if not self.testing:
            end = text.rindex("\n")
            for _ in examples:
                answers.append(end - self.digits)
                end = text.rindex("\n", 0, end)
        return encode(text), answers


def library_text(limit: int = 8 << 20) -> bytes:
    """Tiny Shakespeare where REGROW_DATA holds it, otherwise sources of Python's own library."""
    folder = os.environ.get("REGROW_DATA")
    if folder and (play := Path(folder) / "tinyshakespeare" / "input.txt").is_file():
        return play.read_bytes()[:limit]
    library = Path(sysconfig.get_paths()["stdlib"])
    made = bytearray()
    for path in sorted(library.glob("*.py")):
        made += path.read_bytes()
        if len(made) > limit:
            break
    return bytes(made[:limit])


class Text:
    """Windows of a text in bytes, at random places; the size is the number of bytes."""

    vocab_size = 256

    def __init__(self, text: bytes) -> None:
        self._bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        cut = len(text) * 9 // 10
        self.train, self.held_out = self._bytes[:cut], self._bytes[cut:]

    def batch(self, seed: int, first: int, count: int, size: int) -> Batch:
        """``count`` windows of ``size`` bytes of the training part."""
        generator = np.random.default_rng(derive(seed, "text", first))
        places = generator.integers(len(self.train) - size, size=count)
        rows = torch.stack([self.train[p : p + size + 1] for p in places]).long()
        return Batch(rows[:, :-1], rows[:, 1:])

    def windows(self, size: int, limit: int) -> Batch:
        """The held-out part, window after window, ``limit`` bytes at most."""
        count = min(limit, len(self.held_out) - 1) // size
        tokens = self.held_out[: count * size].view(count, size).long()
        targets = self.held_out[1 : count * size + 1].view(count, size).long()
        return Batch(tokens, targets)
