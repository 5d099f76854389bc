"""Exact duplicates: of documents with equal text, the one with the smallest id stays."""

from __future__ import annotations

import xxhash

from regrow.data import engine
from regrow.data.config import CurateConfig

REASON = "same text as another"


def text_hash(text: str) -> str:
    """xxh3-128 of the text with each run of white space taken as one blank, in hex."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.split()).encode())


class Exact:
    """Drops all but one of the documents whose text is equal up to white space."""

    name = "exact"

    def __init__(self, config: CurateConfig) -> None:
        del config  # nothing to set

    def apply(self, frame: engine.Frame) -> engine.Frame:
        """Mark duplicates; only ids and hashes are ever held."""
        hash_of = engine.text_function(text_hash)
        marks = engine.collected(frame.select("id", hash_of(frame["text"]).alias("hash")))
        first = marks.groupby("hash").agg(marks["id"].min().alias("first"))
        marked = marks.join(first, on="hash")
        marked = marked.select(
            "id", engine.when(marked["id"] != marked["first"], REASON).alias("reason")
        )
        return frame.join(marked, on="id")
