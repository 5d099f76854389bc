"""The figures of documents that heuristic filters judge, by their kind and their language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regrow.data.comments import comment_share
from regrow.data.filter_rules import RULES
from regrow.data.text_stats import code_stats, prose_stats
from regrow.data.word_lists import UNSPACED, WordList, base_language
from regrow.io.tokenizer import Tokenizer

KIND, LANGUAGE = "filter_kind", "filter_language"
_TOKENS = "characters_per_token"


@cache
def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer, read once in each process."""
    return Tokenizer.load(path)


@dataclass(frozen=True, slots=True)
class Measure:
    """Measures batches; small, so that it can be sent to other processes.

    Args:
        lists: language to what is known of it.
        told: whether batches have ``language_id``.
        tokenizer: for ``characters_per_token``; None leaves that column out.
    """

    lists: Mapping[str, WordList]
    told: bool
    tokenizer: Path | None

    def schema(self) -> pa.Schema:
        """Names and types of what it gives."""
        names = [name for name in RULES if name != _TOKENS or self.tokenizer is not None]
        text = [(KIND, pa.string()), (LANGUAGE, pa.string())]
        return pa.schema([*text, *((name, pa.float64()) for name in names)])

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        """Columns of ``schema``."""
        texts = batch["text"].to_pylist()
        code = np.array([kind == "code" for kind in batch["kind"].to_pylist()], bool)
        languages = self._languages(batch, code)
        columns: dict[str, Any] = {
            KIND: np.where(code, "code", "prose").tolist(),
            LANGUAGE: languages,
        }
        for rows, measure in ((~code, self._prose), (code, self._code)):
            places = np.flatnonzero(rows)
            chosen = places.tolist()
            for name, values in measure(
                [texts[row] for row in chosen], [languages[row] for row in chosen]
            ).items():
                column = columns.setdefault(name, np.full(len(texts), np.nan))
                column[places] = values
        empty = np.full(len(texts), np.nan)
        return {
            field.name: columns[field.name]
            if field.type == pa.string()
            else pa.array(columns.get(field.name, empty), field.type, from_pandas=True)
            for field in self.schema()
        }

    def _languages(self, batch: pa.RecordBatch, code: np.ndarray) -> list[str]:
        declared = [language or "" for language in batch["language"].to_pylist()]
        told = batch["language_id"].to_pylist() if self.told else [None] * len(declared)
        return [
            own.lower() if is_code else self._language(base_language(own), other)
            for own, other, is_code in zip(declared, told, code.tolist(), strict=True)
        ]

    def _language(self, declared: str, told: str | None) -> str:
        if told is None or (
            told not in self.lists and told not in UNSPACED and declared in self.lists
        ):
            return declared
        return told

    def _prose(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        found = prose_stats(texts, [self.lists.get(language) for language in languages])
        unspaced = np.array([language in UNSPACED for language in languages], bool)
        for name, values in found.items():
            if RULES[name].needs in ("blanks", "list"):
                values[unspaced] = np.nan
        return found

    def _code(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        found = code_stats(texts)
        pairs = zip(texts, languages, strict=True)
        comments = [comment_share(text, language) for text, language in pairs]
        found["code_comments"] = np.array(comments, np.float64)
        if self.tokenizer is not None and texts:
            tokens = open_tokenizer(self.tokenizer).encode_batch(texts)
            sizes = [(len(text), len(ids)) for text, ids in zip(texts, tokens, strict=True)]
            found[_TOKENS] = np.array([size / max(1, ids) for size, ids in sizes])
        return found
