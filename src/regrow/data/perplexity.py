"""Models that give a document its perplexity: our own over BPE tokens, or the user's of KenLM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from regrow.core.errors import ConfigError, InputError
from regrow.data.example_texts import text_digest
from regrow.data.ngram_lm import NgramModel
from regrow.io.tokenizer import Tokenizer, train_byte_level

MODEL = "model-{}.safetensors"
LEAST_TOKENS = 1000


class PerplexityModel(Protocol):
    """What the step asks of a model."""

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """``(texts,)`` float64; NaN for a text without a token. A text's depends on it alone."""
        ...


class BuiltIn:
    """An n-gram model over byte-level BPE tokens, both learned from the target.

    Perplexity is a token's: ``exp`` of the mean cross-entropy in nats.

    Args:
        tokenizer: of all models.
        models: one, or two where the target is among the documents: by a hash of the text each
            document has a half, and is asked of the model that learned from the other half. One
            that had learned a document by heart would find it plain whatever it says.
    """

    def __init__(self, tokenizer: Tokenizer, models: Sequence[NgramModel]) -> None:
        self.tokenizer, self.models = tokenizer, tuple(models)

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """See ``PerplexityModel``."""
        ids = self.tokenizer.encode_batch(texts)
        halves = np.array([_half(text, len(self.models)) for text in texts], np.int64)
        found = np.full(len(texts), np.nan)
        for half, model in enumerate(self.models):
            rows = np.flatnonzero(halves == half)
            found[rows] = np.exp(model.nats([ids[row] for row in rows.tolist()]))
        return found

    @classmethod
    def fit(
        cls, texts: Sequence[str], order: int, vocab_size: int, halves: bool
    ) -> tuple[BuiltIn, int]:
        """Learn from texts.

        Args:
            texts: the target.
            order: tokens of the longest runs.
            vocab_size: ids of the tokenizer at most.
            halves: whether there shall be two models.

        Returns:
            The model, and how many tokens the target has.

        Raises:
            InputError: hardly any text.
        """
        tokenizer = train_byte_level(iter(texts), vocab_size)
        ids = tokenizer.encode_batch(texts)
        tokens = sum(map(len, ids))
        if tokens < LEAST_TOKENS:
            raise InputError(
                f"perplexity.target gives {tokens} tokens in {len(texts)} texts, and a model needs "
                f"{LEAST_TOKENS} at the least, better some 100,000; name more text"
            )
        count = 2 if halves else 1
        of = [_half(text, count) for text in texts]
        parts = [
            [i for i, h in zip(ids, of, strict=True) if count == 1 or h != k] for k in range(count)
        ]
        if not all(map(any, parts)):
            raise InputError(
                f"perplexity.target.where chooses {len(texts)} texts, too few to ask each of a "
                "model that has not learned from it; let it choose more"
            )
        return cls(
            tokenizer, [NgramModel.fit(p, order, tokenizer.vocab_size) for p in parts]
        ), tokens

    def save(self, folder: Path) -> None:
        """Write it into a folder that the caller publishes."""
        self.tokenizer.save(folder)
        for number, model in enumerate(self.models):
            model.save(folder / MODEL.format(number))

    @classmethod
    def load(cls, folder: Path) -> BuiltIn:
        """Read what ``save`` wrote."""
        paths = (folder / MODEL.format(number) for number in range(2))
        models = [NgramModel.load(path) for path in paths if path.exists()]
        return cls(Tokenizer.load(folder), models)


def _half(text: str, count: int) -> int:
    return text_digest(text)[0] % count


class KenLm:
    """A user's KenLM model; each line of a text is one of its sentences.

    Args:
        path: ``.arpa`` or a binary of KenLM.
        pieces: the SentencePiece model whose pieces it counts; None for words between blanks.

    Raises:
        ConfigError: kenlm is not installed.
        InputError: no such file, or one that is broken.
    """

    def __init__(self, path: Path, pieces: Path | None) -> None:
        for file in (path, pieces):
            if file is not None and not file.is_file():
                raise InputError(f"perplexity: {file} does not exist")
        try:
            import kenlm
        except ImportError:
            raise ConfigError(
                "perplexity.model needs kenlm: pip install 'regrow[kenlm]' (it is compiled), or "
                "leave model out and set perplexity.target"
            ) from None
        try:
            self.model = kenlm.Model(str(path))
        except OSError as error:
            raise InputError(f"perplexity.model: {path} is not a KenLM model ({error})") from None
        self.pieces = None if pieces is None else _pieces(pieces)

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """See ``PerplexityModel``; the end of a line counts as one of its words."""
        return np.array([self._perplexity(text) for text in texts], np.float64)

    def _perplexity(self, text: str) -> float:
        logs, tokens = 0.0, 0
        for line in text.split("\n"):
            words = line.split() if self.pieces is None else self.pieces.encode(line, out_type=str)
            if words:
                logs += self.model.score(" ".join(words), bos=True, eos=True)
                tokens += len(words) + 1
        return math.pow(10.0, -logs / tokens) if tokens else math.nan


def _pieces(path: Path) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"perplexity.pieces: {path} is no SentencePiece model ({error})") from None


@lru_cache(maxsize=2)
def opened(
    folder: Path | None, stamp: str, model: Path | None, pieces: Path | None
) -> PerplexityModel:
    """A model, read once in each process.

    Args:
        folder: of the built-in one; None where ``model`` names one of KenLM.
        stamp: what it learned from: a folder of the same name may hold another one tomorrow.
        model: of KenLM.
        pieces: of SentencePiece.
    """
    if model is not None:
        return KenLm(model, pieces)
    del stamp
    assert folder is not None
    return BuiltIn.load(folder)
