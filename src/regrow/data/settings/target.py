"""Text of the kind that is wanted, for the steps that compare documents with it."""

from __future__ import annotations

from pydantic import model_validator

from regrow.core.config import Config


class TargetConfig(Config):
    """Text of the kind that is wanted: files, or some of the documents themselves."""

    files: tuple[str, ...] = ()
    """Files, folders or globs, of any kind that a source ``folder`` reads."""
    where: str | None = None
    """A condition on columns of earlier steps: "quality = 'High' AND toxicity < 0.3"."""

    @model_validator(mode="after")
    def _check(self) -> TargetConfig:
        if self.files and self.where is not None:
            raise ValueError("files and where are both set; set one of them")
        return self

    @property
    def given(self) -> bool:
        """Whether it names any text."""
        return bool(self.files) or self.where is not None
