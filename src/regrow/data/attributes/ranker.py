"""A causal language model as an annotator: which class's name is likeliest after the question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from regrow.core.errors import RunError
from regrow.data.attributes.measures import softmax
from regrow.data.attributes.prompt import Prompt
from regrow.data.attributes.transformer import (
    folder_hash,
    load_model,
    load_tokenizer,
    positions,
)

MAX_TOKENS = 2048
_LEAST_ROOM = 32


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
        self._kept: dict[tuple[str, tuple[str, ...]], np.ndarray] = {}

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

    def probabilities(self, text: str, prompt: Prompt) -> np.ndarray:
        """``(classes,)`` float64: the softmax of what a document adds to each name's score.

        A document that does not fit the model's positions loses its end; the definitions of the
        classes are left out where they would take more than half of them.

        Args:
            text: the document.
            prompt: the question and the classes.

        Raises:
            RunError: the question and the names do not fit, or figures that are no numbers.
        """
        names, question = prompt.classes, f"\n\n{prompt.question}\nAnswer:"
        longest = max(len(self.tokenizer.encode(f" {name}").ids) for name in names)
        opening = prompt.preface()
        if len(self.tokenizer.encode(opening).ids) > self.window // 2:
            opening = ""
        room = self.window - longest - len(self.tokenizer.encode(opening + question).ids)
        if room < _LEAST_ROOM:
            raise RunError(
                f"{self.name}: reads {self.window} tokens at once, too few for the question and a "
                f"document; {_LEAST_ROOM - room} more are needed"
            )
        kept = self.tokenizer.encode(text[: 16 * room], add_special_tokens=False)
        if len(kept.ids) > room:
            text = text[: kept.offsets[room - 1][1]]
        scores = self.log_likelihoods(f"{opening}{text}{question}", names)
        found: np.ndarray = softmax((scores - self._without(opening + question, names))[None])[0]
        return found

    def _without(self, prompt: str, names: tuple[str, ...]) -> np.ndarray:
        if (prompt, names) not in self._kept:
            self._kept[prompt, names] = self.log_likelihoods(prompt, names)
        return self._kept[prompt, names]
