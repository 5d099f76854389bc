"""What an arm is measured by: loss on the sets, of a 3-gram model or of our decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from experiments.curate.arms import Drawn
from experiments.curate.prepare import Seed, Size
from experiments.verbs import do

from regrow.core import atomic
from regrow.data.ngram_lm import NgramModel
from regrow.data.shards import ShardSet, Vocabulary, write_shard

ORDER = 3
MEASURED = ("held_in", "held_out", "far")
Ints = npt.NDArray[np.int64]


def ngram(seed: Seed, sample: Drawn) -> dict[str, Any]:
    """Figures of an interpolated 3-gram model of the sample."""
    tokenizer = seed.tokenizer()
    model = NgramModel.fit(sample.documents, ORDER, tokenizer.vocab_size)
    sets = {}
    for name, kinds in seed.sets().items():
        if name in MEASURED:
            sums = {}
            for kind, texts in kinds.items():
                ids = [[*row, tokenizer.end] for row in tokenizer.encode_batch(texts)]
                nats = -float(model.log_probabilities(ids).sum())
                sums[kind] = (nats, sum(map(len, ids)), sum(len(t.encode()) for t in texts))
            sets[name] = figures(sums)
    return sets


def figures(sums: Mapping[str, tuple[float, int, int]]) -> dict[str, Any]:
    """Losses from kind to (nats, tokens, bytes).

    Returns:
        ``nats`` a token, ``bits`` a byte, ``tokens``, ``bytes``, and ``kinds`` to nats a token.
    """
    nats, tokens, size = (sum(column) for column in zip(*sums.values(), strict=True))
    return {
        "nats": nats / tokens,
        "bits": nats / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
        "kinds": {kind: n / t for kind, (n, t, _) in sums.items()},
    }


def decoder(seed: Seed, sample: Drawn, folder: Path) -> dict[str, Any]:
    """Figures of our decoder, trained once through the sample by ``pretrain``."""
    import torch

    from regrow.model.folder import load
    from regrow.train.held_out import held_out

    size = seed.size
    shards = _shards(seed, sample, folder / "data")
    do("pretrain", folder / "model", **pretraining(shards, sample.tokens, seed.seed, size))
    model = load(folder / "model" / "export").eval()
    sets = {}
    with torch.no_grad():
        for name in MEASURED:
            found = ShardSet.open(seed.folder / "measured" / name, "test")
            sums = {}
            for kind, shard in found.items():
                made = held_out(model, {kind: shard}, None, size.sequence, 16, shard.num_tokens)
                nats = made["loss"] * made["tokens"]
                sums[kind] = (nats, made["tokens"], shard.text_bytes)
            sets[name] = figures(sums)
    return sets


def pretraining(shards: Path, tokens: int, seed: int, size: Size) -> dict[str, Any]:
    """Settings of ``pretrain``; the same for every arm but for the shards."""
    return {
        "model": {
            "layout": "llama",
            "hidden_size": size.hidden,
            "layers": size.layers,
            "heads": 4,
            "kv_heads": 2,
            "intermediate_size": 3 * size.hidden,
        },
        "data": {"shards": str(shards), "sequence": size.sequence, "seed": 1 + seed,
                 "phases": [{"name": "pool", "weights": {"pool": 1.0}}]},
        "train": {
            "tokens": tokens // size.batch * size.batch,
            "batch_tokens": size.batch,
            "micro_batch": size.batch // size.sequence,
            "precision": "fp32",
        },
        "optim": {"lr": size.lr, "min_ratio": 0.1, "warmup_tokens": tokens // 20},
        "eval": {"tokens": 4096},
        "save": {"every_tokens": max(size.batch, tokens // 10)},
        "log": {"every_steps": 50},
        "seed": seed,
    }  # fmt: skip


def _shards(seed: Seed, sample: Drawn, folder: Path) -> Path:
    """The sample as shards; what the run watches on the way is the target, not what is measured."""
    tokenizer = seed.tokenizer()
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.sha256)
    measured = seed.folder / "measured"
    sets = seed.sets()
    if not measured.exists():
        with atomic.staged_folder(measured) as staged:
            for name in MEASURED:
                for kind, texts in sets[name].items():
                    encoded = _encoded(seed, texts)
                    write_shard(staged / name / "shards" / "test", kind, encoded, vocabulary)
    if not folder.exists():
        with atomic.staged_folder(folder) as staged:
            texts = [text for found in sets["target"].values() for text in found]
            for split, documents in (
                ("train", [(ids[:-1].tolist(), 0) for ids in sample.documents]),
                ("validation", _encoded(seed, texts)),
            ):
                write_shard(staged / "shards" / split, "pool", documents, vocabulary)
            tokenizer.save(staged / "tokenizer")
    return folder


def _encoded(seed: Seed, texts: Sequence[str]) -> list[tuple[list[int], int]]:
    ids = seed.tokenizer().encode_batch(texts)
    return [(row, len(text.encode())) for row, text in zip(ids, texts, strict=True)]
