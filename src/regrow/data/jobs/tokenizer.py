"""The verb ``tokenizer``: a byte-level or SentencePiece BPE tokenizer from the training split."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.atomic import staged_folder
from regrow.core.errors import Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.config import TokenizerConfig
from regrow.data.fertility import measure, table
from regrow.data.sample import DocumentSample
from regrow.io.runs import resolve_documents
from regrow.io.sentencepiece import require_sentencepiece, train_sentencepiece
from regrow.io.tokenizer import train_byte_level

SENTENCEPIECE_MODEL = "tokenizer.model"


def plan(config: TokenizerConfig) -> Plan:
    """Size and text of the tokenizer.

    Raises:
        InputError: no documents there.
        ConfigError: weights of no source or language, or a library that is missing.
    """
    documents = resolve_documents(config.documents)
    if config.kind == "sentencepiece":
        require_sentencepiece()
    sample = _sample(config, documents)
    sample.check()
    figures = {"documents": str(documents), "kind": config.kind}
    return Plan(
        f"tokenizer of {config.vocab_size} ids",
        {**figures, "sample_bytes": config.sample_bytes},
    )


def run(config: TokenizerConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/export``: ``tokenizer.json``, ``tokenizer_config.json``, ``tokenizer.model``.

    The last of them, SentencePiece's own format, only where that is the kind.

    Returns:
        ``vocab_size``, ``sha256``, ``trained_bytes``, ``bytes_per_token`` by source and over all,
        ``fertility`` by source, by language and over all.

    Raises:
        InputError: no documents there.
        ConfigError: weights of no source or language, or more or fewer ids than SentencePiece can
            make of the text.
        Interrupted: after Ctrl-C, while documents are read.
    """
    documents = run.input(resolve_documents(config.documents), "documents")
    sample = _sample(config, documents)
    sample.check()
    texts = _until_stopped(sample.texts(), run)
    made: dict[str, Any] = {}
    with staged_folder(run.export) as folder:
        if config.kind == "sentencepiece":
            trained = train_sentencepiece(texts, config.vocab_size, config.character_coverage)
            tokenizer = trained.tokenizer
            atomic.write_bytes(folder / SENTENCEPIECE_MODEL, trained.model)
            made = {
                "model_sha256": sha256(trained.model).hexdigest(),
                "unreachable_pieces": trained.unreachable,
            }
        else:
            tokenizer = train_byte_level(texts, config.vocab_size)
        tokenizer.save(folder)
    fertility = table(measure(tokenizer, documents), sample.taken)
    rows = {**fertility["by_source"], "all": fertility["all"]}
    return {
        "kind": config.kind,
        "vocab_size": tokenizer.vocab_size,
        "asked_vocab_size": config.vocab_size,
        "sha256": tokenizer.sha256,
        **made,
        "trained_bytes": sample.bytes,
        "trained_documents": sample.documents,
        "bytes_per_token": {name: 1 / row["tokens_per_byte"] for name, row in rows.items()},
        "fertility": fertility,
    }


def _sample(config: TokenizerConfig, documents: Path) -> DocumentSample:
    return DocumentSample(
        documents / "train.parquet",
        config.sample_bytes,
        config.seed,
        config.weights,
        config.language_weights,
    )


def _until_stopped(texts: Iterator[str], run: Run) -> Iterator[str]:
    for text in texts:
        if run.stop_requested:
            raise Interrupted("stopped while reading; the same command starts again")
        yield text
