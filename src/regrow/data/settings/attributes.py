"""Which classifiers tell the attributes of documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.data.attributes.kinds import ATTRIBUTES, get_attribute


class ClassifierConfig(Config):
    """One classifier; its path alone may stand for it."""

    path: Path
    """A run of ``curate annotate``, or the folder of a Hugging Face sequence classifier."""
    labels: dict[str, str] = {}
    """The classifier's own labels to the attribute's classes, where they differ."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where a Hugging Face classifier works; a linear one always works on the CPU."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, (str, Path)) else value


def _known_names(value: dict[str, ClassifierConfig]) -> dict[str, ClassifierConfig]:
    for name in value:
        try:
            get_attribute(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return value


AttributesConfig = Annotated[
    dict[str, ClassifierConfig], Field(default={}), AfterValidator(_known_names)
]
"""Attribute to classifier: ``quality``, ``domain``, ``speech``, ``toxicity``, or one of yours."""


def columns_without_classifier(columns: Iterable[str], given: Collection[str]) -> list[str]:
    """A message for each column that only an attribute could give, but has no classifier.

    Args:
        columns: that a condition, a bucket or a target reads.
        given: attributes with a classifier.
    """
    problems = []
    for column in columns:
        owner = next((a for a in ATTRIBUTES if column == a or column.startswith(f"{a}_")), "")
        if owner and owner not in given:
            problems.append(
                f"{column} is told by a classifier of {owner}, but attributes names none; set "
                f"attributes.{owner} to the run of curate annotate that made one"
            )
    return problems
