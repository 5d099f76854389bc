"""Near duplicates: what is compared, and from which similarity on it counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from regrow.core.config import Config

Unit = Literal["word", "character"]


class ShingleConfig(Config):
    """What a text is cut into."""

    unit: Unit
    """``word``, or ``character`` for languages that put no blanks between words."""
    n: int = Field(ge=1, le=200)
    """Words or characters of one shingle."""


class FuzzyConfig(Config):
    """MinHash signatures, cut into bands: texts that share a band are taken as near duplicates."""

    preset: Literal["web", "strict"] = "web"
    """``web``: 14 bands of 8 over 5 words; ``strict``: 20 bands of 13 over 24 characters."""
    threshold: float | None = Field(default=None, ge=0.1, le=0.99)
    """Jaccard similarity from which two texts are near duplicates; bands and rows are chosen for
    it. Null: the preset's bands, which are made for 0.8."""
    hashes: int | None = Field(default=None, ge=8, le=1024)
    """Hashes of a signature at most, when they are chosen for ``threshold``; null: the preset's."""
    bands: int | None = Field(default=None, ge=1, le=256)
    """More bands find more; null: of the preset, or chosen."""
    rows: int | None = Field(default=None, ge=1, le=128)
    """Hashes of a band; more rows are stricter; null: of the preset, or chosen."""
    shingle: ShingleConfig | None = None
    """What a text is cut into; null: the preset's."""
    verify: Literal["none", "exact"] = "none"
    """``exact``: compute the similarity of each copy with the first of its cluster, and cut off
    those that are more than 0.1 below the threshold."""

    @model_validator(mode="after")
    def _check(self) -> FuzzyConfig:
        if (self.bands is None) != (self.rows is None):
            given, other = ("bands", "rows") if self.rows is None else ("rows", "bands")
            raise ValueError(f"{given} is set without {other}; set both or neither")
        if self.bands is not None and self.hashes is not None:
            raise ValueError(
                f"hashes: {self.hashes} has no effect beside bands and rows, which make "
                f"{self.bands * (self.rows or 0)}; leave it out"
            )
        if self.hashes is not None and self.threshold is None:
            raise ValueError(
                f"hashes: {self.hashes} has no effect without threshold, for which bands and rows "
                "are chosen; set threshold, such as 0.8"
            )
        return self
