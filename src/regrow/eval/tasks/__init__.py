"""eval.tasks: public benchmarks, one file each, read from a data folder.

Lives here: the tasks of :data:`TASKS`, and how their files are read (``rows.py``). Prompts stand as
they are in the tasks' files.
May touch: ``core``, ``io``, ``eval.task``. No torch.

To add a task: a subclass of :class:`regrow.eval.task.Task` in a file of its own, which asserts the
number of items of the public set, and its line in :data:`TASKS`.
"""

from __future__ import annotations

from regrow.core.registry import Registry
from regrow.eval.recall import RECALL_TASKS
from regrow.eval.task import Task

_HERE = "regrow.eval.tasks"
_PUBLIC = {
    "mmlu": f"{_HERE}.mmlu:MmluLetters",
    "mmlu_cloze": f"{_HERE}.mmlu:MmluCloze",
    "hellaswag": f"{_HERE}.hellaswag:HellaSwag",
    "piqa": f"{_HERE}.piqa:Piqa",
    "winogrande": f"{_HERE}.winogrande:WinoGrande",
    "openbookqa": f"{_HERE}.openbookqa:OpenBookQa",
    "copa": f"{_HERE}.copa:Copa",
    "siqa": f"{_HERE}.letters:SocialIqa",
    "commonsense_qa": f"{_HERE}.letters:CommonsenseQa",
    "lambada": f"{_HERE}.lambada:Lambada",
    "gsm8k": f"{_HERE}.gsm8k:Gsm8k",
    "new_testament": f"{_HERE}.new_testament:NewTestament",
    "udhr": f"{_HERE}.udhr:Udhr",
    "tatoeba": f"{_HERE}.tatoeba:Tatoeba",
}

TASKS: Registry[type[Task]] = Registry("task", _PUBLIC | RECALL_TASKS)

#: Named lists of tasks, for ``suite=NAME``.
SUITES: dict[str, tuple[str, ...]] = {
    "recall": tuple(RECALL_TASKS),
    "common_sense": ("hellaswag", "piqa", "winogrande", "openbookqa", "copa"),
    "multilingual": ("new_testament", "udhr", "tatoeba"),
}
