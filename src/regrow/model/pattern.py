"""Patterns of blocks from the shares that attention and MLPs take; no torch here."""

from __future__ import annotations


def allocate(layers: int, attention_ratio: float, mlp_ratio: float) -> str:
    """The pattern with evenly spread attention and MLPs, Mamba-2 in all other places.

    Attention comes first: its blocks cut the stack into sections of equal length, so the stack
    begins and ends without one. MLPs are then spread over the remaining places in the same way;
    where the lengths do not divide, two may stand side by side.

    Args:
        layers: length of the pattern.
        attention_ratio: share of attention blocks, in [0, 1]; rounded to whole blocks, half to
            even.
        mlp_ratio: share of MLP blocks, likewise.

    Raises:
        ValueError: the two shares exceed the whole.

    Source: Mamba-2-Hybrid (arXiv 2406.07887): 56 layers at 0.08 and 0.5 give the pattern of the
        released 8B model.
    """
    attention, mlp = round(layers * attention_ratio), round(layers * mlp_ratio)
    if attention + mlp > layers:
        raise ValueError(
            f"attention_ratio: {attention_ratio:g} and mlp_ratio {mlp_ratio:g} of {layers} layers "
            f"are {attention} + {mlp} blocks; lower one of them"
        )
    pattern = ["M"] * layers
    _spread(pattern, range(layers), attention, "*", (layers - attention) / (attention + 1))
    if mlp:
        free = [place for place in range(layers) if pattern[place] == "M"]
        _spread(pattern, free, mlp, "-", (len(free) - mlp) / mlp)
    return "".join(pattern)


def _spread(
    pattern: list[str], places: list[int] | range, count: int, symbol: str, section: float
) -> None:
    """Put ``symbol`` into ``count`` of the places, after each section of that many others."""
    left = section
    for place in places:
        if count and left < 0.5:
            pattern[place] = symbol
            left += section
            count -= 1
        else:
            left -= 1
