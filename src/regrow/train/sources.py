"""The shards that a training stage reads, and the tokenizer that they came from; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regrow.core.errors import InputError
from regrow.data.shards import Shard, ShardSet
from regrow.io.runs import TOKENIZER_FOLDER, resolve_shards, resolve_tokenizer
from regrow.train.config import DataConfig

_BLOCK = 1 << 24  # tokens looked at together


@dataclass(frozen=True)
class Sources:
    """The shards of a stage.

    Args:
        folder: their folder, with a folder a split.
        train: by source.
        held_out: by source, of the split that the config names.
    """

    folder: Path
    train: ShardSet
    held_out: ShardSet

    @classmethod
    def open(cls, data: DataConfig, split: str) -> Sources:
        """Open what ``data.shards`` names; only the sidecars are read.

        Raises:
            InputError: no shards, or none of the split.
        """
        folder = resolve_shards(data.shards)
        return cls(folder, ShardSet.open(folder, "train"), ShardSet.open(folder, split))

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return next(iter(self.train.values())).vocab_size

    @property
    def tokenizer_sha256(self) -> str:
        """Of the tokenizer that made the shards."""
        return next(iter(self.train.values())).tokenizer_sha256

    def check_ids(self, names: Iterable[str]) -> None:
        """Read every token of the named sources once: none may lie outside of the vocabulary.

        Raises:
            InputError: with the shard and the position of the first such token.
        """
        for shards, chosen in ((self.train, names), (self.held_out, list(self.held_out))):
            for name in chosen:
                _check_shard(shards[name])

    def find_tokenizer(self, given: Path | None) -> Path | None:
        """The ``tokenizer.json`` to use: the given one, or the one that lies beside the shards.

        Raises:
            InputError: the given path holds none.
        """
        if given is not None:
            return resolve_tokenizer(given)
        try:
            return resolve_tokenizer(self.folder.parent / TOKENIZER_FOLDER)
        except InputError:
            return None


def _check_shard(shard: Shard) -> None:
    for start in range(0, shard.num_tokens, _BLOCK):
        block = shard.tokens[start : start + _BLOCK]
        if int(block.max()) >= shard.vocab_size:
            at = int(np.argmax(block >= shard.vocab_size))
            raise InputError(
                f"shard {shard.source}: token {start + at} is {int(block[at])}, but the vocabulary "
                f"has {shard.vocab_size} ids; the file is damaged, tokenize again"
            )
