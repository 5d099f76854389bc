"""Shards on disk: what is written is what is read, and damage is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.atomic import sha256_file
from regrow.core.errors import InputError
from regrow.data.shards import Shard, ShardSet, Vocabulary, token_dtype, write_shard

SHA = "a" * 64


@given(
    st.lists(st.lists(st.integers(0, 70_000), max_size=20), max_size=12),
    st.sampled_from([70_001, 1 << 20]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocab: int
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    made = write_shard(folder, "s", [(d, len(d)) for d in documents], Vocabulary(vocab, 3, SHA))
    shard = Shard.open(folder / "s.bin", verify=True)
    flat = [t for d in documents for t in (*d, 3)]
    assert shard.tokens.tolist() == flat == made.tokens.tolist()
    starts = np.cumsum([0, *(len(d) + 1 for d in documents)])[:-1]
    assert shard.document_starts.tolist() == starts.tolist()
    assert (shard.num_tokens, shard.num_documents) == (len(flat), len(documents))
    assert shard.text_bytes == sum(map(len, documents))


def test_uint16_as_long_as_ids_fit(tmp_path: Path) -> None:
    assert token_dtype(65_536) == np.dtype("<u2")
    assert token_dtype(65_537) == np.dtype("<u4")
    shard = write_shard(tmp_path, "s", [([65_535], 1)], Vocabulary(65_536, 0, SHA))
    assert (tmp_path / "s.bin").read_bytes() == b"\xff\xff\x00\x00"
    assert shard.tokens.dtype == np.uint16


def test_sidecar_says_what_it_is(tmp_path: Path) -> None:
    write_shard(tmp_path, "wiki.en", [([1, 2], 9), ([4], 2)], Vocabulary(100, 0, SHA))
    sidecar = json.loads((tmp_path / "wiki.en.json").read_text())
    assert sidecar == {
        "format": 1,
        "source": "wiki.en",
        "dtype": "uint16",
        "tokens": 5,
        "documents": 2,
        "text_bytes": 11,
        "vocab_size": 100,
        "eos_id": 0,
        "tokenizer_sha256": SHA,
        "sha256": sha256_file(tmp_path / "wiki.en.bin"),
        "starts_sha256": sha256_file(tmp_path / "wiki.en.starts"),
    }
    for name in ("wiki.en", "wiki.en.json", "wiki.en.bin"):
        assert Shard.open(tmp_path / name).source == "wiki.en"


@pytest.mark.parametrize("bad", [-1, 100])
def test_ids_outside_of_the_vocabulary_are_refused(tmp_path: Path, bad: int) -> None:
    with pytest.raises(InputError, match=f"document 1: token id {bad}"):
        write_shard(tmp_path, "s", [([1], 1), ([5, bad], 1)], Vocabulary(100, 0, SHA))
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("suffix", [".bin", ".starts"])
def test_truncation_is_seen_at_once(
    make_shard: Callable[..., Shard], tmp_path: Path, suffix: str
) -> None:
    make_shard("s", [10, 20])
    path = tmp_path / "shards" / "train" / f"s{suffix}"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"s{suffix} has {size - 1} bytes, {size} are recorded"):
        Shard.open(path)
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        Shard.open(path.with_suffix(".json"))


@pytest.mark.parametrize("suffix", [".bin", ".starts"])
def test_tampering_is_seen_when_asked(
    make_shard: Callable[..., Shard], tmp_path: Path, suffix: str
) -> None:
    make_shard("s", [10, 20])
    path = tmp_path / "shards" / "train" / f"s{suffix}"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    Shard.open(path)  # sizes are right
    with pytest.raises(InputError, match="other content"):
        Shard.open(path, verify=True)
    with pytest.raises(InputError, match="other content"):
        ShardSet.open(tmp_path / "shards", "train", verify=True)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"source": 1}', "\x00", '{"dtype": "float64"}']
)
def test_broken_sidecar(make_shard: Callable[..., Shard], tmp_path: Path, content: str) -> None:
    make_shard("s", [10])
    sidecar = tmp_path / "shards" / "train" / "s.json"
    if content == '{"dtype": "float64"}':
        content = json.dumps({**json.loads(sidecar.read_text()), "dtype": "float64"})
    sidecar.write_text(content)
    with pytest.raises(InputError, match=r"s\.json"):
        Shard.open(sidecar)


def test_nothing_is_mapped_before_it_is_used(make_shard: Callable[..., Shard]) -> None:
    shard = make_shard("s", [10])
    assert "tokens" not in vars(shard)
    with pytest.raises(ValueError, match="read-only"):
        shard.tokens[0] = 1


class TestShardSet:
    def test_opens_a_run_or_its_shards(
        self, make_shard: Callable[..., Shard], tmp_path: Path
    ) -> None:
        make_shard("a", [10])
        make_shard("b", [10])
        assert list(ShardSet.open(tmp_path, "train")) == ["a", "b"]
        found = ShardSet.open(tmp_path / "shards", "train")
        assert list(found.choose(["b"])) == ["b"]
        with pytest.raises(InputError, match=r"'c'.*shards: a, b"):
            found.choose(["c"])

    def test_says_what_is_missing(self, make_shard: Callable[..., Shard], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            ShardSet.open(tmp_path / "no", "train")
        make_shard("a", [10])
        with pytest.raises(InputError, match="'trian', did you mean train"):
            ShardSet.open(tmp_path, "trian")
        (tmp_path / "shards" / "test").mkdir()
        with pytest.raises(InputError, match="holds no shard"):
            ShardSet.open(tmp_path, "test")

    def test_refuses_shards_of_two_tokenizers(
        self, make_shard: Callable[..., Shard], tmp_path: Path
    ) -> None:
        make_shard("a", [10])
        make_shard("b", [10], Vocabulary(1000, 0, "b" * 64))
        with pytest.raises(InputError, match="several tokenizers"):
            ShardSet.open(tmp_path, "train")


def test_refuses_another_vocabulary(make_shard: Callable[..., Shard]) -> None:
    shard = make_shard("a", [10])
    shard.require(1000)
    shard.require(1024, "f" * 64)
    with pytest.raises(InputError, match="ids up to 999, the vocabulary has 512"):
        shard.require(512)
    with pytest.raises(InputError, match="made with the tokenizer ffffffffffff"):
        shard.require(1000, "0" * 64)
