"""The price of a family against training each of its models from scratch.

By the step, as the method's paper counts it, and with everything that the family took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.compress.family_config import FamilyConfig
from regrow.compress.family_cost import StepEquivalent, step_equivalent
from regrow.core import atomic
from regrow.core.inputs import run_folder_of
from regrow.core.lineage import PARENT_ROLES
from regrow.model.config import ModelConfig
from regrow.model.shapes import flops_per_token

#: Digits of a step's FLOPs in the method's paper.
_PUBLISHED_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Price:
    """Of one original and its children.

    Args:
        config: of the family.
        original: shape of the original.
        children: shapes of the children.
        tokens: that training one of them from scratch takes.
    """

    config: FamilyConfig
    original: ModelConfig
    children: Sequence[ModelConfig]
    tokens: int

    def _flops(self) -> list[int]:
        """Of one token of each model, forward and backward."""
        sequence = self.config.data.sequence
        return [flops_per_token(shape, sequence) for shape in (self.original, *self.children)]

    def by_the_step(self, digits: int = 0) -> StepEquivalent:
        """The price of one step of every model.

        Args:
            digits: see :func:`regrow.compress.family_cost.step_equivalent`.
        """
        original, *children = self._flops()
        ratio = self.tokens / self.config.train.tokens
        return step_equivalent(original, children, self.config.train.batch_tokens, ratio, digits)

    def whole(self, flops: int) -> dict[str, float]:
        """Everything that the family takes, against training each model from scratch.

        Args:
            flops: of importance, searches and retraining, the teacher's passes too.
        """
        each = [self.tokens * one for one in self._flops()]
        grown = each[0] + flops
        return {
            "scratch_tokens": self.tokens,
            "scratch_flops": sum(each),
            "family_flops": grown,
            "ratio": sum(each) / grown,
        }

    def as_json(self, flops: int) -> dict[str, Any]:
        """Both, as they stand in plan and result."""
        return {"step_equivalent": self.by_the_step().as_json(), "whole": self.whole(flops)}

    def notes(self, flops: int, published: bool) -> list[str]:
        """The same in words.

        Args:
            flops: as of :meth:`whole`.
            published: whether to tell the arithmetic of rounded figures too.
        """
        price = self.by_the_step()
        made = [
            f"price of one step of every model: {_power(price.scratch)} FLOPs from scratch against "
            f"{_power(price.family)} as a family, {price.ratio:.2f}x (children see "
            f"{price.token_ratio:g}x fewer tokens; no search, no teacher)"
        ]
        if published:
            rounded = self.by_the_step(_PUBLISHED_DIGITS)
            made.append(
                f"the same with each step rounded to {_PUBLISHED_DIGITS} digits, as published: "
                f"{_power(rounded.scratch)} against {_power(rounded.family, 5)} FLOPs per "
                f"step-equivalent, {rounded.ratio:.2f}x"
            )
        whole = self.whole(flops)["ratio"]
        return [*made, f"with importance, search and the teacher's passes: {whole:.2f}x"]


def _power(value: float, digits: int = 3) -> str:
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def recorded_tokens(model: Path) -> int | None:
    """Tokens that a model saw in all, by the lineage of the run that made it and of its parents.

    Args:
        model: its folder.

    Returns:
        None where no run made it, or one of them records none.
    """
    total_tokens = 0
    seen: set[Path] = set()
    folder = run_folder_of(model)
    while folder is not None and folder.resolve() not in seen:
        seen.add(folder.resolve())
        record = atomic.read_json(folder / "lineage.json")
        tokens = record.get("tokens", 0)  # a run that trains nothing has none
        if not isinstance(tokens, int):
            return None
        total_tokens += tokens
        parents = [p for p in record.get("parents", ()) if p["role"] in PARENT_ROLES]
        folder = Path(parents[0]["run"]) if parents and parents[0]["run"] else None
        if folder is not None and not (folder / "lineage.json").is_file():
            return None
    return total_tokens or None
