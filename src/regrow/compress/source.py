"""The model that a verb starts from: a folder, or a published shape that can only be planned with.

No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regrow.core.errors import InputError
from regrow.io.runs import resolve_model
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A shape, with the folder of its weights where there is one.

    Args:
        path: as it was given.
        config: the shape.
        place: the Hugging Face folder; None of a preset.
    """

    path: Path
    config: ModelConfig
    place: Path | None

    @property
    def folder(self) -> Path:
        """The folder of the weights.

        Raises:
            InputError: a preset has none.
        """
        if self.place is None:
            raise InputError("; ".join(self.missing))
        return self.place

    @property
    def missing(self) -> tuple[str, ...]:
        """What must be given before anything can be done with the weights."""
        if self.place is not None:
            return ()
        return (
            f"{self.path} is a preset, which has a shape and no weights: give a model's folder",
        )


def source_model(path: Path) -> SourceModel:
    """The model at ``path``, or the preset of that name where nothing lies there.

    Raises:
        InputError: neither; or a folder that is no model's.
    """
    from regrow.model.folder import load_config

    if not path.exists() and str(path) in PRESETS:
        return SourceModel(path, PRESETS[str(path)], None)
    folder = resolve_model(path)
    return SourceModel(path, load_config(folder), folder)
