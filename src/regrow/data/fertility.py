"""Fertility: how many tokens a tokenizer needs for text, by source and by language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.core.errors import InputError
from regrow.data.sample import Group
from regrow.io.parquet import read_batches
from regrow.io.tokenizer import Tokenizer

# Measured on this much text of each source and language.
_MEASURED_BYTES = 200_000
#: What a language is called where documents name none.
UNNAMED = "unknown"


@dataclass(slots=True)
class Fertility:
    """Counts of some text.

    Args:
        bytes: of UTF-8.
        characters: code points.
        words: what stands between whitespace; in Chinese or Japanese, a sentence.
        tokens: that the text became.
    """

    bytes: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0

    def add(self, other: Fertility) -> None:
        """Count other text too."""
        self.bytes += other.bytes
        self.characters += other.characters
        self.words += other.words
        self.tokens += other.tokens

    def figures(self) -> dict[str, float]:
        """``text_bytes``, ``tokens``, and tokens per byte, per character and per word."""
        return {
            "text_bytes": self.bytes,
            "tokens": self.tokens,
            "tokens_per_byte": self.tokens / self.bytes,
            "tokens_per_character": self.tokens / self.characters,
            "tokens_per_word": self.tokens / max(1, self.words),
        }


def measure(tokenizer: Tokenizer, documents: Path) -> dict[Group, Fertility]:
    """Counts by source and language, on held-out text where there is some.

    Args:
        tokenizer: to measure.
        documents: a documents folder.

    Raises:
        InputError: it holds no text.
    """
    counts: dict[Group, Fertility] = {}
    for split in ("validation", "train"):
        held_out = set(counts)
        for batch in read_batches(documents / f"{split}.parquet", ["text", "source", "language"]):
            columns = [batch[name].to_pylist() for name in ("source", "language", "text")]
            chosen: list[tuple[Fertility, str]] = []
            for source, language, text in zip(*columns, strict=True):
                group = Group(source, language)
                if not text or group in held_out:
                    continue
                count = counts.setdefault(group, Fertility())
                if count.bytes < _MEASURED_BYTES:
                    chosen.append((count, text))
                    size = len(text.encode())
                    count.add(Fertility(size, len(text), len(text.split())))
            ids = tokenizer.encode_batch([text for _, text in chosen])
            for (count, _), row in zip(chosen, ids, strict=True):
                count.tokens += len(row)
    if not counts:
        raise InputError(f"{documents} holds no text; name a run folder of curate with documents")
    return counts


def table(counts: dict[Group, Fertility], taken: dict[Group, int]) -> dict[str, Any]:
    """The figures of ``result.json``.

    Args:
        counts: what was measured.
        taken: bytes of each group that the tokenizer was trained on.

    Returns:
        ``by_source`` and ``by_language`` (name to figures) and ``all`` (figures); each with
        ``trained_bytes`` beside the figures of :meth:`Fertility.figures`.
    """

    def summed(names: dict[Group, str]) -> dict[str, dict[str, float]]:
        totals: dict[str, Fertility] = {}
        trained: dict[str, int] = {}
        for group, name in names.items():
            totals.setdefault(name, Fertility()).add(counts[group])
            trained[name] = trained.get(name, 0) + taken.get(group, 0)
        return {
            name: {**totals[name].figures(), "trained_bytes": trained[name]}
            for name in sorted(totals)
        }

    return {
        "by_source": summed({group: group.source for group in counts}),
        "by_language": summed({group: group.language or UNNAMED for group in counts}),
        "all": summed(dict.fromkeys(counts, "all"))["all"],
    }
