"""A needle in a haystack: one sentence with a number, among many that say nothing.

Source: single-key and multi-key retrieval of RULER (arXiv 2404.06654), over sentences made here.
"""

from __future__ import annotations

import numpy as np

from regrow.eval.recall.recall_task import Question, RecallTask
from regrow.eval.recall.words import CITIES, numbers, sentences


class NeedleTask(RecallTask):
    """``The number of Lisbon is 482193.`` at a random depth; units are sentences around it."""

    name = "needle"
    chance = 1e-6
    digits = 6
    needles = 1

    def question(self, units: int, generator: np.random.Generator) -> Question:
        """``units`` sentences besides the needles."""
        hay_stream, number_stream = generator.spawn(2)
        cities = [CITIES[i] for i in generator.permutation(len(CITIES))[: self.needles]]
        values = numbers(self.needles, self.digits, number_stream)
        text = sentences(units, hay_stream)
        # Places before which needles are put, from the back so that earlier ones stay right.
        depths = generator.integers(units + 1, size=self.needles)
        for needle in np.argsort(-depths, kind="stable"):
            sentence = f"The number of {cities[needle]} is {values[needle]}."
            text.insert(int(depths[needle]), sentence)
        prompt = " ".join(text) + f"\nThe number of {cities[0]} is"
        extra = {"key": cities[0], "depth": round(float(depths[0]) / units, 4)}
        return Question(prompt, values[0], extra)


class MultiKeyNeedleTask(NeedleTask):
    """Four needles of different cities, of which one is asked for."""

    name = "needle_multikey"
    needles = 4
