"""Tatoeba: which of four sentences translates an English one, in 112 languages."""

from __future__ import annotations

import random
from pathlib import Path

from regrow.core.errors import InputError
from regrow.core.seed import derive
from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import require_count, require_file

_LANGUAGES = 112
_OPTIONS = 4
_NEAREST = 16  # at most so many sentences of the closest lengths, from which three are drawn


class Tatoeba(ChoiceTask):
    """Sentence pairs as LASER's authors selected them, grouped by language.

    The prompt is ``English: {sentence}\\nTranslation:``. Wrong options are other sentences of the
    language, drawn by seed from those of the closest lengths, so that length tells little. The
    headline is the mean over pairs; languages have up to 1,000 each.
    """

    name = "tatoeba"
    metric = "acc"
    chance = 1 / _OPTIONS
    size = 88_877
    files = "tatoeba-laser"

    def items(self, settings: TaskSettings) -> list[Item]:
        folder = require_file(self.folder(settings))
        codes = sorted(path.name.split(".")[1][:3] for path in folder.glob("tatoeba.*-eng.eng"))
        require_count(folder, len(codes), _LANGUAGES, "languages")
        items: list[Item] = []
        for code in codes:
            english, other = (
                _lines(folder / f"tatoeba.{code}-eng.{side}") for side in ("eng", code)
            )
            if len(english) != len(other):
                raise InputError(
                    f"{folder}: {code} has {len(english)} English sentences and {len(other)} others"
                )
            draw = random.Random(derive(settings.seed, self.name, code))
            items += language_items(code, english, other, draw)
        require_count(folder, len(items), self.size, "pairs")
        return items


def _lines(path: Path) -> list[str]:
    try:
        text = require_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error})") from error
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def language_items(
    code: str, english: list[str], other: list[str], draw: random.Random
) -> list[Item]:
    """One item a pair."""
    sizes = [len(text.encode()) for text in other]
    by_size = sorted(range(len(other)), key=sizes.__getitem__)
    items: list[Item] = []
    for place, index in enumerate(by_size):
        source, right, size = english[index], other[index], sizes[index]
        around = by_size[max(0, place - _NEAREST) : place + _NEAREST + 1]
        around.sort(key=lambda at, size=size: abs(sizes[at] - size))  # type: ignore[misc]
        # Neither the same words nor another translation of the same sentence may be called wrong.
        near = {other[at]: None for at in around if other[at] != right and english[at] != source}
        pool = list(near)[:_NEAREST]
        if len(pool) < _OPTIONS - 1:
            raise InputError(f"tatoeba {code}: too few sentences that differ from {right!r}")
        wrong = draw.sample(pool, _OPTIONS - 1)
        answer = draw.randrange(_OPTIONS)
        texts = [*wrong[:answer], right, *wrong[answer:]]
        prompt = f"English: {source}\nTranslation:"
        items.append(
            Choice(
                id=f"{code}/{index}",
                group=code,
                options=tuple((prompt, f" {text}") for text in texts),
                answer=answer,
                unconditional="Translation:",
            )
        )
    return sorted(items, key=lambda item: int(item.id.rpartition("/")[2]))
