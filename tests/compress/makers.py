"""A small corpus as shards, a tokenizer for it, and models in folders."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from regrow.data.shards import Vocabulary, write_shard
from regrow.io.tokenizer import Tokenizer, train_byte_level
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.folder import save
from tests.model.makers import ours

WORDS = {
    "code": ["def ", "return ", "x", "y", " = ", "(", ")", ":\n", "    ", "import ", "self.", "1"],
    "prose": ["the ", "a ", "tree ", "grows ", "slowly ", "and ", "it ", "is ", "tall", ". ", "\n"],
}
VOCAB = 290


def text(source: str, seed: int, words: int = 60) -> str:
    """A random walk in which each word mostly fixes the next: there is something to learn."""
    draw, known = random.Random(f"{source} {seed}"), WORDS[source]
    at, made = 0, []
    for _ in range(words):
        at = (at * 5 + 3) % len(known) if draw.random() < 0.8 else draw.randrange(len(known))
        made.append(known[at])
    return "".join(made)


def make_tokenizer() -> Tokenizer:
    """Byte-level, fitted to the corpus."""
    return train_byte_level((text(s, i) for s in WORDS for i in range(20)), VOCAB)


def make_shards(folder: Path, tokenizer: Tokenizer, documents: int = 60) -> Path:
    """Shards of both sources for all splits, as ``tokenize`` leaves them."""
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    for number, split in enumerate(("train", "validation", "test")):
        for source in WORDS:
            count = documents if split == "train" else documents // 4
            texts = [text(source, 1000 * number + i) for i in range(count)]
            rows = [(tokenizer.encode(t), len(t.encode())) for t in texts]
            write_shard(folder / "shards" / split, source, rows, vocabulary)
    return folder


def save_model(folder: Path, tokenizer: Tokenizer | None, **settings: Any) -> Decoder:
    """A random model of the tokenizer's vocabulary in a folder, beside its tokenizer."""
    size = tokenizer.vocab_size if tokenizer is not None else VOCAB
    model = ours(**{"vocab_size": size, "max_positions": 256, **settings})
    save(model, folder, tokenizer)
    return model


def small(**settings: Any) -> ModelConfig:
    """A shape with grouped heads whose width is not heads x head_dim."""
    shape: dict[str, Any] = {
        "layers": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 6,
        "vocab_size": 61,
    }
    return ModelConfig(**{**shape, **settings})
