"""Selection of what looks like a target: which target, how much stays, and how it is ranked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.data.settings.target import TargetConfig

Share = Annotated[float, Field(gt=0, le=1)]


class SelectConfig(Config):
    """DSIR: documents are drawn by how much likelier their words are in a target."""

    target: TargetConfig = TargetConfig()
    """What is wanted; needed where the step is used."""
    keep_fraction: Share | dict[str, Share] | None = None
    """Share of the documents that stays, one for all sources or by source; a source that is not
    named is left alone. Needed where the step is used."""
    scope: Literal["per_source", "global"] = "per_source"
    """``per_source``: each source is compared and ranked by itself; ``global``: all together."""
    length: Literal["bucketed", "mean", "sum"] = "bucketed"
    """What is ranked. ``sum``: log weights as they are, which grow with the text; ``bucketed``: the
    same, but only among documents of about the same length; ``mean``: a token's."""
    noise: bool = True
    """Whether documents are drawn in proportion to their weights; false: the highest weights."""
    min_tokens: int = Field(default=100, ge=0)
    """Documents with fewer tokens go: their weights say little."""
    laplace: float = Field(default=0.0, ge=0)
    """Added to the target's count of each bucket; more where the target is small."""

    @model_validator(mode="after")
    def _check(self) -> SelectConfig:
        if self.scope == "global" and isinstance(self.keep_fraction, dict):
            raise ValueError(
                "keep_fraction: shares by source have no effect with scope=global; give one number"
            )
        return self
