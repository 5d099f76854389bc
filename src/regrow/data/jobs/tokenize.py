"""The verb ``tokenize``: documents and a tokenizer to token shards, one a source and split.

With ``sample`` the training split has a shard a bucket, which holds its documents as often as the
blend asks: whoever reads each shard once reads the blend.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from math import fsum
from pathlib import Path
from typing import Any

from regrow.core.atomic import read_json, remove_leftovers, staged_folder, write_json
from regrow.core.errors import ConfigError, Interrupted
from regrow.core.plan import Plan
from regrow.core.registry import nearest
from regrow.core.run import Run
from regrow.data import exhibits
from regrow.data.config import TokenizeConfig
from regrow.data.document import split_tables
from regrow.data.epochs import Pool, PoolWriter, check_labels, values_of
from regrow.data.settings.sample import SampleConfig
from regrow.data.shards import Shard, ShardSet, ShardWriter, Vocabulary
from regrow.data.weights import OTHER, Values, bucketed, spread
from regrow.io.parquet import num_rows, read_batches
from regrow.io.runs import TOKENIZER_FOLDER, resolve_documents, resolve_tokenizer
from regrow.io.tokenizer import Tokenizer

SHARDS_FOLDER = "shards"
POOL_FOLDER = "pool"
SAMPLED = "train"
SAMPLE = "sample.json"
# Text encoded at once: enough to keep all cores busy, at about 100 bytes of memory a token.
_BATCH_BYTES = 2 << 20


def plan(config: TokenizeConfig) -> Plan:
    """What will be read.

    Raises:
        InputError: no documents, no usable tokenizer, or columns or values of ``sample`` that the
            documents do not have.
        ConfigError: weights of buckets that there are not.
    """
    documents = resolve_documents(config.documents)
    tokenizer = Tokenizer.load(resolve_tokenizer(config.tokenizer))
    tables = split_tables(documents)
    figures: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.end,
        "compressed_bytes": sum(table.stat().st_size for table in tables),
        "splits": ", ".join(table.stem for table in tables),
    }
    if config.sample:
        figures["buckets"] = ", ".join(
            _bucket_names(documents / f"{SAMPLED}.parquet", config.sample)
        )
    return Plan(f"tokenize {documents}", figures)


def _bucket_names(table: Path, sample: SampleConfig) -> list[str]:
    """The buckets, before small ones are merged: which these are is known by their tokens."""
    check_labels(table, sample.buckets, "sample.buckets")
    documents: Counter[Values] = Counter()
    for batch in read_batches(table, sample.buckets):
        documents.update(values_of(batch, sample.buckets))
    found = list(bucketed(documents, sample.replace(min_share=0.0)).tokens)
    for name in sample.weights:
        if name not in (*found, OTHER):
            raise ConfigError(
                f"sample.weights: no bucket {name!r}{nearest(name, found)} "
                f"(buckets: {', '.join(found)})"
            )
    return found


def run(config: TokenizeConfig, run: Run) -> dict[str, Any]:
    """Make ``RUN/shards/<split>/<source>.{bin,starts,json}``.

    Returns:
        ``tokens``, ``documents`` and ``bytes`` (split to source to number), ``bytes_per_token``
        (split to source to ratio), ``vocab_size``, ``tokenizer_sha256``. With ``sample`` the
        sources of the training split are the buckets, and ``sample`` tells the blend as planned and
        as sampled, in tokens and epochs.

    Raises:
        InputError: no documents, or no usable tokenizer.
        ConfigError: a budget that the documents cannot fill.
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
    tables = split_tables(documents)
    total = sum(map(num_rows, tables))
    with run.progress("tokenize", total, "doc") as progress:
        for table in tables:
            split = table.stem
            if (shards / split).exists():
                progress.advance(num_rows(table))
                continue
            if config.sample and split == SAMPLED:
                pool = run.path / POOL_FOLDER
                if not pool.exists():
                    with staged_folder(pool) as staged, PoolWriter(staged, vocabulary) as writer:
                        for row in _encoded(table, config.sample.buckets, tokenizer, run, progress):
                            writer.add(*row)
                _sample(pool, shards / split, config.sample, vocabulary, run)
                continue
            with staged_folder(shards / split) as staged, ExitStack() as stack:
                writers: dict[str, ShardWriter] = {}
                for (source,), ids, size in _encoded(table, ("source",), tokenizer, run, progress):
                    if source not in writers:
                        made = ShardWriter(staged, source, vocabulary)
                        writers[source] = stack.enter_context(made)
                    writers[source].add(ids, size)
    shutil.rmtree(run.path / POOL_FOLDER, ignore_errors=True)
    figures = _figures(shards, [table.stem for table in tables], vocabulary)
    if config.sample:
        figures["sample"] = read_json(run.path / SAMPLE)
        figures["exhibits"] = [_exhibit(figures["sample"]["buckets"])]
    return figures


def _encoded(
    table: Path, columns: tuple[str, ...], tokenizer: Tokenizer, run: Run, progress: Any
) -> Iterator[tuple[Values, list[int], int]]:
    """One pass over a split's documents: values of the columns, ids, and bytes of text."""
    waiting: list[tuple[Values, str]] = []

    def encode() -> Iterator[tuple[Values, list[int], int]]:
        ids = tokenizer.encode_batch([text for _, text in waiting])
        for (values, text), found in zip(waiting, ids, strict=True):
            yield values, found, len(text.encode())
        progress.advance(len(waiting))
        waiting.clear()

    size = 0
    for batch in read_batches(table, list(dict.fromkeys((*columns, "text")))):
        if run.stop_requested:
            raise Interrupted(f"stopped in {table.name}; the same command does this split again")
        texts = batch["text"].to_pylist()
        for values, text in zip(values_of(batch, columns), texts, strict=True):
            waiting.append((values, text))
            size += len(text)
            if size >= _BATCH_BYTES:
                yield from encode()
                size = 0
    yield from encode()


def _sample(
    folder: Path, final: Path, sample: SampleConfig, vocabulary: Vocabulary, run: Run
) -> None:
    """Write a shard a bucket from the pool, and the blend as planned and as sampled."""
    pool = Pool(folder)
    found = bucketed(pool.counts(), sample)
    shares = spread(found.tokens, sample, found.multipliers)
    table: dict[str, Any] = {}
    with staged_folder(final) as staged:
        for bucket, share in shares.items():
            documents = pool.documents(found.of, bucket)
            made: dict[str, float] = {"documents": len(documents)}
            made |= {"available_tokens": share.available, "planned_tokens": share.tokens}
            made |= {"planned_epochs": share.epochs}
            count = tokens = 0
            if share.tokens:
                with ShardWriter(staged, bucket, vocabulary) as writer:
                    for some in pool.drawn(documents, share.tokens, sample.seed, bucket):
                        for number in some.tolist():
                            if run.stop_requested:
                                raise Interrupted(
                                    f"stopped in bucket {bucket}; the same command samples again"
                                )
                            tokens += pool.write(number, writer)
                        count += len(some)
            made |= {"sampled_documents": count, "sampled_tokens": tokens}
            table[bucket] = made | {"sampled_epochs": tokens / share.available}
        run.log(
            "sampled", buckets=len(table), tokens=sum(b["sampled_tokens"] for b in table.values())
        )
        sums = {
            "planned_tokens": fsum(bucket["planned_tokens"] for bucket in table.values()),
            "sampled_tokens": sum(bucket["sampled_tokens"] for bucket in table.values()),
        }
        write_json(run.path / SAMPLE, {**sums, "method": sample.method, "buckets": table})


def _exhibit(buckets: dict[str, Any]) -> dict[str, Any]:
    """The blend as a table."""
    names = ("available_tokens", "planned_tokens", "sampled_tokens")
    epochs = ("planned_epochs", "sampled_epochs")
    rows = [
        [name, *(round(b[n]) for n in names), *(round(b[n], 4) for n in epochs)]
        for name, b in buckets.items()
    ]
    columns = ["bucket", *(name.replace("_", " ") for name in (*names, *epochs))]
    return exhibits.table("the blend, as planned and as sampled", columns, rows)


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
