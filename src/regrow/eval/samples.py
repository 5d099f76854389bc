"""Text that a model writes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from regrow.core.seed import derive
from regrow.io.tokenizer import Tokenizer
from regrow.model.decoder import Decoder
from regrow.model.generate import generate


def samples(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    new_tokens: int = 64,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Continuations of prompts.

    Args:
        model: the decoder.
        tokenizer: its tokenizer.
        prompts: beginnings; one that is empty starts from the end-of-text token.
        new_tokens: at most so many are added; a text may end before.
        temperature: 0 for greedy decoding.
        top_p: share of the probability that is drawn from.
        seed: of the draws; each prompt has a stream of its own, so its text does not depend on
            the other prompts.

    Returns:
        For each prompt ``{"prompt", "text"}``; the text is what follows the prompt.
    """
    device = model.embed.weight.device
    made = []
    was_training = model.training
    model.eval()
    try:
        for prompt in prompts:
            opening = [tokenizer.bos_id] if tokenizer.bos_id is not None else []
            ids = [*opening, *tokenizer.encode(prompt)] or [tokenizer.end]
            generator = torch.Generator(device).manual_seed(derive(seed, "sample", prompt))
            tokens = torch.tensor([ids], device=device)
            room = model.config.max_positions - len(ids)
            whole = generate(
                model,
                tokens,
                max(0, min(new_tokens, room)),
                temperature,
                top_p=top_p,
                eos_id=tokenizer.eos_id,
                generator=generator,
            )
            text = tokenizer.decode(whole[0, len(ids) :].tolist())
            made.append({"prompt": prompt, "text": text})
    finally:
        model.train(was_training)
    return made
