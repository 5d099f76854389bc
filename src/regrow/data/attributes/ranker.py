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
_LOGITS = 1 << 28  # numbers at once: names share a pass as far as these allow


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
        rows, counts = [], []
        for name in names:
            ids = self.tokenizer.encode(f"{prompt} {name}").ids
            # What the name adds; where it merges with the prompt's end, from the first difference.
            pairs = enumerate(zip(before, ids, strict=False))
            shared = next((i for i, (a, b) in pairs if a != b), min(len(before), len(ids) - 1))
            rows.append(ids[-self.window :])
            counts.append(min(len(ids) - max(1, shared), len(rows[-1]) - 1))
        found = np.zeros(len(rows))
        together = max(1, _LOGITS // (max(map(len, rows)) * self.model.config.vocab_size))
        for start in range(0, len(rows), together):
            chosen = slice(start, start + together)
            found[chosen] = self._tails(rows[chosen], counts[chosen])
        if not np.isfinite(found).all():
            raise RunError(f"{self.name}: gives logits that are not finite numbers")
        return found

    @torch.inference_mode()
    def _tails(self, rows: list[list[int]], counts: list[int]) -> list[float]:
        """Log-likelihood of the last so many ids of each row."""
        tokens = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = torch.tensor(row)  # what follows is seen by nothing
        logits = self.model(input_ids=tokens.to(self.device)).logits
        found = []
        for number, (row, count) in enumerate(zip(rows, counts, strict=True)):
            scores = logits[number, len(row) - count - 1 : len(row) - 1].double().log_softmax(-1)
            targets = torch.tensor(row[-count:], device=self.device)[:, None]
            found.append(float(scores.gather(1, targets).sum()))
        return found

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
