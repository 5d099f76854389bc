"""Settings of ``generate`` and ``chat``, and what can be checked before a model is loaded.

No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError, InputError
from regrow.core.yaml12 import read_yaml
from regrow.model.config import ModelConfig


def _several(value: Any) -> Any:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value) if isinstance(value, list) else value or ()


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]


class SamplingConfig(Config):
    """How a text is continued, and on what."""

    model: Path
    """A run folder or a Hugging Face folder; the first bare argument."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Tokens that are added, at most."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits; 0 takes the most likely token."""
    top_k: int | None = Field(default=None, gt=0)
    """Draw from this many of the most likely tokens only."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the most likely tokens whose probabilities reach this sum."""
    stop: Texts = ()
    """Strings that end a text and are no part of it: stop=[A,B], or in a shell 'stop="\\n\\n"'."""
    seed: int = Field(default=0, ge=0)
    """Of the draws; a text depends on it and on its prompt, not on the other prompts."""
    threads: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """CPU threads; auto: the cores that this process may use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto: a GPU where there is one."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not all(self.stop):
            raise ValueError("stop: an empty string would end every text at once")
        return self


class GenerateConfig(SamplingConfig):
    """Continue prompts."""

    prompt: Texts = ()
    """Beginnings to continue; the bare arguments after the model."""
    prompts: Path | None = None
    """A file with further ones: one a line, or (.jsonl) objects with a "prompt"."""
    batch_tokens: int = Field(default=16_384, gt=0)
    """Tokens, prompts and new ones, that are in memory at once, at most."""


class ChatConfig(SamplingConfig):
    """Talk with a model."""

    max_new_tokens: int = Field(default=512, gt=0)
    """Tokens of an answer, at most."""
    system: str = ""
    """What the model is told before the conversation."""


def check_ids(shape: ModelConfig, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts that a model cannot read.

    Raises:
        InputError: an empty one, or ids beyond the vocabulary.
    """
    for place, ids in enumerate(prompts, start=1):
        if not ids:
            raise InputError(f"prompt {place} is empty; give it at least one character")
        if max(ids) >= shape.vocab_size:
            raise InputError(
                f"prompt {place} has token {max(ids)}, but the model's vocabulary is "
                f"{shape.vocab_size}; use the tokenizer that the model was trained with"
            )


def check_lengths(
    shape: ModelConfig,
    prompt_tokens: Sequence[int],
    max_new_tokens: int,
    trained: int | None = None,
) -> str | None:
    """Refuse prompts that do not fit; warn of texts longer than what the model has learnt from.

    A pattern without attention has no longest sequence: its prompts are never too long.

    Args:
        shape: the model's.
        prompt_tokens: of each prompt.
        max_new_tokens: that may follow each.
        trained: tokens of a training sequence, where that is known.

    Returns:
        The warning, or None.

    Raises:
        InputError: every prompt that exceeds ``max_positions``, with its length.
    """
    bounded = "*" in shape.pattern
    if bounded:
        problems = [
            f"prompt {place} has {tokens:,} tokens; the model's max_positions is "
            f"{shape.max_positions:,}"
            for place, tokens in enumerate(prompt_tokens, start=1)
            if tokens > shape.max_positions
        ]
        if problems:
            raise InputError("a prompt is too long for the model; shorten it", problems)
    total = max(prompt_tokens, default=0) + max_new_tokens
    limits = [shape.max_positions] if bounded else []
    longest = min(limits if trained is None else [*limits, trained], default=total)
    if total <= longest:
        return None
    known = "was trained on sequences of" if longest == trained else "has max_positions"
    return (
        f"warning: prompt and new tokens may reach {total:,} tokens, but the model {known} "
        f"{longest:,}; expect worse text beyond that"
    )


def trained_length(model: Path) -> int | None:
    """Tokens of a training sequence of the run that a model lies in; None where that is unknown.

    Args:
        model: a run folder or its ``export``; any other folder has no record of it.
    """
    run = model.parent if model.name == "export" else model
    try:
        settings, _ = read_yaml(run / "config.yaml")
        length = settings["data"]["sequence"]
    except (ConfigError, InputError, OSError, KeyError, TypeError):
        return None
    return length if isinstance(length, int) else None
