"""A causal language model as an annotator: which class's name is likeliest after the question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from regrow.core.errors import RunError
from regrow.data.attributes.measures import softmax
from regrow.data.attributes.transformer import (
    folder_hash,
    load_model,
    load_tokenizer,
    positions,
)

MAX_TOKENS = 2048


class Ranker:
    """Scores the names of classes as continuations of a prompt.

    A name's score is its log-likelihood after the prompt less its log-likelihood after the same
    prompt without the document: what the document adds. So a name is not preferred for being short
    or common (contextual calibration, after Zhao et al., Calibrate Before Use, 2021).

    Args:
        folder: a Hugging Face folder of a causal model, such as a run's export.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: as :func:`regrow.data.attributes.transformer.load_model`.
        ConfigError: transformers or CUDA is missing.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.model, config = load_model(folder, "AutoModelForCausalLM", device)
        self.tokenizer = load_tokenizer(folder)
        self.name = str(folder)
        self.id = f"{config.get('model_type')}-{folder_hash(folder)[:12]}"
        self.window = positions(config, MAX_TOKENS)
        self.device = next(self.model.parameters()).device

    def log_likelihoods(self, prompt: str, names: Sequence[str]) -> np.ndarray:
        """``(names,)`` float64, in nats: of each name, after a blank, as the prompt goes on.

        A prompt that does not fit the model's positions loses its beginning.

        Raises:
            RunError: the model gives something that is no number.
        """
        before = self.tokenizer.encode(prompt).ids
        found = np.zeros(len(names))
        for number, name in enumerate(names):
            ids = self.tokenizer.encode(f"{prompt} {name}").ids
            # What the name adds; where it merges with the prompt's end, from the first difference.
            shared = next(
                (i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b),
                min(len(before), len(ids) - 1),
            )
            found[number] = self._tail(ids[-self.window :], max(1, len(ids) - max(1, shared)))
        if not np.isfinite(found).all():
            raise RunError(f"{self.name}: gives logits that are not finite numbers")
        return found

    @torch.inference_mode()
    def _tail(self, ids: list[int], count: int) -> float:
        """Log-likelihood of the last ``count`` ids."""
        count = min(count, len(ids) - 1)
        tokens = torch.tensor([ids], device=self.device)
        logits = self.model(input_ids=tokens).logits[0, -count - 1 : -1].double()
        targets = tokens[0, -count:, None]
        return float(torch.log_softmax(logits, -1).gather(1, targets).sum())

    def probabilities(self, prompt: str, empty: str, names: Sequence[str]) -> np.ndarray:
        """``(names,)``: the softmax of what the document adds to each name's log-likelihood.

        Args:
            prompt: with the document.
            empty: the same without it.
            names: of the classes.
        """
        added = self.log_likelihoods(prompt, names) - self._without(empty, tuple(names))
        found: np.ndarray = softmax(added[None])[0]
        return found

    def _without(self, empty: str, names: tuple[str, ...]) -> np.ndarray:
        key = (empty, names)
        if getattr(self, "_kept_for", None) != key:
            self._kept_for, self._kept = key, self.log_likelihoods(empty, names)
        return self._kept
