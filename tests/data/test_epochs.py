"""Whole-document epochs: what is planned is sampled, each document as often as any other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.run import Run
from regrow.data.config import TokenizeConfig
from regrow.data.document import DOCUMENTS, Document
from regrow.data.jobs import tokenize as job
from regrow.data.loader import Loader, Phase
from regrow.data.shards import ShardSet
from regrow.io.parquet import TableWriter
from regrow.io.tokenizer import Tokenizer, train_byte_level
from tests.data.test_tokenizer import TEXTS

_SCHEMA = DOCUMENTS.append(pa.field("quality", pa.string())).append(
    pa.field("toxicity", pa.float32())
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A table of 120 documents in two sources and three qualities, and a tokenizer."""
    root = tmp_path_factory.mktemp("inputs")
    train_byte_level(iter(TEXTS), 400).save(root / "tokenizer" / "export")
    (root / "documents").mkdir()
    for split, count in (("train", 120), ("validation", 6)):
        rows = []
        for number in range(count):
            text = f"{number} {TEXTS[number % 60]}" * (1 + number % 4)
            document = Document(text, "ab"[number % 2], "prose", f"{split}{number}")
            quality = (None, "High", "High", "Medium", "Low", "Low")[number % 6]
            rows.append(
                {**document.row(), "split": split, "quality": quality, "toxicity": 0.1}
                | {"id": f"{document.id}"}
            )
        with TableWriter(root / "documents" / f"{split}.parquet", _SCHEMA) as writer:
            writer.write_rows(sorted(rows, key=lambda row: row["id"]))
    return {"documents": root / "documents", "tokenizer": root / "tokenizer"}


def configured(inputs: dict[str, Path], **sample: Any) -> TokenizeConfig:
    words = {**{name: str(path) for name, path in inputs.items()}, "sample": sample}
    return TokenizeConfig.model_validate_json(json.dumps(words))


def texts_of(run: Run, tokenizer: Tokenizer, split: str = "train") -> dict[str, list[str]]:
    """Bucket to its documents in order."""
    found = {}
    for bucket, shard in ShardSet.open(run.path, split, verify=True).items():
        pieces = np.split(np.asarray(shard.tokens), shard.document_starts[1:])
        assert all(piece[-1] == tokenizer.eos_id for piece in pieces)
        found[bucket] = [tokenizer.decode(piece[:-1].tolist()) for piece in pieces]
        assert shard.text_bytes == sum(len(text.encode()) for text in found[bucket])
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"buckets": ["quality"], "method": "unimax", "max_epochs": 4.0, "total_tokens": 22_000},
        {"buckets": ["quality", "source"], "method": "alpha", "alpha": 0.3, "min_share": 0.1},
        {"method": "manual", "weights": {"a": 0.9, "b": 0.1}, "total_tokens": 30_000},
        {"total_tokens": 5000},
        {
            "buckets": ["quality"],
            "multipliers": {"quality": {"High": 2, "Low": 0}},
            "groups": {"quality": {"Good": ["Medium", "unknown"]}},
            "total_tokens": 20_000,
        },
    ],
)
def test_planned_epochs_are_sampled_epochs(
    settings: dict[str, Any], inputs: dict[str, Path], claim: Callable[..., Run]
) -> None:
    config = configured(inputs, **settings)
    run = claim("tokenize", config)
    plan = job.plan(config).figures
    result = job.run(config, run)
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "export")
    found = texts_of(run, tokenizer)
    table = result["sample"]["buckets"]
    everything: dict[str, list[str]] = {}
    longest = 0

    for row in pq.read_table(inputs["documents"] / "train.parquet").to_pylist():
        everything.setdefault(row["text"], []).append(row["id"])
        longest = max(longest, len(tokenizer.encode(row["text"])) + 1)
    assert len(everything) == 120
    for bucket, made in table.items():
        # Within one document, and in fact within half the one where the pass ends.
        assert abs(made["sampled_tokens"] - made["planned_tokens"]) <= longest / 2
        texts = found.get(bucket, [])
        tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
        assert tokens == made["sampled_tokens"] == result["tokens"]["train"].get(bucket, 0)
        assert len(texts) == made["sampled_documents"]
        assert made["sampled_epochs"] == pytest.approx(tokens / made["available_tokens"])
        # Each pass holds each document once, in an order of its own; the last one a part of them.
        size = made["documents"]
        passes = [texts[at : at + size] for at in range(0, len(texts), size)]
        for one in passes:
            assert len(set(one)) == len(one)
        assert all(set(one) == set(passes[0]) for one in passes[:-1])
        assert set(passes[-1]) <= set(passes[0]) if passes else made["planned_tokens"] == 0
        assert len({tuple(one) for one in passes}) == len(passes)
        times = Counter(texts).values()
        assert not times or max(times) - min(times) <= 1
    asked = settings.get("total_tokens")
    if asked:
        assert result["sample"]["planned_tokens"] == pytest.approx(asked)
        assert abs(result["sample"]["sampled_tokens"] - asked) <= longest * len(table) / 2
    if "min_share" not in settings:
        assert plan["buckets"].split(", ") == sorted(table, key=lambda name: name)
    assert set(texts_of(run, tokenizer, "validation")) == {"a", "b"}
    assert sorted(path.name for path in run.path.iterdir() if path.is_dir()) == [
        *(("checkpoints",) if (run.path / "checkpoints").exists() else ()),
        "shards",
        "tokenizer",
    ]
    assert result["exhibits"][0]["rows"][0][0] == next(iter(table))
    assert job.run(config, run) == result


def test_seeds_and_buckets_have_orders_of_their_own(
    inputs: dict[str, Path], claim: Callable[..., Run]
) -> None:
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "export")
    made = []
    for number, seed in enumerate((0, 0, 1)):
        config = configured(inputs, total_tokens=8000, seed=seed)
        run = claim("tokenize", config, f"run{number}")
        job.run(config, run)
        made.append(texts_of(run, tokenizer))
    assert made[0] == made[1]
    assert set(made[0]["a"]) != set(made[2]["a"])


def test_a_stopped_run_goes_on(
    inputs: dict[str, Path], claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(inputs, total_tokens=40_000)
    whole = claim("tokenize", config, "whole")
    expected = job.run(config, whole)
    run = claim("tokenize", config, "stopped")
    write = job.Pool.write

    def stopping(self: Any, number: int, writer: Any) -> int:
        run.stop_requested = True
        return write(self, number, writer)

    monkeypatch.setattr(job.Pool, "write", stopping)
    with pytest.raises(Interrupted, match="samples again"):
        job.run(config, run)
    assert (run.path / "pool").is_dir()
    monkeypatch.undo()
    run.stop_requested = False
    assert job.run(config, run) == expected
    for path in sorted((whole.path / "shards").rglob("*.*")):
        assert (run.path / path.relative_to(whole.path)).read_bytes() == path.read_bytes()


def test_who_reads_each_shard_once_reads_the_blend(
    inputs: dict[str, Path], claim: Callable[..., Run]
) -> None:
    """The loader with natural shares, as pretrain has them where no phase is given."""
    settings = {"buckets": ["quality"], "method": "uniform", "min_share": 0.0}
    config = configured(inputs, total_tokens=40_000, **settings)
    run = claim("tokenize", config)
    result = job.run(config, run)
    shards = ShardSet.open(run.path, "train")
    weights = {name: float(shard.num_tokens) for name, shard in shards.items()}
    samples = sum((shard.num_tokens - 1) // 16 for shard in shards.values())
    ledger = Loader(shards, [Phase("all", weights, samples)], 16, seed=0).ledger(samples)
    for bucket, made in result["sample"]["buckets"].items():
        assert ledger[bucket]["epochs"] == pytest.approx(1, abs=0.01)
        assert ledger[bucket]["tokens"] == pytest.approx(10_000, rel=0.03)
        assert made["planned_tokens"] == pytest.approx(10_000)


@pytest.mark.parametrize(
    ("sample", "kind", "part"),
    [
        ({"buckets": ["qualty"]}, InputError, "no column 'qualty', did you mean quality?"),
        ({"buckets": ["toxicity"]}, InputError, "toxicity holds float, not labels"),
        (
            {"buckets": ["quality"], "multipliers": {"quality": {"Best": 2.0}}},
            InputError,
            "no document has 'Best' as its quality",
        ),
        (
            {"method": "manual", "weights": {"a": 1.0, "c": 1.0}},
            ConfigError,
            "sample.weights: no bucket 'c'",
        ),
    ],
)
def test_samples_that_cannot_be(
    sample: dict[str, Any], kind: type[Exception], part: str, inputs: dict[str, Path]
) -> None:
    with pytest.raises(kind) as error:
        job.plan(configured(inputs, **sample))
    assert part in str(error.value)


def test_a_budget_that_cannot_be_filled(inputs: dict[str, Path], claim: Callable[..., Run]) -> None:
    config = configured(inputs, method="unimax", max_epochs=1.0, total_tokens=10**9)
    run = claim("tokenize", config)
    with pytest.raises(ConfigError, match="1,000,000,000 is more than 1 times the"):
        job.run(config, run)
    assert not (run.path / "shards" / "train").exists()
