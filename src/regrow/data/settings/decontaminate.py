"""What documents must not share with evaluation sets."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.data.settings.engine import EngineConfig
from regrow.data.settings.sources import Name, Place


class EvaluationSetConfig(Config):
    """A set that models are evaluated with."""

    name: Name
    """What it is called in reasons and tables; a public set of this name needs no path."""
    path: Place | None = None
    """A ``.jsonl``, ``.parquet`` or ``.txt`` file, a folder of them, a glob or a URL."""
    fields: tuple[str, ...] = ()
    """Fields of its records whose text is looked for; none: every text of a record."""

    @model_validator(mode="after")
    def _check(self) -> EvaluationSetConfig:
        if self.path is None and self.fields:
            raise ValueError("fields: has no effect without path; a public set has fields of its")
        return self


class OverlapConfig(Config):
    """Drops documents that hold a run of words of an evaluation set."""

    against: tuple[str | EvaluationSetConfig, ...] = ()
    """Sets: names of public ones (``gsm8k``), paths, or ``{name, path, fields}``."""
    data: Path | None = None
    """The folder that holds the public sets; by default the one that REGROW_DATA names."""
    words: int = Field(default=13, ge=5, le=64)
    """Words in a row that are too many to be shared."""
    short_words: int = Field(default=8, ge=4, le=64)
    """A text of fewer than ``words`` is looked for whole if it has so many; below it is not."""

    @model_validator(mode="after")
    def _check(self) -> OverlapConfig:
        if self.short_words > self.words:
            raise ValueError(f"short_words: {self.short_words} is more than words, {self.words}")
        names = [one.name for one in self.sets()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"against: the set {twice[0]!r} stands twice; rename one")
        return self

    def sets(self) -> list[EvaluationSetConfig]:
        """The sets, those that are given as a word among them.

        A word is a path, which names its set, if it has a dot, a slash or an asterisk.
        """
        return [_named(one) if isinstance(one, str) else one for one in self.against]


def _named(word: str) -> EvaluationSetConfig:
    if not any(sign in word for sign in "./*"):
        return EvaluationSetConfig(name=word)
    stem = Path(word).name.partition(".")[0]
    name = "".join(c if c.isalnum() or c in "_-" else "-" for c in stem).strip("-_")
    return EvaluationSetConfig(name=name or "set", path=word)


class DecontaminateConfig(OverlapConfig):
    """Take documents of evaluation sets out of a finished curation."""

    documents: Path
    """A run folder of ``curate run``, or its documents folder."""
    engine: EngineConfig = EngineConfig()
    """What the tables run on."""
