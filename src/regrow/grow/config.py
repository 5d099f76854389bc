"""Settings of recipes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.registry import nearest

Kind = Literal[
    "base",
    "continued",
    "pruned",
    "distilled",
    "scratch",
    "embedder",
    "ranker",
    "captioner",
    "text-to-audio",
]


class StageConfig(Config):
    """One stage of a recipe: a verb with its settings."""

    verb: str
    """The verb to run."""
    config: dict[str, Any] = {}
    """The verb's settings; ``${stage}`` stands for the run folder of another stage."""
    sweep: dict[str, list[Any]] = Field(default={}, max_length=1)
    """One setting and the values to try, ``{optim.lr: [1e-3, 2e-3]}``; the best is kept."""
    by: str = "loss"
    """The figure of the verb's result by which a sweep chooses; the lowest wins."""
    after: tuple[str, ...] = ()
    """Stages that must be finished first, beside those that the settings name."""


class FamilyModelConfig(Config):
    """One model of the family's table."""

    name: str
    """Its name on the page and in ``result.json``."""
    stage: str
    """The stage that makes it; of a stage that makes several, with the folder of this one:
    ``children/half``."""
    kind: Kind
    """How it came to be."""
    twin: str | None = None
    """The model of equal shape and tokens that was trained from scratch."""


class FamilyConfig(Config):
    """What the family's page and ``result.json`` tell of."""

    evaluation: str
    """The evaluate stage whose figures stand in the table."""
    models: tuple[FamilyModelConfig, ...]
    """The members, ancestors first."""


def stage_of(place: str) -> str:
    """The stage that a model's place names: ``children`` of ``children/half``."""
    return place.partition("/")[0]


class RecipeConfig(Config):
    """A family as a list of stages, each in its own run folder under the family's."""

    name: str
    """Title of the family's page."""
    stages: dict[str, StageConfig]
    """Stage name to verb and settings; run in the order of their needs."""
    family: FamilyConfig | None = None
    """The table of models; without it the recipe just runs its stages."""

    @model_validator(mode="after")
    def _names_exist(self) -> RecipeConfig:
        if self.family is None:
            return self
        names = {model.name for model in self.family.models}
        wanted: list[tuple[str, Collection[str], str]] = [
            (stage_of(m.stage), self.stages, f"model {m.name}: stage") for m in self.family.models
        ]
        wanted.append((self.family.evaluation, self.stages, "family.evaluation: stage"))
        for name, known, what in wanted:
            if name not in known:
                raise ValueError(f"{what} {name!r} is not among the stages")
        for model in self.family.models:
            self._check_part(model)
            if model.twin is not None and model.twin not in names:
                raise ValueError(f"model {model.name}: twin {model.twin!r} is not among the models")
        return self

    def _check_part(self, model: FamilyModelConfig) -> None:
        """Refuse a child that its stage does not make: it would be missed after the last stage."""
        _, _, part = model.stage.partition("/")
        stage = self.stages[stage_of(model.stage)]
        children = stage.config.get("children")
        if part and stage.verb == "family" and isinstance(children, dict):
            child = part.partition("/")[0]
            if child not in children:
                raise ValueError(
                    f"model {model.name}: stage {model.stage!r}: no child of this name"
                    f"{nearest(child, list(children))} (children: {', '.join(children)})"
                )


class SweepConfig(Config):
    """One verb, once for each value of one setting."""

    of: str
    """The verb to run."""
    config: dict[str, Any]
    """Its settings but for the one that varies."""
    key: str
    """The setting that varies, by its dotted path."""
    values: list[Any]
    """The values to try."""
    by: str = "loss"
    """The figure of the verb's result that decides; the lowest wins."""
