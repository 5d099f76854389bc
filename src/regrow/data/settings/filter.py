"""Heuristic filters: which rules judge, and within which bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from regrow.core.config import Config
from regrow.core.registry import nearest
from regrow.data.filter_rules import PRESETS, RULES, Bounds, PresetName, bounds_of
from regrow.data.word_lists import base_language

MAX_WORD_BYTES = 64


class LanguageWords(Config):
    """What the rules need to know of a language."""

    words: tuple[str, ...] = Field(min_length=2)
    """Some of its commonest words, in lower case."""
    phrases: tuple[str, ...] = ()
    """What pages say about themselves, such as "privacy policy", in lower case."""


class FilterConfig(Config):
    """Rules over plain figures of a document; one that breaks a rule is dropped."""

    preset: PresetName = "prose"
    """Bounds of documents that are no code: ``prose``, ``gopher``, ``fineweb``."""
    rules: dict[str, Bounds | None] = {}
    """Rule to ``[low, high]``, either of them null for none; null alone turns the rule off."""
    no_list: Literal["refuse", "drop", "skip"] = "refuse"
    """Where a rule cannot tell for want of its language's words: stop, drop, or skip the rule."""
    languages: dict[str, LanguageWords] = {}
    """Words and phrases of further languages, by code; or instead of the built-in ones."""
    tokenizer: Path | None = None
    """A tokenizer, for the rule ``characters_per_token`` of code; null: that rule is left out."""

    @model_validator(mode="after")
    def _check(self) -> FilterConfig:
        for name, bounds in self.rules.items():
            self._check_rule(name, bounds)
        for code, known in self.languages.items():
            if code != base_language(code) or not code:
                raise ValueError(
                    f"languages: {code!r} is no code; write it as the table does, such as 'la'"
                )
            for text in (*known.words, *known.phrases):
                if text != text.lower() or not text.strip() or "\n" in text:
                    raise ValueError(f"languages.{code}: {text!r}: give it in lower case")
            for word in known.words:
                if word.split() != [word] or len(word.encode()) > MAX_WORD_BYTES:
                    raise ValueError(f"languages.{code}.words: {word!r} is not one short word")
        if not bounds_of(self.preset, self.rules, self.tokenizer is not None):
            raise ValueError("rules: every rule is turned off; leave the step filter out")
        return self

    def _check_rule(self, name: str, bounds: Bounds | None) -> None:
        if name not in RULES:
            hint = nearest(name, list(RULES))
            raise ValueError(f"rules: unknown rule {name!r}{hint} (known: {', '.join(RULES)})")
        if RULES[name].needs == "tokenizer" and self.tokenizer is None:
            raise ValueError(f"rules.{name}: has no effect without a tokenizer; set tokenizer")
        if bounds is None:
            if name not in PRESETS[self.preset] and name not in PRESETS["code"]:
                raise ValueError(
                    f"rules.{name}: null has no effect, preset {self.preset} has no such rule"
                )
            return
        low, high = bounds
        if low is None and high is None:
            raise ValueError(f"rules.{name}: [null, null] bounds nothing; write null")
        if low is not None and high is not None and low > high:
            raise ValueError(f"rules.{name}: {low:g} is above {high:g}; write [low, high]")

    def bounds(self) -> dict[str, Bounds]:
        """The rules that judge, in their order."""
        return bounds_of(self.preset, self.rules, self.tokenizer is not None)
