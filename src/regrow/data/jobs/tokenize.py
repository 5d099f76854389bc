"""The verb ``tokenize``: documents and a tokenizer to token shards, one a source and split."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from regrow.core.atomic import remove_leftovers, staged_folder
from regrow.core.errors import InputError, Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.config import TokenizeConfig
from regrow.data.document import SPLITS
from regrow.data.shards import Shard, ShardSet, ShardWriter, Vocabulary
from regrow.io.parquet import num_rows, read_batches
from regrow.io.runs import TOKENIZER_FOLDER, resolve_documents, resolve_tokenizer
from regrow.io.tokenizer import Tokenizer

SHARDS_FOLDER = "shards"
# Text encoded at once: enough to keep all cores busy, at about 100 bytes of memory a token.
_BATCH_BYTES = 2 << 20


def plan(config: TokenizeConfig) -> Plan:
    """What will be read.

    Raises:
        InputError: no documents, or no usable tokenizer.
    """
    documents = resolve_documents(config.documents)
    tokenizer = Tokenizer.load(resolve_tokenizer(config.tokenizer))
    size = sum((documents / f"{split}.parquet").stat().st_size for split in _splits(documents))
    return Plan(
        f"tokenize {documents}",
        {
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.end,
            "compressed_bytes": size,
            "splits": ", ".join(_splits(documents)),
        },
    )


def _splits(documents: Path) -> list[str]:
    found = [split for split in SPLITS if (documents / f"{split}.parquet").is_file()]
    if not found:
        raise InputError(f"{documents} has no train.parquet; name a run folder of curate")
    return found


def run(config: TokenizeConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/shards/<split>/<source>.{bin,starts,json}``.

    Returns:
        ``tokens``, ``documents`` and ``bytes`` (split to source to number), ``bytes_per_token``
        (split to source to ratio), ``vocab_size``, ``tokenizer_sha256``.

    Raises:
        InputError: no documents, or no usable tokenizer.
        Interrupted: after Ctrl-C; finished splits stay.
    """
    documents = run.input(resolve_documents(config.documents), "documents")
    folder = run.input(resolve_tokenizer(config.tokenizer), "tokenizer")
    tokenizer = Tokenizer.load(folder)
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    # Beside the shards, so that whoever trains on them finds it wherever the folder went.
    if not (run.path / TOKENIZER_FOLDER).exists():
        with staged_folder(run.path / TOKENIZER_FOLDER) as staged:
            tokenizer.copy_files(staged)
    shards = run.path / SHARDS_FOLDER
    shards.mkdir(exist_ok=True)
    remove_leftovers(shards)
    splits = _splits(documents)
    total = sum(num_rows(documents / f"{split}.parquet") for split in splits)
    with run.progress("tokenize", total, "doc") as progress:
        for split in splits:
            table = documents / f"{split}.parquet"
            if (shards / split).exists():
                progress.advance(num_rows(table))
                continue
            with staged_folder(shards / split) as staged:
                _tokenize(table, staged, tokenizer, vocabulary, run, progress)
    return _figures(shards, splits, vocabulary)


def _tokenize(
    table: Path, folder: Path, tokenizer: Tokenizer, vocabulary: Vocabulary, run: Run, progress: Any
) -> None:
    """One pass over a split's documents, one open writer a source."""
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        waiting: list[tuple[str, str]] = []

        def encode() -> None:
            for (source, text), ids in zip(
                waiting, tokenizer.encode_batch([text for _, text in waiting]), strict=True
            ):
                if source not in writers:
                    writers[source] = stack.enter_context(ShardWriter(folder, source, vocabulary))
                writers[source].add(ids, len(text.encode()))
            progress.advance(len(waiting))
            waiting.clear()

        size = 0
        for batch in read_batches(table, ["source", "text"]):
            if run.stop_requested:
                raise Interrupted(
                    f"stopped in {table.name}; the same command does this split again"
                )
            for source, text in zip(
                batch["source"].to_pylist(), batch["text"].to_pylist(), strict=True
            ):
                waiting.append((source, text))
                size += len(text)
                if size >= _BATCH_BYTES:
                    encode()
                    size = 0
        encode()


def _figures(shards: Path, splits: list[str], vocabulary: Vocabulary) -> dict[str, Any]:
    sets = {split: _opened(shards, split) for split in splits}

    def table(value: Any) -> dict[str, dict[str, Any]]:
        return {
            split: {source: value(shard) for source, shard in found.items()}
            for split, found in sets.items()
        }

    return {
        "tokens": table(lambda shard: shard.num_tokens),
        "documents": table(lambda shard: shard.num_documents),
        "bytes": table(lambda shard: shard.text_bytes),
        "bytes_per_token": table(_ratio),
        "total_tokens": sum(s.num_tokens for found in sets.values() for s in found.values()),
        "vocab_size": vocabulary.size,
        "tokenizer_sha256": vocabulary.tokenizer_sha256,
    }


def _opened(shards: Path, split: str) -> dict[str, Shard]:
    """A split's shards; none when it got no document."""
    return ShardSet.open(shards, split) if any((shards / split).iterdir()) else {}


def _ratio(shard: Shard) -> float:
    """Bytes of text a token; the end-of-text marks stand for none and are not counted."""
    return shard.text_bytes / max(1, shard.num_tokens - shard.num_documents)
