"""The tokenizer: exact, deterministic, and the same in transformers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.run import Run
from regrow.data.config import TokenizerConfig
from regrow.data.document import DOCUMENTS, Document
from regrow.data.jobs import tokenizer as job
from regrow.io.parquet import TableWriter
from regrow.io.tokenizer import END_OF_TEXT, Tokenizer, train_byte_level

SYLLABLES = ("lo", "rem", "ip", "sum", "do", "sit", "am", "et", "con", "sec", "te", "tur", "ad")


def words(number: int) -> str:
    """Words of two or three syllables, different in each text."""
    picks = [number * 31 + i * i * 7 for i in range(12)]
    return " ".join("".join(SYLLABLES[p // 13**k % 13] for k in range(2 + p % 2)) for p in picks)


TEXTS = [
    f"def function_{i}(value: int = {i * 37}) -> str:\n    return 'ä€😀 {words(i)}'\n"
    for i in range(60)
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_byte_level(iter(TEXTS), 400)


@pytest.fixture(scope="module")
def folder(trained: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    trained.save(path)
    return path


@given(st.text())
@example("<|endoftext|>")
@example("a<|endoftext|>b  \n\t ")
@example("\x00\u2028\ufeff\u0661\u0662 0123456789")
@settings(max_examples=400, deadline=None)
def test_decode_undoes_encode(trained: Tokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert trained.eos_id not in ids  # no text can end a document
    assert int(trained.token_bytes()[ids].sum()) == len(text.encode())


def test_batches_equal_single_texts(trained: Tokenizer) -> None:
    assert trained.encode_batch(TEXTS) == [trained.encode(text) for text in TEXTS]


def test_ids_and_special_token(trained: Tokenizer) -> None:
    assert trained.eos_id == trained.end == 0
    assert trained.bos_id is None
    assert trained.vocab_size == 400
    assert trained.token_bytes().shape == (400,)
    assert trained.token_bytes()[0] == 0
    assert (trained.token_bytes()[1:] > 0).all()
    assert trained.decode([0]) == ""


def test_digits_stand_alone(trained: Tokenizer) -> None:
    tokens = [trained.decode([i]) for i in trained.encode("x = 1234 + 56")]
    assert [t for t in tokens if any(c.isdigit() for c in t)] == list("123456")
    assert not [
        i for i in range(1, 400) if len(t := trained.decode([i])) > 1 and any(map(str.isdigit, t))
    ]


def test_same_ids_in_transformers(trained: Tokenizer, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "  leading", "trailing  \n\n", "naïve façade 日本語 42", ""]:
        ids = trained.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == 0
    assert theirs.eos_token == END_OF_TEXT
    assert len(theirs) == 400


def test_loads_from_file_and_folder_and_saves_the_same(
    trained: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    for path in (folder, folder / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.sha256 == trained.sha256
        assert loaded.eos_id == 0
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    assert digest == trained.sha256
    Tokenizer.load(folder).save(tmp_path / "saved")
    (tmp_path / "copied").mkdir()
    Tokenizer.load(folder).copy_files(tmp_path / "copied")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = (folder / name).read_bytes()
        assert (tmp_path / "saved" / name).read_bytes() == content
        assert (tmp_path / "copied" / name).read_bytes() == content


def test_copies_what_lies_beside_but_no_code(folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    Tokenizer.load(folder).save(source)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "tokenization_custom.py").write_text("raise SystemExit")
    Tokenizer.load(source).copy_files(target)
    assert sorted(p.name for p in target.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_any_number_of_threads_gives_the_same_bytes(trained: Tokenizer, threads: str) -> None:
    code = (
        "import sys, json; from regrow.io.tokenizer import train_byte_level;"
        "print(train_byte_level(iter(json.load(sys.stdin)), 400).sha256)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(TEXTS[::-1]),
        env={**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == trained.sha256


def test_bytes_of_a_sentencepiece_tokenizer() -> None:
    """Metaspace and byte tokens, as in Llama 2's files, built here from a tiny vocabulary."""
    inner = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 0,
                "content": "</s>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {
                "</s>": 0,
                "▁": 1,
                "a": 2,
                "ä": 3,
                "▁a": 4,
                **{f"<0x{b:02X}>": 5 + b for b in range(256)},
            },
            "merges": [["▁", "a"]],
        },
    }
    made = Tokenizer(json.dumps(inner).encode(), {"eos_token": "</s>"}, None)
    for text in ("a a", "ä €", " aä a"):
        assert int(made.token_bytes()[made.encode(text)].sum()) == len(text.encode())
    assert made.eos_id == 0


class TestErrors:
    def test_missing_and_broken(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
            Tokenizer.load(tmp_path)
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(InputError, match="is not a tokenizer"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "{", "\x00"])
    def test_broken_settings(self, folder: Path, tmp_path: Path, content: str) -> None:
        Tokenizer.load(folder).save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(InputError, match=r"tokenizer_config\.json"):
            Tokenizer.load(tmp_path)

    def test_code_of_its_own_is_refused(self, folder: Path, tmp_path: Path) -> None:
        Tokenizer.load(folder).save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')
        with pytest.raises(InputError, match="auto_map"):
            Tokenizer.load(tmp_path)

    def test_no_end_of_text(self, folder: Path, tmp_path: Path) -> None:
        Tokenizer.load(folder).save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 5}')
        loaded = Tokenizer.load(tmp_path)
        assert loaded.eos_id is None
        with pytest.raises(InputError, match="names no eos_token"):
            _ = loaded.end


def documents(folder: Path, validation: bool = True) -> Path:
    """A documents folder as ``curate`` writes it."""
    folder.mkdir()
    for split, part in (("train", TEXTS[:50]), ("validation", TEXTS[50:] if validation else [])):
        rows: list[dict[str, Any]] = []
        for number, text in enumerate(part):
            source = "even" if number % 2 == 0 else "odd"
            rows.append({**Document(text, source, "code", f"{number}").row(), "split": split})
        rows.sort(key=lambda row: row["id"])
        with TableWriter(folder / f"{split}.parquet", DOCUMENTS) as writer:
            writer.write_rows(rows)
    return folder


class TestJob:
    def test_makes_an_export_folder(self, tmp_path: Path, claim: Callable[..., Run]) -> None:
        config = TokenizerConfig(documents=documents(tmp_path / "documents"), vocab_size=350)
        run = claim("tokenizer", config)
        assert job.plan(config).figures["sample_bytes"] == config.sample_bytes
        result = job.run(config, run)
        made = Tokenizer.load(run.path / "export")
        assert made.vocab_size == result["vocab_size"] == 350
        assert made.sha256 == result["sha256"]
        assert result["trained_bytes"] == sum(len(t.encode()) for t in TEXTS[:50])
        assert {"even", "odd", "all"} == set(result["bytes_per_token"])
        held_out = TEXTS[50:]
        tokens = sum(len(made.encode(text)) for text in held_out)
        expected = sum(len(t.encode()) for t in held_out) / tokens
        assert result["bytes_per_token"]["all"] == pytest.approx(expected)
        every = result["fertility"]["all"]
        assert every["tokens_per_byte"] == pytest.approx(1 / expected)
        assert every["trained_bytes"] == result["trained_bytes"]
        again = claim("tokenizer", config, "again")
        assert job.run(config, again)["sha256"] == result["sha256"]

    def test_learns_from_a_part_when_capped(
        self, tmp_path: Path, claim: Callable[..., Run]
    ) -> None:
        folder = documents(tmp_path / "documents", validation=False)
        config = TokenizerConfig(documents=folder, vocab_size=300, sample_bytes=1000)
        result = job.run(config, claim("tokenizer", config))
        assert 800 < result["trained_bytes"] <= 1000
        assert set(result["bytes_per_token"]) == {"even", "odd", "all"}  # from the train split

    def test_too_little_text_gives_fewer_ids(
        self, tmp_path: Path, claim: Callable[..., Run]
    ) -> None:
        folder = documents(tmp_path / "documents")
        config = TokenizerConfig(documents=folder, vocab_size=60_000)
        result = job.run(config, claim("tokenizer", config))
        assert 257 < result["vocab_size"] < result["asked_vocab_size"] == 60_000

    def test_sentencepiece(self, tmp_path: Path, claim: Callable[..., Run]) -> None:
        sentencepiece = pytest.importorskip("sentencepiece")
        folder = documents(tmp_path / "documents")
        config = TokenizerConfig(documents=folder, kind="sentencepiece", vocab_size=350)
        assert job.plan(config).figures["kind"] == "sentencepiece"
        run = claim("tokenizer", config)
        result = job.run(config, run)
        export = run.path / "export"
        made = Tokenizer.load(export)
        model = (export / "tokenizer.model").read_bytes()
        assert hashlib.sha256(model).hexdigest() == result["model_sha256"]
        assert made.sha256 == result["sha256"]
        assert made.vocab_size == result["vocab_size"] == 350
        assert (made.eos_id, made.bos_id) == (3, None)
        theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
        assert theirs.encode(TEXTS) == made.encode_batch(TEXTS)
        tokens = sum(len(theirs.encode(text)) for text in TEXTS[50:])
        assert result["fertility"]["all"]["tokens"] == tokens
        again = claim("tokenizer", config, "again")
        job.run(config, again)
        assert (again.path / "export" / "tokenizer.model").read_bytes() == model

    @pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
    def test_weights_reach_the_sample(
        self, tmp_path: Path, claim: Callable[..., Run], kind: str
    ) -> None:
        pytest.importorskip("sentencepiece")
        folder = documents(tmp_path / "documents")
        settings = {"documents": str(folder), "kind": kind, "vocab_size": 330}
        plain, more = (
            TokenizerConfig.model_validate_json(json.dumps({**settings, "weights": weights}))
            for weights in ({}, {"even": 3})
        )
        first = job.run(plain, claim("tokenizer", plain, "plain"))
        second = job.run(more, claim("tokenizer", more, "more"))
        before, after = (r["fertility"]["by_source"] for r in (first, second))
        assert after["even"]["trained_bytes"] == 3 * before["even"]["trained_bytes"]
        assert after["odd"]["trained_bytes"] == before["odd"]["trained_bytes"]
        assert first["sha256"] != second["sha256"]

    def test_impossible_settings(self, tmp_path: Path, claim: Callable[..., Run]) -> None:
        pytest.importorskip("sentencepiece")
        folder = documents(tmp_path / "documents")
        config = TokenizerConfig(documents=folder, kind="sentencepiece", vocab_size=60_000)
        with pytest.raises(ConfigError, match=r"60000, but the text has pairs for \d+ ids"):
            job.run(config, claim("tokenizer", config))
        assert not (tmp_path / "tokenizer" / "export").exists()
        with pytest.raises(ConfigError, match="fit no document"):
            job.plan(config.replace(weights={"evn": 2}))
        with pytest.raises(ValueError, match="261 is too small for kind=sentencepiece"):
            config.replace(vocab_size=261)
        with pytest.raises(ValueError, match="no effect with kind=bytes"):
            config.replace(kind="bytes", character_coverage=0.9)

    def test_plan_asks_for_the_library(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = documents(tmp_path / "documents")
        monkeypatch.setitem(sys.modules, "sentencepiece", None)
        with pytest.raises(ConfigError, match=r"regrow\[data\]"):
            job.plan(TokenizerConfig(documents=folder, kind="sentencepiece"))
        job.plan(TokenizerConfig(documents=folder))

    def test_stops_while_reading(self, tmp_path: Path, claim: Callable[..., Run]) -> None:
        pytest.importorskip("sentencepiece")
        folder = documents(tmp_path / "documents")
        for kind in ("bytes", "sentencepiece"):
            config = TokenizerConfig.model_validate_json(
                json.dumps({"documents": str(folder), "kind": kind, "vocab_size": 330})
            )
            run = claim("tokenizer", config, kind)
            run.stop_requested = True
            with pytest.raises(Interrupted, match="stopped while reading"):
                job.run(config, run)
            assert not run.export.exists()

    def test_missing_documents(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such path"):
            job.plan(TokenizerConfig(documents=tmp_path / "none"))


def test_token_bytes_type(trained: Tokenizer) -> None:
    assert trained.token_bytes().dtype == np.int32
