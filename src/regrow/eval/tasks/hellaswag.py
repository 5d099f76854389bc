"""HellaSwag (arXiv 1905.07830): which of four endings continues a description."""

from __future__ import annotations

import bz2
import zlib

from regrow.core.errors import InputError
from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings
from regrow.eval.tasks.rows import require_count, require_file

_LINES = 6  # context, index of the answer, four endings


class HellaSwag(ChoiceTask):
    """Validation set; the prompt is the context, ``Activity: what happened so far``."""

    name = "hellaswag"
    chance = 0.25
    size = 10_042
    files = "eval-hellaswag/hellaswag_val_full.txt.bz2"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = require_file(self.folder(settings))
        try:
            text = bz2.decompress(path.read_bytes()).decode()
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be read ({error})") from error
        lines = text.removesuffix("\n").split("\n")
        require_count(path, len(lines), _LINES * self.size, "lines")
        items: list[Item] = []
        for start in range(0, len(lines), _LINES):
            context, gold, *endings = lines[start : start + _LINES]
            if gold not in ("0", "1", "2", "3"):
                raise InputError(f"{path}:{start + 2}: the answer {gold!r} is none of 0 to 3")
            options = tuple((context, f" {ending}") for ending in endings)
            items.append(Choice(id=str(start // _LINES), options=options, answer=int(gold)))
        return items
