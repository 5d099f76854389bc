"""What loading a stranger's model through transformers must keep: safetensors, stock classes."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
import torch

from regrow.core.atomic import sha256_file
from regrow.core.errors import ConfigError, InputError
from regrow.io.hf import open_weights, printable, read_config

TOKENIZER = "tokenizer.json"


def check(folder: Path, device: str) -> dict[str, Any]:
    """``config.json`` of a folder whose model could be loaded, as far as its headers tell.

    Raises:
        InputError: weights in another format, code of the folder's own, no ``tokenizer.json``.
        ConfigError: transformers or CUDA is missing.
    """
    config = read_config(folder)
    open_weights(folder).close()
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"{folder}: needs transformers: pip install 'regrow[classifiers]'")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds no CUDA device here; set device=cpu")
    load_tokenizer(folder)
    return config


def load_model(folder: Path, auto: str, device: str) -> tuple[Any, dict[str, Any]]:
    """A model of a stock class in float32, and its ``config.json``.

    Args:
        folder: a Hugging Face folder with safetensors.
        auto: transformers' class that finds the model's, such as
            ``AutoModelForSequenceClassification``.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: weights in another format, code of the folder's own, an unknown family, weights
            that do not fit the config.
        ConfigError: transformers or CUDA is missing.
    """
    config = check(folder, device)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    with _quiet_progress(transformers):
        try:
            model, info = getattr(transformers, auto).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}: transformers cannot load it as {auto} ({printable(str(error))})"
            ) from None
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise InputError(
            f"{folder}: lacks weights that {type(model).__name__} needs, such as "
            f"{printable(lacking[0])}; with random ones its answers would mean nothing"
        )
    return model.eval().to(device), config


@contextmanager
def _quiet_progress(transformers: Any) -> Iterator[None]:
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The folder's tokenizer, with what it puts around a text, without padding or cutting.

    Raises:
        InputError: there is no ``tokenizer.json``, or a broken one.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {TOKENIZER}; load the tokenizer with transformers and save it again "
            "(save_pretrained writes the file)"
        )
    try:
        found: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path} is not a tokenizer ({printable(str(error))})") from None
    found.no_padding()
    found.no_truncation()
    return found


def positions(config: dict[str, Any], most: int) -> int:
    """Tokens that a model reads at once, at most ``most``."""
    limit = config.get("max_position_embeddings")
    if type(limit) is not int or limit < 1:
        return most
    if str(config.get("model_type", "")).endswith("roberta"):
        limit -= int(config.get("pad_token_id") or 0) + 1  # its positions begin after the padding's
    return max(1, min(limit, most))


def folder_hash(folder: Path) -> str:
    """Hex SHA-256 over the files that decide what a model in ``folder`` answers."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".json"))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{sha256_file(folder / name)}\n".encode())
    return digest.hexdigest()
