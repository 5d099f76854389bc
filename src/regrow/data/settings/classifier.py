"""A filter that learned from examples what is wanted and what is not."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from regrow.core.config import Config


class ClassifierFilterConfig(Config):
    """Keeps the documents that look most like the positive examples."""

    positive: tuple[str, ...] = ()
    """Files, folders or globs of wanted text, of any kind that a source ``folder`` reads."""
    negative: tuple[str, ...] = ()
    """The same of unwanted text; empty: a fixed sample of the documents themselves."""
    model: Path | None = None
    """A classifier that is there already (a run of ``curate annotate``) in place of examples."""
    label: str | None = None
    """With ``model``: the class whose probability is the score."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """Share of the documents with the highest scores to keep; 0.1 is a strict choice."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Score from which on a document stays; with ``keep``, one of the two."""
    max_bytes: int = Field(default=4_000_000, ge=10_000)
    """UTF-8 bytes of each class to learn from at most: a fixed sample of its texts."""
    min_macro_f1: float = Field(default=0.6, ge=0, le=1)
    """Macro-F1 on a fifth of the examples, below which the classifier is not used."""
    code: bool = False
    """Whether code is judged as well; it is left alone otherwise."""

    @model_validator(mode="after")
    def _check(self) -> ClassifierFilterConfig:
        fields = type(self).model_fields
        if self.model is not None:
            for name in ("positive", "negative", "max_bytes", "min_macro_f1"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name}: has no effect with model={self.model}; leave it out")
            if self.label is None:
                raise ValueError("label: say which class of the model is wanted, such as High")
        elif self.label is not None:
            raise ValueError("label: has no effect without model; the score is of the positive")
        if self.negative and not self.positive:
            raise ValueError("negative: has no effect without positive; set positive as well")
        if self.keep is not None and self.threshold is not None:
            raise ValueError("keep and threshold are both set; set one of them")
        return self
