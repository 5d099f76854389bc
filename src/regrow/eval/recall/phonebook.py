"""Phonebook: the number of one name out of a list.

Standard: the list, two worked examples, the name. Reversed: the name is given before the list as
well, so whoever reads it can let the other lines go.

Source: Mamba-2-Hybrid (arXiv 2406.07887), the Phonebook task.
"""

from __future__ import annotations

import numpy as np

from regrow.eval.recall.recall_task import Question, RecallTask
from regrow.eval.recall.words import names, numbers

EXAMPLES = 2
"""Lines that are repeated as worked examples."""


def phonebook(
    entries: list[str], phones: list[str], asked: int, examples: list[int], announced: bool
) -> Question:
    """A prompt of a given list.

    Args:
        entries: the names.
        phones: their numbers.
        asked: which line is asked for.
        examples: lines that are shown again, with their numbers.
        announced: whether the asked name stands before the list too.
    """
    lines = [f"{name}: {phone}" for name, phone in zip(entries, phones, strict=True)]
    before = [f"Look up {entries[asked]}.", ""] if announced else []
    shown = [lines[i] for i in examples]
    prompt = "\n".join([*before, *lines, "", *shown, f"{entries[asked]}:"])
    extra = {"name": entries[asked], "position": asked}
    return Question(prompt, phones[asked], extra)


class PhonebookTask(RecallTask):
    """Lines ``Ann Lee: 4821``; names and numbers are distinct. Units are lines."""

    name = "phonebook"
    chance = 1e-4
    least = EXAMPLES + 1
    digits = 4
    announced = False

    def question(self, units: int, generator: np.random.Generator) -> Question:
        """``units`` lines."""
        # Streams of their own, so that a longer list begins like a shorter one.
        name_stream, number_stream = generator.spawn(2)
        chosen = generator.permutation(units)[: EXAMPLES + 1]
        return phonebook(
            names(units, name_stream),
            numbers(units, self.digits, number_stream),
            int(chosen[0]),
            [int(i) for i in chosen[1:]],
            self.announced,
        )


class ReversedPhonebookTask(PhonebookTask):
    """As the phonebook, with the name in front of the list."""

    name = "phonebook_reversed"
    announced = True
