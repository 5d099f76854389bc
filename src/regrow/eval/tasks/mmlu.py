"""MMLU (arXiv 2009.03300): 57 subjects from primary school to professions, four options each."""

from __future__ import annotations

import csv
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from regrow.core.errors import InputError
from regrow.eval.task import Choice, ChoiceTask, Item, Metrics, TaskSettings
from regrow.eval.tasks.rows import require_count, require_file

#: Subjects by category, as lm-eval groups them.
CATEGORIES = {
    "stem": "abstract_algebra anatomy astronomy college_biology college_chemistry "
    "college_computer_science college_mathematics college_physics computer_security "
    "conceptual_physics electrical_engineering elementary_mathematics high_school_biology "
    "high_school_chemistry high_school_computer_science high_school_mathematics "
    "high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history "
    "high_school_world_history international_law jurisprudence logical_fallacies moral_disputes "
    "moral_scenarios philosophy prehistory professional_law world_religions",
    "social_sciences": "econometrics high_school_geography "
    "high_school_government_and_politics high_school_macroeconomics high_school_microeconomics "
    "high_school_psychology human_sexuality professional_psychology public_relations "
    "security_studies sociology us_foreign_policy",
    "other": "business_ethics clinical_knowledge college_medicine global_facts human_aging "
    "management marketing medical_genetics miscellaneous nutrition professional_accounting "
    "professional_medicine virology",
}
SUBJECTS = {s: category for category, names in CATEGORIES.items() for s in names.split()}
_LETTERS = "ABCD"
_DEV = 5
_COLUMNS = 6  # question, four options, index or letter of the answer

Row = tuple[str, list[str], int]


class _Mmlu(ChoiceTask):
    """Test set, grouped by subject, with the subject's first ``dev`` questions solved in front."""

    chance = 0.25
    size = 14_042
    files = "eval-mmlu"
    shots = _DEV
    max_shots = _DEV
    opening: ClassVar[str]

    @abstractmethod
    def question(self, row: Row) -> str:
        """The prompt of a question, up to where its answer begins."""

    @abstractmethod
    def answers(self, row: Row) -> list[str]:
        """What may follow the prompt."""

    def items(self, settings: TaskSettings) -> list[Item]:
        folder = self.folder(settings)
        shots = self.shots if settings.shots is None else settings.shots
        items: list[Item] = []
        for subject in sorted(SUBJECTS):
            solved = _rows(folder / "dev" / f"{subject}_dev.csv")
            require_count(folder / "dev" / f"{subject}_dev.csv", len(solved), _DEV)
            opening = self.opening.format(subject=subject.replace("_", " "))
            for row in solved[:shots]:
                opening += f"{self.question(row)}{self.answers(row)[row[2]]}\n\n"
            for index, row in enumerate(_rows(folder / "test" / f"{subject}_test.csv")):
                prompt = opening + self.question(row)
                options = tuple((prompt, answer) for answer in self.answers(row))
                items.append(self.item(f"{subject}/{index}", subject, options, row[2]))
        require_count(folder / "test", len(items), self.size)
        return items

    def item(
        self, id_: str, subject: str, options: tuple[tuple[str, str], ...], answer: int
    ) -> Choice:
        """One question."""
        return Choice(id=id_, group=subject, options=options, answer=answer)

    def aggregate(self, items: Sequence[Item], figures: Sequence[Metrics]) -> dict[str, Any]:
        """Over questions, by subject and by category; ``subject_mean`` over subjects."""
        whole = super().aggregate(items, figures)
        by_category: dict[str, list[Metrics]] = {}
        for item, one in zip(items, figures, strict=True):
            by_category.setdefault(SUBJECTS[item.group], []).append(one)
        whole["categories"] = {name: self.summarise(of) for name, of in by_category.items()}
        subjects = [of[self.metric] for of in whole["groups"].values()]
        whole["subject_mean"] = math.fsum(subjects) / len(subjects)
        return whole


class MmluLetters(_Mmlu):
    """The options stand in the prompt, and their letters are compared."""

    name = "mmlu"
    metric = "acc"
    opening = "The following are multiple choice questions (with answers) about {subject}.\n\n"

    def question(self, row: Row) -> str:
        listed = "".join(f"{x}. {o}\n" for x, o in zip(_LETTERS, row[1], strict=True))
        return f"{row[0].strip()}\n{listed}Answer:"

    def answers(self, row: Row) -> list[str]:
        return [f" {letter}" for letter in _LETTERS]


class MmluCloze(_Mmlu):
    """The options do not stand in the prompt, and their texts are compared.

    What a model knows without being able to point at a letter shows here only (arXiv 2406.07887).
    """

    name = "mmlu_cloze"
    opening = "The following are questions (with answers) about {subject}.\n\n"

    def question(self, row: Row) -> str:
        return f"Question: {row[0].strip()}\nAnswer:"

    def answers(self, row: Row) -> list[str]:
        return [f" {option}" for option in row[1]]

    def item(
        self, id_: str, subject: str, options: tuple[tuple[str, str], ...], answer: int
    ) -> Choice:
        return Choice(
            id=id_, group=subject, options=options, answer=answer, unconditional="Answer:"
        )


def _rows(path: Path) -> list[Row]:
    """Questions of one subject; a header, where there is one, is none."""
    rows: list[Row] = []
    try:
        with require_file(path).open(encoding="utf-8", newline="") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if number == 1 and cells[:1] == ["question"]:
                    continue
                if len(cells) != _COLUMNS:
                    raise InputError(f"{path}: row {number} has {len(cells)} columns, not 6")
                answer = _LETTERS.find(cells[5]) if cells[5] in set(_LETTERS) else cells[5]
                if str(answer) not in ("0", "1", "2", "3"):
                    raise InputError(f"{path}: row {number} has the answer {cells[5]!r}")
                rows.append((cells[0], cells[1:5], int(answer)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8 ({error})") from error
    return rows
