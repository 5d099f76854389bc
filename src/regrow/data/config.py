"""Settings of ``curate``, ``tokenizer`` and ``tokenize``; importing them costs no engine."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.data.settings.attributes import AttributesConfig
from regrow.data.settings.classifier import ClassifierFilterConfig
from regrow.data.settings.decontaminate import OverlapConfig
from regrow.data.settings.duplicates import DuplicatesConfig
from regrow.data.settings.engine import EngineConfig
from regrow.data.settings.filter import FilterConfig
from regrow.data.settings.fuzzy import FuzzyConfig
from regrow.data.settings.language import LanguageConfig
from regrow.data.settings.perplexity import PerplexityConfig
from regrow.data.settings.pii import PiiConfig
from regrow.data.settings.sample import SampleConfig
from regrow.data.settings.select import SelectConfig
from regrow.data.settings.sources import PythonSource, SourceConfig

# Bytes, special tokens, the newline, and one character.
_SENTENCEPIECE_IDS = 262


class SplitConfig(Config):
    """Shares of the files that go to each split."""

    train: float = Field(default=0.92, gt=0, le=1)
    """Trained on."""
    validation: float = Field(default=0.04, ge=0, lt=1)
    """Watched while training."""
    test: float = Field(default=0.04, ge=0, lt=1)
    """Left alone until the end."""

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if not isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + validation + test is {total:g}, but must be 1")
        return self

    def shares(self) -> dict[str, float]:
        """Splits with a share above zero, in their order."""
        shares = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: share for name, share in shares.items() if share > 0}


class CurateConfig(Config):
    """Gather documents, run the steps over them, write the splits."""

    spreading: ClassVar[tuple[str, ...]] = ("engine", "reuse", "max_bad")

    engine: EngineConfig = EngineConfig()
    """What the tables run on."""
    sources: tuple[SourceConfig, ...] = Field(default=(PythonSource(),), min_length=1)
    """Where the text comes from."""
    steps: tuple[str, ...] = ("language", "exact", "fuzzy", "filter", "split")
    """Steps in order; ``split`` is the last."""
    pii: PiiConfig = PiiConfig()
    """Personal data that is masked when text is gathered."""
    language: LanguageConfig = LanguageConfig()
    """The step ``language``."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """Which copy stays, and where copies are looked for; of the steps ``exact`` and ``fuzzy``."""
    fuzzy: FuzzyConfig = FuzzyConfig()
    """The step ``fuzzy``."""
    filter: FilterConfig = FilterConfig()
    """The step ``filter``: heuristic rules."""
    perplexity: PerplexityConfig = PerplexityConfig()
    """The step ``perplexity``."""
    classifier: ClassifierFilterConfig = ClassifierFilterConfig()
    """The step ``classifier``: a quality filter that learned from examples."""
    attributes: AttributesConfig = {}
    """Attribute to classifier: ``quality``, ``domain``, ``speech``, ``toxicity``, or your own."""
    select: SelectConfig = SelectConfig()
    """The step ``select``: documents that look like a target stay."""
    decontaminate: OverlapConfig = OverlapConfig()
    """The step ``decontaminate``: documents that hold words of evaluation sets go."""
    split: SplitConfig = SplitConfig()
    """Shares of the splits."""
    reuse: Path | None = None
    """A finished run whose scores serve where they fit: only thresholds are applied anew."""
    max_bad: float = Field(default=0.001, ge=0, le=1)
    """Share of records that may be broken; ten are always let pass."""
    seed: int = Field(default=0, ge=0)
    """Of the splits, of signatures, and of what is drawn."""

    @model_validator(mode="after")
    def _check(self) -> CurateConfig:
        # Imported here: the registry needs no engine, but it is no part of the settings either.
        from regrow.core.registry import nearest
        from regrow.data.steps import STEPS

        for step in self.steps:
            if step not in STEPS:
                known = ", ".join(STEPS.names())
                hint = nearest(step, STEPS.names())
                raise ValueError(f"steps: unknown step {step!r}{hint} (known: {known})")
        if self.steps.count("split") != 1 or self.steps[-1] != "split":
            raise ValueError("steps: 'split' must stand once, as the last step")
        for step in STEPS.names():
            field = type(self).model_fields.get(step)
            if field is None or step in self.steps:
                continue
            if getattr(self, step) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f"{step}: settings of a step that is not in steps ({', '.join(self.steps)}); "
                    f"add {step!r} there, or leave them out"
                )
        names = self.source_names()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: the name {twice[0]!r} stands twice; rename one source")
        return self

    def steps_before(self, step: str) -> tuple[str, ...]:
        """What is done before a step; nothing where it is not in ``steps``."""
        return self.steps[: self.steps.index(step)] if step in self.steps else ()

    def source_names(self) -> list[str]:
        """What the ``source`` column will hold, in the order of the settings."""
        names: list[str] = []
        for source in self.sources:
            names.extend(source.domains if isinstance(source, PythonSource) else (source.name,))
        return names


class TokenizerConfig(Config):
    """Train a BPE tokenizer on a sample of the training split."""

    documents: Path
    """A run folder of ``curate``, or its documents folder."""
    kind: Literal["bytes", "sentencepiece"] = "bytes"
    """``bytes``: over bytes; ``sentencepiece``: over characters, bytes for the rare ones."""
    vocab_size: int = Field(default=4096, ge=257, le=1 << 20)
    """Ids in all: 256 bytes, special tokens, and merges; for SentencePiece also characters."""
    sample_bytes: int = Field(default=20_000_000, gt=0)
    """UTF-8 bytes of training text to learn from at most, a random sample of its documents."""
    seed: int = Field(default=0, ge=0)
    """Where in the table, whose order is random, the sample starts; 0 is its first document."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often documents of a source count, by source; 1 where one is not named."""
    language_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often documents of a language count, by language; 1 where one is not named."""
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    """Share of characters that get an id of their own; for SentencePiece only."""

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if self.kind == "bytes":
            default = type(self).model_fields["character_coverage"].default
            if self.character_coverage != default:
                raise ValueError(
                    f"character_coverage: {self.character_coverage:g} has no effect with "
                    "kind=bytes, which has no characters; leave it out or set kind=sentencepiece"
                )
        elif self.vocab_size < _SENTENCEPIECE_IDS:
            raise ValueError(
                f"vocab_size: {self.vocab_size} is too small for kind=sentencepiece, whose 256 "
                "bytes, 4 special tokens and newline take 261 ids before the first character; "
                f"set {_SENTENCEPIECE_IDS} or more"
            )
        return self


class TokenizeConfig(Config):
    """Turn documents into token shards, one a source (or bucket) and split."""

    documents: Path
    """A run folder of ``curate``, or its documents folder."""
    tokenizer: Path
    """A run folder of ``tokenizer``, a Hugging Face folder, or a ``tokenizer.json``."""
    sample: SampleConfig | None = None
    """How often documents of the training split are taken, by bucket; null: once each."""
