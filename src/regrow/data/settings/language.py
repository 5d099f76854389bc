"""Which languages are kept."""

from __future__ import annotations

from pydantic import Field, model_validator

from regrow.core.config import Config


class LanguageConfig(Config):
    """What language a text is in, told from its words; code is not looked at."""

    keep: tuple[str, ...] | None = None
    """Codes to keep, such as ``[en, de]``; null: languages are told and nothing is dropped."""
    min_score: float = Field(default=0.3, ge=0, le=1)
    """With ``keep``: the least probability of the language that was told."""

    @model_validator(mode="after")
    def _check(self) -> LanguageConfig:
        if self.keep == ():
            raise ValueError("keep: an empty list would drop all; leave it out to drop nothing")
        if self.keep is None and self.min_score != type(self).model_fields["min_score"].default:
            raise ValueError(
                f"min_score: {self.min_score:g} has no effect without keep, where nothing is "
                "dropped; set keep, or leave it out"
            )
        return self
