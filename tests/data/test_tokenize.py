"""The verb ``tokenize``: documents to shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from regrow.core.errors import InputError, Interrupted
from regrow.core.run import Run
from regrow.data.config import TokenizeConfig
from regrow.data.jobs import tokenize as job
from regrow.data.shards import ShardSet
from regrow.io.runs import TOKENIZER_FOLDER, resolve_tokenizer
from regrow.io.tokenizer import Tokenizer
from tests.data.test_tokenizer import TEXTS, documents, train_byte_level


@pytest.fixture
def config(tmp_path: Path) -> TokenizeConfig:
    train_byte_level(iter(TEXTS), 400).save(tmp_path / "tokenizer" / "export")
    return TokenizeConfig(
        documents=documents(tmp_path / "documents"), tokenizer=tmp_path / "tokenizer"
    )


def test_shards_hold_the_documents_in_order(
    config: TokenizeConfig, claim: Callable[..., Run]
) -> None:
    run = claim("tokenize", config)
    result = job.run(config, run)
    tokenizer = Tokenizer.load(config.tokenizer / "export")
    for split in ("train", "validation"):
        rows = pq.read_table(config.documents / f"{split}.parquet").to_pylist()
        shards = ShardSet.open(run.path, split, verify=True)
        assert set(shards) == {"even", "odd"}
        for source, shard in shards.items():
            texts = [row["text"] for row in rows if row["source"] == source]
            pieces = np.split(np.asarray(shard.tokens), shard.document_starts[1:])
            assert [tokenizer.decode(p[:-1].tolist()) for p in pieces] == texts
            assert all(p[-1] == tokenizer.eos_id for p in pieces)
            assert shard.text_bytes == sum(len(t.encode()) for t in texts)
            assert shard.vocab_size == 400
            assert shard.tokenizer_sha256 == tokenizer.sha256 == result["tokenizer_sha256"]
            assert result["tokens"][split][source] == shard.num_tokens
            assert result["documents"][split][source] == len(texts)
            assert result["bytes_per_token"][split][source] == pytest.approx(
                shard.text_bytes / (shard.num_tokens - len(texts))
            )
    assert result["total_tokens"] == sum(
        n for by_source in result["tokens"].values() for n in by_source.values()
    )


def test_the_tokenizer_goes_with_its_shards(
    config: TokenizeConfig, claim: Callable[..., Run], tmp_path: Path
) -> None:
    run = claim("tokenize", config)
    result = job.run(config, run)
    moved = run.path.rename(tmp_path / "elsewhere")
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    found = resolve_tokenizer(moved / TOKENIZER_FOLDER)
    assert Tokenizer.load(found.parent).sha256 == result["tokenizer_sha256"]


def test_batch_size_does_not_matter(
    config: TokenizeConfig, claim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claim("tokenize", config, "first")
    job.run(config, first)
    monkeypatch.setattr(job, "_BATCH_BYTES", 100)
    second = claim("tokenize", config, "second")
    job.run(config, second)
    files = sorted(p.relative_to(first.path) for p in (first.path / "shards").rglob("*.*"))
    assert len(files) == 12
    for path in files:
        assert (first.path / path).read_bytes() == (second.path / path).read_bytes()


def test_goes_on_with_the_missing_split(config: TokenizeConfig, claim: Callable[..., Run]) -> None:
    run = claim("tokenize", config)
    run.stop_requested = True
    with pytest.raises(Interrupted):
        job.run(config, run)
    assert not list((run.path / "shards").iterdir())
    run.stop_requested = False
    result = job.run(config, run)
    kept = (run.path / "shards" / "train").stat().st_ino
    assert job.run(config, run) == result
    assert (run.path / "shards" / "train").stat().st_ino == kept


def test_plan(config: TokenizeConfig) -> None:
    assert job.plan(config).figures["vocab_size"] == 400
    assert job.plan(config).figures["splits"] == "train, validation"


def test_inputs_that_cannot_be(config: TokenizeConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such path"):
        job.plan(config.replace(documents=str(tmp_path / "none")))
    with pytest.raises(InputError, match="no such path"):
        job.plan(config.replace(tokenizer=str(tmp_path / "none")))
    (tmp_path / "tokenizer" / "export" / "tokenizer_config.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="names no eos_token"):
        job.plan(config)
