"""How much faster a smaller model reads and writes here, beside what its FLOPs promise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from regrow.eval.speed import decode_speed
from regrow.model.folder import load
from regrow.model.shapes import decode_flops_per_token, forward_flops_per_token


def measure(models: Mapping[str, Path], prompt: int, new: int, rounds: int) -> dict[str, Any]:
    """Speeds of models that take turns, and their ratios to the first round by round.

    Args:
        models: name to folder; the first is what the others are compared to.
        prompt: tokens read at once.
        new: tokens written.
        rounds: in each of which every model reads and writes once, after a warm-up.

    Returns:
        Name to ``decode`` and ``prefill``: each the median tokens a second, the ratios of all
        rounds, and the ratio of FLOPs.
    """
    loaded = {name: load(path).eval() for name, path in models.items()}
    first = next(iter(loaded))
    found: dict[str, dict[str, list[float]]] = {
        name: {"decode": [], "prefill": []} for name in loaded
    }
    for turn in range(rounds):
        for name, model in loaded.items():
            speeds = decode_speed(model, prompt, new, repeats=1, seed=turn)
            for kind, values in found[name].items():
                values.append(speeds[f"{kind}_tokens_per_second"])
    reference = loaded[first].config
    made: dict[str, Any] = {}
    for name, speeds in found.items():
        config = loaded[name].config
        flops = {
            "decode": decode_flops_per_token(reference, prompt + new // 2)
            / decode_flops_per_token(config, prompt + new // 2),
            "prefill": forward_flops_per_token(reference, prompt)
            / forward_flops_per_token(config, prompt),
        }
        made[name] = {
            kind: {
                "tokens_per_second": median(values),
                "ratios": [a / b for a, b in zip(values, found[first][kind], strict=True)],
                "flops_ratio": flops[kind],
            }
            for kind, values in speeds.items()
        }
    return made
