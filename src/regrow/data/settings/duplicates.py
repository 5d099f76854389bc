"""Which of several copies stays, and where copies are looked for; used by exact and by fuzzy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regrow.core.config import Config


class SourcePriority(Config):
    """The copy of the first of these sources stays."""

    source_priority: tuple[str, ...] = Field(min_length=1)
    """Names of sources, the best first; those that are not named come after, in their order."""


class Highest(Config):
    """The copy with the highest figure stays."""

    highest: str = Field(min_length=1)
    """A column of numbers that an earlier step makes, such as ``quality_high``."""


KeepPolicy = Literal["older", "newer", "longest"] | SourcePriority | Highest


class DuplicatesConfig(Config):
    """Copies of the same text, equal (``exact``) or nearly (``fuzzy``)."""

    keep: KeepPolicy | None = None
    """``older``, ``newer``, ``longest``, ``{source_priority: [...]}`` or ``{highest: COLUMN}``;
    null: the older of those with a date, else that of the source which stands first."""
    scope: Literal["global", "per_source"] = "global"
    """``global``: copies are looked for everywhere; ``per_source``: within each source alone."""
