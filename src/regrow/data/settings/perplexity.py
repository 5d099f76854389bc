"""Perplexity under a small language model: which model, and what is too much or too little."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.data.settings.target import TargetConfig

DROP_TOP = 0.10
KENLM_SUFFIXES = (".arpa", ".bin", ".binary", ".klm")


class LearnedTargetConfig(TargetConfig):
    """The same, and how much of it is learned from."""

    max_bytes: int = Field(default=20_000_000, ge=10_000)
    """UTF-8 bytes to learn from at most: a fixed sample of the texts."""


class PerplexityConfig(Config):
    """Drops documents that a language model finds too strange, or too plain."""

    target: LearnedTargetConfig = LearnedTargetConfig()
    """What the built-in model learns from; needed unless ``model`` is set."""
    order: int = Field(default=3, ge=1, le=5)
    """Tokens of the built-in model's longest runs."""
    vocab_size: int = Field(default=8192, ge=300, le=65536)
    """Ids of the built-in model's byte-level BPE, which is trained on the target too."""
    model: Path | None = None
    """A KenLM model (``.arpa``, ``.bin``) in place of the built-in; needs the extra ``[kenlm]``."""
    pieces: Path | None = None
    """The SentencePiece ``.model`` whose pieces the KenLM model counts; null: words."""
    max_ppl: float | None = Field(default=None, gt=1)
    """Documents of a higher perplexity go; it means something for one model only."""
    min_ppl: float | None = Field(default=None, gt=1)
    """Documents of a lower perplexity go: boilerplate."""
    drop_top: float | None = Field(default=None, ge=0, lt=1)
    """Share with the highest perplexity to drop, of each source and language; null: 0.1, or 0 with
    ``max_ppl``."""
    code: bool = False
    """Whether code is judged as well; it is left alone otherwise."""

    @model_validator(mode="after")
    def _check(self) -> PerplexityConfig:
        fields = type(self).model_fields
        if self.model is not None:
            for name in ("target", "order", "vocab_size"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name}: has no effect with model={self.model}; leave it out")
            if self.model.suffix not in KENLM_SUFFIXES:
                raise ValueError(
                    f"model: {self.model} ends in none of {', '.join(KENLM_SUFFIXES)}; give a "
                    "KenLM model, or leave it out and set target"
                )
        elif self.pieces is not None:
            raise ValueError("pieces: has no effect without model, a KenLM model")
        if self.max_ppl is not None and self.drop_top:
            raise ValueError("max_ppl and drop_top are both set; set one of them")
        if None not in (self.max_ppl, self.min_ppl) and self.min_ppl >= self.max_ppl:  # type: ignore[operator]
            raise ValueError(f"min_ppl: {self.min_ppl:g} is not below max_ppl {self.max_ppl:g}")
        if self.share_dropped == 0 and self.max_ppl is None and self.min_ppl is None:
            raise ValueError("drop_top: 0 with neither max_ppl nor min_ppl drops nothing")
        return self

    @property
    def share_dropped(self) -> float:
        """Of each group, from the top."""
        if self.drop_top is not None:
            return self.drop_top
        return DROP_TOP if self.max_ppl is None else 0.0
