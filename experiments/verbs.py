"""The verbs of the house as steps of an experiment: a kill costs one of them at most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrow.core.config import Config, load_config
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb


def do(
    verb: str, folder: Path, files: Sequence[Path] = (), words: Sequence[str] = (), /, **base: Any
) -> dict[str, Any]:
    """Run a verb in its folder, or return what it made there before.

    Args:
        verb: as on the command line.
        folder: its run folder.
        files: of settings.
        words: overrides, as on the command line.
        base: settings in memory, weaker than the files.
    """
    config: Config = load_config(get_verb(verb).config_class(), files, words, base=base)
    return execute(verb, config, folder, quiet=True)
