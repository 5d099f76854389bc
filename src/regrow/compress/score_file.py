"""Scores on disk: ``scores.safetensors`` with the raw sums, ``scores.json`` with what they are of.

The JSON is written last and holds the hash of the other, so a folder with both is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from regrow.compress.importance import Statistics, site_widths
from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.io.hf import check_regular
from regrow.model.config import ModelConfig

FORMAT = 1
TENSORS, SIDECAR = "scores.safetensors", "scores.json"
_SUM, _SQUARES, _COSINES = "mean.sum", "mean.sum_squares", "layers.cosine"


@dataclass(frozen=True, slots=True)
class Scores:
    """Statistics with their origin.

    Args:
        statistics: the sums.
        model_sha256: of the weights that were measured.
        sha256: of ``scores.safetensors``.
    """

    statistics: Statistics
    model_sha256: str
    sha256: str


def write_scores(
    folder: Path, statistics: Statistics, model_sha256: str, data: Mapping[str, Any]
) -> str:
    """Write both files.

    Args:
        folder: where to.
        statistics: the sums.
        model_sha256: of the weights that were measured.
        data: what identifies the calibration text.

    Returns:
        SHA-256 of ``scores.safetensors``.
    """
    tensors: dict[str, Tensor] = {_COSINES: statistics.cosines.contiguous()}
    # The name of the aggregation over a window is part of each name: others may stand beside it.
    for site in statistics.sums:
        tensors[f"{site}.{_SUM}"] = statistics.sums[site].contiguous()
        tensors[f"{site}.{_SQUARES}"] = statistics.squares[site].contiguous()
    content = safetensors.torch.save(tensors)
    sha = hashlib.sha256(content).hexdigest()
    atomic.write_bytes(folder / TENSORS, content)
    record = {
        "format": FORMAT,
        "model_sha256": model_sha256,
        "data": dict(data),
        "samples": statistics.samples,
        "tokens": statistics.tokens,
        "sites": {site: len(total) for site, total in statistics.sums.items()},
        "sha256": sha,
    }
    atomic.write_json(folder / SIDECAR, record)
    return sha


def resolve_scores(path: Path) -> Path:
    """The folder of scores: ``path``, or the folder of the file that it names.

    Raises:
        InputError: none there.
    """
    folder = path.parent if path.name in (TENSORS, SIDECAR) else path
    if not (folder / SIDECAR).is_file():
        raise InputError(f"scores {path}: no {SIDECAR} there; give a run folder of importance")
    return folder


def read_record(path: Path) -> dict[str, Any]:
    """The content of ``scores.json``.

    Raises:
        InputError: missing or damaged.
    """
    file = resolve_scores(path) / SIDECAR
    try:
        record = atomic.read_json(file)
        if record["format"] != FORMAT:
            raise InputError(f"{file} has format {record['format']}; this version reads {FORMAT}")
        str(record["model_sha256"]), str(record["sha256"]), dict(record["sites"])
        int(record["samples"]), int(record["tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error!r}); run importance again") from error
    return dict(record)


def check_model(path: Path, config: ModelConfig, model_sha256: str) -> None:
    """Make sure that scores are of a model.

    Raises:
        InputError: they are of another one, or damaged.
    """
    record = read_record(path)
    if record["model_sha256"] != model_sha256:
        raise InputError(
            f"scores {path} were made from another checkpoint (weights "
            f"{record['model_sha256'][:12]}, this model has {model_sha256[:12]}); run importance "
            "over this model"
        )
    if record["sites"] != site_widths(config):
        raise InputError(f"scores {path} are of another shape; run importance over this model")


def read_scores(path: Path) -> Scores:
    """What :func:`write_scores` wrote.

    Raises:
        InputError: missing or damaged.
    """
    record = read_record(path)
    file = check_regular(resolve_scores(path) / TENSORS)
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise InputError(f"{file} has other content than recorded; run importance again")
    try:
        tensors = safetensors.torch.load(content)
        statistics = Statistics(
            int(record["samples"]),
            int(record["tokens"]),
            {site: tensors[f"{site}.{_SUM}"] for site in record["sites"]},
            {site: tensors[f"{site}.{_SQUARES}"] for site in record["sites"]},
            tensors[_COSINES],
        )
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{file} is damaged ({error}); run importance again") from error
    return Scores(statistics, record["model_sha256"], record["sha256"])
