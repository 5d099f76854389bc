"""Settings of ``curate annotate``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.data.attributes.kinds import get_attribute
from regrow.data.settings.attributes import ClassifierConfig
from regrow.io.endpoint_config import EndpointConfig

SAMPLE = 2000


class AnnotateConfig(Config):
    """Label documents, train a classifier on the labels, and say how good it is."""

    documents: Path | None = None
    """A run of ``curate run``, or its documents folder; not needed where ``labels`` holds texts."""
    attribute: str
    """What is labelled: ``quality``, ``domain``, ``speech``, ``toxicity``, or one of your own."""
    labels: Path | None = None
    """A ``.jsonl`` file of ``label`` and ``text``, or of ``label`` and a document's ``id``."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that labels."""
    model: ClassifierConfig | None = None
    """A local model that labels: a sequence classifier, or a causal one that ranks the classes."""
    prompt: Path | None = None
    """YAML file of ``question`` and ``classes`` with definitions; null: the attribute's own."""
    sample: int | None = Field(default=None, ge=20)
    """Documents to label, spread evenly over sources; null: 2,000, or all of ``labels``."""
    max_failed: float = Field(default=0.1, ge=0, le=1)
    """Share of documents that may stay without a label since no reply fitted."""
    holdout: float = Field(default=0.2, ge=0.05, le=0.5)
    """Share of each class that the classifier is not trained on, but measured."""
    min_macro_f1: float = Field(default=0.6, ge=0, le=1)
    """Macro-F1 on the held-out share below which the classifier is not exported."""
    buckets: int = Field(default=1 << 18, ge=1 << 10, le=1 << 24)
    """Columns that n-grams are hashed into; a power of two."""
    seed: int = Field(default=0, ge=0)
    """Decides which documents are labelled, and which are held out."""

    @model_validator(mode="after")
    def _check(self) -> AnnotateConfig:
        try:
            get_attribute(self.attribute)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        ways = ("labels", "endpoint", "model")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"labels, endpoint, model: set exactly one ({said} is set)")
        if self.labels is None and self.documents is None:
            raise ValueError(f"documents: {given[0]} labels documents; name a run of curate run")
        if self.labels is not None and self.prompt is not None:
            raise ValueError("prompt: has no effect with labels, which are there already")
        if self.buckets & (self.buckets - 1):
            down = 1 << (self.buckets.bit_length() - 1)
            raise ValueError(
                f"buckets: {self.buckets} is no power of two; set {down} or {2 * down}"
            )
        return self
