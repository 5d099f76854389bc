"""The verb ``tokenizer``: a byte-level BPE tokenizer from the training split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrow.core.atomic import staged_folder
from regrow.core.errors import InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.config import TokenizerConfig
from regrow.io.parquet import read_batches
from regrow.io.runs import resolve_documents
from regrow.io.tokenizer import Tokenizer, train_byte_level

# Fertility is measured on this much text of each source that the tokenizer did not see.
_MEASURED_BYTES = 200_000


def plan(config: TokenizerConfig) -> Plan:
    """Size and text of the tokenizer.

    Raises:
        InputError: no documents there.
    """
    documents = resolve_documents(config.documents)
    return Plan(
        f"tokenizer of {config.vocab_size} ids",
        {"documents": str(documents), "kind": config.kind, "max_bytes": config.max_bytes},
    )


def run(config: TokenizerConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/export``: ``tokenizer.json`` and ``tokenizer_config.json``.

    Returns:
        ``vocab_size``, ``sha256``, ``trained_bytes``, ``bytes_per_token`` by source and over all.

    Raises:
        InputError: no documents there.
    """
    documents = run.input(resolve_documents(config.documents), "documents")
    read = _Counted()
    texts = read.texts(documents / "train.parquet", config.max_bytes)
    tokenizer = train_byte_level(texts, config.vocab_size)
    with staged_folder(run.export) as folder:
        tokenizer.save(folder)
    return {
        "vocab_size": tokenizer.vocab_size,
        "asked_vocab_size": config.vocab_size,
        "sha256": tokenizer.sha256,
        "trained_bytes": read.bytes,
        "trained_documents": read.documents,
        "bytes_per_token": fertility(tokenizer, documents),
    }


class _Counted:
    """Texts of a table from its start; ids are hashes, so its start is a random sample."""

    def __init__(self) -> None:
        self.bytes = self.documents = 0

    def texts(self, table: Path, max_bytes: int) -> Iterator[str]:
        for batch in read_batches(table, ["text"]):
            for text in batch["text"].to_pylist():
                size = len(text.encode())
                if self.bytes + size > max_bytes and self.documents:
                    continue
                self.bytes += size
                self.documents += 1
                yield text
            if self.bytes >= max_bytes:
                return


def fertility(tokenizer: Tokenizer, documents: Path) -> dict[str, float]:
    """Bytes of text per token, by source and over ``all``, on held-out text where there is some.

    Args:
        tokenizer: to measure.
        documents: a documents folder.
    """
    taken: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for split in ("validation", "train"):
        seen = set(taken)
        for batch in read_batches(documents / f"{split}.parquet", ["text", "source"]):
            rows = zip(batch["source"].to_pylist(), batch["text"].to_pylist(), strict=True)
            chosen = []
            for source, text in rows:
                if source not in seen and taken.get(source, 0) < _MEASURED_BYTES:
                    chosen.append((source, text))
                    taken[source] = taken.get(source, 0) + len(text.encode())
            for (source, _), ids in zip(
                chosen, tokenizer.encode_batch([text for _, text in chosen]), strict=True
            ):
                tokens[source] = tokens.get(source, 0) + len(ids)
    if not taken:
        raise InputError(f"{documents} holds no document")
    ratios = {source: taken[source] / tokens[source] for source in sorted(taken)}
    return {**ratios, "all": sum(taken.values()) / sum(tokens.values())}
