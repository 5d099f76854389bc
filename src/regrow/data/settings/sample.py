"""How often documents are read: buckets, a method, and a budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from regrow.core.config import Config

Method = Literal["proportional", "uniform", "alpha", "unimax", "manual"]
#: Share of the tokens below which a bucket of an attribute is no bucket of its own.
MIN_SHARE = 0.005


def _whole(value: Any) -> Any:
    """``1e9`` is how people write a billion; 1.5 tokens remain an error."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class WeightsConfig(Config):
    """How a budget of tokens is spread over buckets."""

    buckets: tuple[str, ...] = Field(default=("source",), min_length=1)
    """Columns of the documents whose values, or combinations of values, are the buckets."""
    groups: dict[str, dict[str, tuple[str, ...]]] = {}
    """Column to group to the values that it takes in; other values stay by themselves."""
    total_tokens: Annotated[int, BeforeValidator(_whole)] | None = Field(default=None, gt=0)
    """Tokens in all; null: as many as there are."""
    method: Method = "proportional"
    """``proportional`` to the tokens of a bucket, ``uniform``, ``alpha`` (tokens to the power
    ``alpha``), ``unimax`` (uniform, as far as ``max_epochs`` lets), ``manual`` (``weights``)."""
    alpha: float | None = Field(default=None, gt=0)
    """Below 1 flattens, above 1 sharpens: 1.3 does well for code. For ``method=alpha``."""
    max_epochs: float | None = Field(default=None, gt=0)
    """How often a bucket is read at most; what it cannot take is spread over the others."""
    multipliers: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = {}
    """Column to value to a factor, 1 where none is given; 0 leaves out."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Bucket to its share, for ``method=manual``; they need not sum to 1, 0 leaves out."""
    allow_short: bool = False
    """Whether fewer tokens than asked for will do, where ``max_epochs`` allows no more."""
    min_share: float | None = Field(default=None, ge=0, lt=1)
    """Buckets with a smaller share of the tokens are merged into ``other``; null: 0.005, or 0
    where the buckets are the sources."""

    @model_validator(mode="after")
    def _check(self) -> WeightsConfig:
        for name in ("alpha", "manual"):
            setting = "weights" if name == "manual" else name
            given = bool(self.weights) if name == "manual" else self.alpha is not None
            if given and self.method != name:
                raise ValueError(
                    f"{setting}: has no effect with method={self.method}; leave it out or set "
                    f"method={name}"
                )
            if self.method == name and not given:
                raise ValueError(f"{setting}: is needed with method={name}")
        if self.method == "unimax" and self.max_epochs is None:
            raise ValueError(
                "max_epochs: is needed with method=unimax; 1 or 2 for plenty of text, up to 4 for "
                "rare languages"
            )
        if self.allow_short and self.max_epochs is None:
            raise ValueError("allow_short: has no effect without max_epochs; leave it out")
        return self

    @model_validator(mode="after")
    def _columns(self) -> WeightsConfig:
        for setting in ("groups", "multipliers"):
            for column in getattr(self, setting):
                if column not in self.buckets:
                    raise ValueError(
                        f"{setting}: {column!r} is no column of buckets ({', '.join(self.buckets)})"
                    )
        for column, groups in self.groups.items():
            values = [value for members in groups.values() for value in members]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"groups.{column}: {twice[0]!r} stands twice")
        return self

    @property
    def least_share(self) -> float:
        """Of a bucket."""
        if self.min_share is not None:
            return self.min_share
        return 0.0 if self.buckets == ("source",) else MIN_SHARE


class SampleConfig(WeightsConfig):
    """Documents of the training split, read whole, each bucket as often as its weight asks."""

    seed: int = Field(default=0, ge=0)
    """In which order the documents of a bucket are taken."""
