"""eval.recall: how well a model finds again what it has read, at any length.

Lives here: token sequences for models without a tokenizer (:class:`AssociativeRecall`,
:class:`SelectiveCopying`), and tasks over text whose prompts fill a length in the model's own
tokens (:data:`RECALL_TASKS`). Everything is drawn afresh from (seed, index): there is nothing to
remember from training.
May touch: ``core``, ``eval.task``. No torch.

To add a task: a subclass of :class:`regrow.eval.recall.recall_task.RecallTask` in a file of its
own, and its line in :data:`RECALL_TASKS`.
"""

from __future__ import annotations

from regrow.eval.recall.associative import AssociativeRecall, AssociativeRecallTask
from regrow.eval.recall.copying import SelectiveCopying, SelectiveCopyingTask
from regrow.eval.recall.needle import MultiKeyNeedleTask, NeedleTask
from regrow.eval.recall.phonebook import PhonebookTask, ReversedPhonebookTask
from regrow.eval.recall.recall_task import RecallTask
from regrow.eval.recall.sequences import IGNORED, SequenceBatch, TokenSequences

__all__ = [
    "IGNORED",
    "RECALL_TASKS",
    "AssociativeRecall",
    "RecallTask",
    "SelectiveCopying",
    "SequenceBatch",
    "TokenSequences",
]

#: The tasks of ``suite=recall``, by name, as ``"module:class"`` lines of a registry.
RECALL_TASKS: dict[str, str] = {
    task.name: f"{task.__module__}:{task.__name__}"
    for task in (
        PhonebookTask,
        ReversedPhonebookTask,
        NeedleTask,
        MultiKeyNeedleTask,
        AssociativeRecallTask,
        SelectiveCopyingTask,
    )
}
