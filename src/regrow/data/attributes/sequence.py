"""Any Hugging Face sequence classifier as a classifier of documents.

Legend: N texts, W windows, T tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from regrow.core.errors import InputError, RunError
from regrow.data.attributes.measures import softmax
from regrow.data.attributes.transformer import (
    folder_hash,
    load_model,
    load_tokenizer,
    positions,
)
from regrow.data.attributes.windows import averaged, in_windows
from regrow.io.hf import printable

MAX_TOKENS = 512
_CUDA_ROWS = 32
_CUDA_STEP = 64


class SequenceClassifier:
    """A model with a head over classes, and its tokenizer.

    On a CPU each window is a forward pass of its own, so that what it gives depends on nothing
    else. On a GPU windows of like length share passes of one shape, filled up with padding: a
    window's figures could differ in their last bits only if the shape did.

    Made by :meth:`load`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: tokenizers.Tokenizer,
        config: dict[str, Any],
        name: str,
        rows: int,
    ) -> None:
        self.model, self.tokenizer, self.rows = model, tokenizer, rows
        self.name = name
        self.id = ""
        self.device = next(model.parameters()).device
        names: dict[int, str] = model.config.id2label
        self.labels = tuple(names[number] for number in range(model.config.num_labels))
        self.independent = (
            config.get("problem_type") == "multi_label_classification" or len(self.labels) == 1
        )
        self.window = positions(config, MAX_TOKENS)
        self._pad = int(config.get("pad_token_id") or 0)
        tokenizer.enable_truncation(self.window)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> SequenceClassifier:
        """A classifier from a Hugging Face folder.

        Raises:
            InputError: weights in another format than safetensors, code of its own, an unknown
                class, no ``tokenizer.json``, a model that is no classifier.
            ConfigError: transformers or CUDA is missing.
        """
        model, config = load_model(folder, "AutoModelForSequenceClassification", device)
        tokenizer = load_tokenizer(folder)
        rows = 1 if device == "cpu" else _CUDA_ROWS
        made = cls(model, tokenizer, config, str(folder), rows)
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        if size > model.get_input_embeddings().num_embeddings:
            raise InputError(
                f"{folder}: its tokenizer has {size} ids, its model "
                f"{model.get_input_embeddings().num_embeddings}; they do not belong together"
            )
        made.id = f"{printable(str(config.get('model_type', 'model')))}-{folder_hash(folder)[:12]}"
        return made

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """``(N, K)`` float64: the mean over each text's windows.

        Raises:
            RunError: the model gives something that is no number.
        """
        pieces, counts = in_windows(texts)
        found = averaged(self._window_logits(pieces), counts)
        if not np.isfinite(found).all():
            raise RunError(f"{self.name}: gives logits that are not finite numbers")
        return found

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """``(N, K)`` float64; of a model whose classes do not exclude each other, each its own."""
        logits = self.logits(texts)
        return 1 / (1 + np.exp(-logits)) if self.independent else softmax(logits)

    def _window_logits(self, pieces: Sequence[str]) -> np.ndarray:
        """``(W, K)`` float64."""
        ids = [encoding.ids or [self._pad] for encoding in self.tokenizer.encode_batch(pieces)]
        found = np.zeros((len(ids), len(self.labels)))
        shapes: dict[int, list[int]] = {}
        for number, window in enumerate(ids):
            shapes.setdefault(self._padded(len(window)), []).append(number)
        for length, members in shapes.items():
            for start in range(0, len(members), self.rows):
                chosen = members[start : start + self.rows]
                found[chosen] = self._forward([ids[number] for number in chosen], length)
        return found

    def _padded(self, length: int) -> int:
        return length if self.rows == 1 else min(-(-length // _CUDA_STEP) * _CUDA_STEP, self.window)

    @torch.inference_mode()
    def _forward(self, windows: list[list[int]], length: int) -> np.ndarray:
        """Logits of one pass over ``rows`` windows, those beyond the given ones being padding."""
        tokens = torch.full((self.rows, length), self._pad, dtype=torch.long)
        mask = torch.zeros((self.rows, length), dtype=torch.long)
        mask[:, 0] = 1  # a row without any token would be a division by zero
        for row, window in enumerate(windows):
            tokens[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        logits = self.model(
            input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)
        ).logits
        found: np.ndarray = logits[: len(windows)].double().cpu().numpy()
        return found
