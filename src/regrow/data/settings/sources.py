"""Where documents come from: the settings of each kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from regrow.core.config import Config

PythonDomain = Literal["code", "docstrings", "reference", "packages"]
PYTHON_DOMAINS: tuple[PythonDomain, ...] = ("code", "docstrings", "reference", "packages")


class PythonSource(Config):
    """The interpreter's own library and the documents of installed packages."""

    kind: Literal["python"] = "python"
    """The kind of source."""
    domains: tuple[PythonDomain, ...] = PYTHON_DOMAINS
    """Which of its texts; each becomes a source of this name."""
    max_bytes: dict[PythonDomain, Annotated[int, Field(gt=0)]] = {}
    """UTF-8 bytes to take at most, by domain; a domain that is not named is taken whole."""
    tests: bool = False
    """Whether the library's own tests (two thirds of its code, where they are installed) count."""


class FolderSource(Config):
    """A folder of ``.txt``, ``.md``, ``.jsonl``, ``.jsonl.gz`` and ``.parquet`` files."""

    kind: Literal["folder"] = "folder"
    """The kind of source."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What the source is called: in weights, in shard names, in every table."""
    path: Path
    """The folder; searched recursively. A single file is taken as well."""
    text_column: str = "text"
    """Field or column that holds the text, in ``.jsonl`` and ``.parquet``."""
    content: Literal["prose", "code", "reference", "legal"] = "prose"
    """The kind of text."""
    language: str = ""
    """Language of all its documents, where records name none in ``language``."""
    licence: str = "unknown"
    """Licence of all its documents, where records name none in ``licence``."""
    max_bytes: int | None = Field(default=None, gt=0)
    """UTF-8 bytes of text to take at most; null for all."""


SourceConfig = Annotated[PythonSource | FolderSource, Field(discriminator="kind")]
