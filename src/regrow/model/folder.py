"""A decoder from a Hugging Face folder, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ValidationError
from torch import Tensor

from regrow.core.atomic import staged_folder
from regrow.core.errors import ConfigError, InputError
from regrow.io import hf
from regrow.io.runs import resolve_model
from regrow.model.adapters import ADAPTERS, Adapter
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import tensor_shapes

#: Tensors that old checkpoints carry although they follow from the config.
_BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|attention\.bias)$")

_DTYPE_NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}

_HEADER_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class CopiesFiles(Protocol):
    """What :func:`save` needs of a tokenizer."""

    def copy_files(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        ...


def _adapter(config: dict[str, Any], path: Path) -> Adapter:
    family = config.get("model_type")
    if not isinstance(family, str) or family not in ADAPTERS:
        known = ", ".join(ADAPTERS.names())
        shown = hf.printable(repr(family))
        raise InputError(f"{path}: model_type {shown} is not supported (supported: {known})")
    return ADAPTERS.get(family)


def load_config(folder: str | Path) -> ModelConfig:
    """The shape of the model in a folder (or in a run's export), without its weights.

    Raises:
        InputError: no model folder, a family without an adapter, a setting we do not have, an
            impossible shape; each names the file.
    """
    folder = resolve_model(Path(folder))
    path = folder / hf.CONFIG
    raw = hf.read_config(folder)
    adapter = _adapter(raw, path)
    try:
        return adapter.read_config(raw)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.problems) from None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'shape'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False)
        ]
        raise InputError(f"{path}: not a possible {adapter.family} model", problems) from None


def load(folder: str | Path, dtype: torch.dtype | None = None) -> Decoder:
    """The model in a Hugging Face folder.

    Names, shapes and dtypes are compared with what the config implies before memory is taken for
    any weight.

    Args:
        folder: the model's folder, or a run that has one in ``export/``.
        dtype: cast every weight to this; by default the dtype that most numbers of the files have.
            Decay rates, skips and time-step biases of Mamba-2 blocks are never kept below fp32.

    Returns:
        The decoder, on the CPU.

    Raises:
        InputError: see :func:`load_config` and :func:`regrow.io.hf.open_weights`; further a missing
            tensor, one of another shape, or one that the family does not have.
    """
    with opened(folder) as source:
        with torch.device("meta"):
            model = Decoder(source.config)
        dtype = dtype or source.dtype
        state = {
            ours: source.weights.tensor(theirs).to(kept_dtype(ours, dtype))
            for ours, theirs in source.names.items()
        }
    model.load_state_dict(state, assign=True)
    model.requires_grad_(True)
    return model


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder whose headers were compared with its config; no weight was read yet.

    Args:
        config: shape of the model.
        weights: its files.
        names: our name of each tensor to theirs, in the order of our state dict.
        dtype: what most numbers of the files have.
    """

    config: ModelConfig
    weights: hf.Weights
    names: dict[str, str]
    dtype: torch.dtype


@contextmanager
def opened(folder: str | Path) -> Iterator[Opened]:
    """A model's folder for reading one tensor at a time; its files close with the block.

    Raises:
        InputError: as :func:`load`.
    """
    folder = resolve_model(Path(folder))
    config = load_config(folder)
    adapter = ADAPTERS.get(config.layout)
    names = dict(adapter.names(config))
    with hf.open_weights(folder) as weights:
        weights.rename(adapter.aliases)
        _compare(weights, config, names)
        yield Opened(config, weights, names, _most_frequent(weights))


def _most_frequent(weights: hf.Weights) -> torch.dtype:
    """The dtype of most numbers: folders mix them (norms in fp32), but a model computes in one."""
    numbers: Counter[str] = Counter()
    for name in weights.names:
        numbers[weights.dtype(name)] += prod(weights.shape(name))
    return _HEADER_DTYPES[numbers.most_common(1)[0][0]]


def kept_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a tensor is kept in: the dynamics of Mamba-2 blocks never below fp32."""
    return torch.promote_types(dtype, torch.float32) if ".dynamics." in name else dtype


def _compare(weights: hf.Weights, config: ModelConfig, names: dict[str, str]) -> None:
    """Refuse a folder whose tensors are not those of its config."""
    shapes = tensor_shapes(config)
    expected = {theirs: shapes[ours] for ours, theirs in names.items()}
    problems = [
        f"{weights.infos[name].file.name}: {name} has shape {list(weights.shape(name))}, "
        f"but the config implies {list(shape)}"
        for name, shape in expected.items()
        if name in weights.infos and weights.shape(name) != shape
    ]
    missing = [name for name in expected if name not in weights.infos]
    problems += [f"{name} is missing" for name in missing]
    for name in weights.names:
        if name not in expected and not _redundant(weights, config, name, names["embed.weight"]):
            info = weights.infos[name]
            problems.append(
                f"{info.file.name}: {hf.printable(info.stored)} is no part of a {config.layout} "
                "model of this config"
            )
    if problems:
        shown = problems[:12]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise InputError(
            f"{weights.folder}: the weights are not those that {hf.CONFIG} describes; "
            "fetch both from one place",
            shown,
        )


def _redundant(weights: hf.Weights, config: ModelConfig, name: str, embedding: str) -> bool:
    """Whether a tensor follows from the others: a known buffer, or a tied head stored again."""
    if _BUFFERS.search(name):
        return True
    if config.tie_embeddings and name == "lm_head.weight" and embedding in weights.infos:
        same = weights.infos[name][:2] == weights.infos[embedding][:2]
        return same and torch.equal(weights.tensor(name), weights.tensor(embedding))
    return False


def check_export(config: ModelConfig) -> None:
    """Refuse a shape that its family's stock class cannot hold.

    Raises:
        ConfigError: every rule that is broken, with the nearest legal values.
    """
    problems = ADAPTERS.get(config.layout).check(config)
    if problems:
        raise ConfigError(f"no stock {config.layout} class can hold this shape", problems)


def describe(config: ModelConfig, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of ``config.json`` and ``generation_config.json`` for a model of this shape."""
    settings = ADAPTERS.get(config.layout).write_config(config)
    settings["dtype"] = _DTYPE_NAMES[dtype]
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return settings, {name: settings[name] for name in ids if settings[name] is not None}


def save(model: Decoder, folder: str | Path, tokenizer: CopiesFiles | None = None) -> Path:
    """Write a model as a Hugging Face folder that ``transformers`` loads with no custom code.

    The folder appears whole or not at all, and saving what was loaded gives the same bytes.

    Args:
        model: the decoder.
        folder: where to; an earlier folder there is replaced.
        tokenizer: whose files to put beside the weights.

    Returns:
        ``folder``.

    Raises:
        ConfigError: see :func:`check_export`; nothing is written.
    """
    config = model.config
    check_export(config)
    adapter = ADAPTERS.get(config.layout)
    state = model.state_dict()

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for ours, theirs in adapter.names(config):
            yield theirs, state[ours]

    settings, generation = describe(config, model.embed.weight.dtype)
    with staged_folder(Path(folder)) as staging:
        hf.write_folder_into(staging, settings, tensors(), generation)
        if tokenizer is not None:
            tokenizer.copy_files(staging)
    return Path(folder)
