"""The whole training path learns: characters of Shakespeare, below a trigram model's loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.data.loader import Loader, Phase
from regrow.data.shards import Vocabulary, write_shard
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.held_out import held_out
from regrow.train.objectives.next_token import NextToken
from regrow.train.schedule import Schedule
from regrow.train.trainer import Settings, Trainer
from tests.train.fakes import make_run

TRIGRAM_NATS = 2.07
SEQUENCE, BATCH, STEPS = 128, 8, 600


@pytest.mark.timeout(900)
def test_characters_below_the_trigram_loss(data_folder: Path, tmp_path: Path) -> None:
    text = (data_folder / "tinyshakespeare/input.txt").read_text(encoding="utf-8")
    characters = sorted(set(text))
    ids = [characters.index(c) for c in characters]
    table = dict(zip(characters, ids, strict=True))
    encoded = [table[c] for c in text]
    cut = len(text) * 9 // 10
    vocabulary = Vocabulary(len(ids) + 1, len(ids), "characters")
    train = write_shard(tmp_path / "train", "play", [(encoded[:cut], cut)], vocabulary)
    rest = len(text) - cut
    held = write_shard(tmp_path / "validation", "play", [(encoded[cut:], rest)], vocabulary)

    shape = ModelConfig(layers=4, hidden_size=128, heads=4, vocab_size=vocabulary.size)
    model = Decoder(shape)
    model.initialise(torch.Generator().manual_seed(0))
    loader = Loader({"play": train}, [Phase("all", {"play": 1.0}, STEPS * BATCH)], SEQUENCE, 0)
    tokens = STEPS * BATCH * SEQUENCE
    settings = Settings(
        schedule=Schedule("cosine", 3e-3, tokens, min_ratio=0.05, warmup_tokens=tokens // 20),
        steps=STEPS,
        batch_samples=BATCH,
        micro_batch=BATCH,
        sequence=SEQUENCE,
        threads=2,
        log_every_steps=50,
    )
    before = torch.get_num_threads()
    trainer = Trainer(NextToken(model), loader, settings, make_run(tmp_path / "run"))
    try:
        trainer.train()
    finally:
        torch.set_num_threads(before)
    one_byte = np.array([1] * len(ids) + [0], dtype=np.int32)
    found = held_out(model, {"play": held}, one_byte, SEQUENCE, 32, rest)
    assert found["tokens"] == rest
    assert found["loss"] < TRIGRAM_NATS, found
