"""Where things lie: a path given by a user may be a thing itself or the run that made it."""

from __future__ import annotations

from pathlib import Path

from regrow.core.errors import InputError


def resolve_model(path: Path) -> Path:
    """The Hugging Face folder of a model: ``path`` itself, or ``path/export`` of a run.

    Raises:
        InputError: neither holds a ``config.json``.
    """
    path = Path(path)
    for folder in (path, path / "export"):
        if (folder / "config.json").is_file():
            return folder
    raise _nothing(path, "model", "config.json", "a Hugging Face model folder")


#: Folder of a tokenize run that holds the tokenizer of its shards.
TOKENIZER_FOLDER = "tokenizer"


def resolve_tokenizer(path: Path) -> Path:
    """The ``tokenizer.json`` to read: ``path`` itself, in it, or in the ``export`` of a run.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for folder in (path, path / "export"):
        if (folder / "tokenizer.json").is_file():
            return folder / "tokenizer.json"
    raise _nothing(path, "tokenizer", "tokenizer.json", "a tokenizer's folder or file")


def resolve_shards(path: Path) -> Path:
    """The folder of token shards: ``path`` itself (split folders inside), or ``path/shards``.

    Raises:
        InputError: neither holds a ``<split>/<source>.bin``.
    """
    path = Path(path)
    for folder in (path / "shards", path):
        if any(folder.glob("*/*.bin")) or any(folder.glob("*.bin")):
            return folder
    raise _nothing(path, "token shards", "<split>/<source>.bin", "a folder of shards")


def resolve_documents(path: Path) -> Path:
    """The folder of document tables: ``path`` itself, or ``path/documents`` of a run.

    Raises:
        InputError: neither holds a ``.parquet`` file.
    """
    path = Path(path)
    for folder in (path / "documents", path):
        if any(folder.glob("*.parquet")):
            return folder
    raise _nothing(path, "documents", "*.parquet", "a folder of document tables")


def _nothing(path: Path, what: str, sought: str, kind: str) -> InputError:
    if not path.exists():
        return InputError(f"{path}: no such path; give {kind}, or the run that made it")
    if (path / "status.json").is_file() and not (path / "result.json").is_file():
        return InputError(
            f"{path}: this run has not finished, so it has no {what} yet; finish it first"
        )
    if what == "model" and (path / "result.json").is_file() and (path / "checkpoints").is_dir():
        return InputError(
            f"{path}: no stock class can hold this run's model (see not_exported in its "
            "result.json), so it has no export; its weights stay in checkpoints/"
        )
    return InputError(f"{path}: no {what} there ({sought}); give {kind}, or the run that made it")
