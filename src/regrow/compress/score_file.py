"""Scores on disk: ``scores.safetensors`` with the raw sums, ``scores.json`` with what they are of.

The JSON is written last and holds the hash of the other, so a folder with both is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from regrow.compress.importance import Statistics, Sums, site_widths
from regrow.compress.importance_config import NeuronSite, SequenceAggregation
from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.io.hf import check_regular
from regrow.model.config import ModelConfig

FORMAT = 1
TENSORS, SIDECAR = "scores.safetensors", "scores.json"
_COSINES = "layers.cosine"
#: Of records from before there was a choice.
_FIRST = ("mean",)


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
    for sequence, sums in statistics.sums.items():
        for site, total in sums.items():
            tensors[_name(site, sequence, "sum")] = total.contiguous()
            squares = statistics.squares[sequence][site]
            tensors[_name(site, sequence, "sum_squares")] = squares.contiguous()
    content = safetensors.torch.save(tensors)
    sha = hashlib.sha256(content).hexdigest()
    atomic.write_bytes(folder / TENSORS, content)
    record = {
        "format": FORMAT,
        "model_sha256": model_sha256,
        "data": dict(data),
        "samples": statistics.samples,
        "tokens": statistics.tokens,
        "sequence_aggregations": list(statistics.sums),
        "sites": statistics.sites,
        "sha256": sha,
    }
    atomic.write_json(folder / SIDECAR, record)
    return sha


def _name(site: str, sequence: str, of: str) -> str:
    """The name of a tensor: the aggregation over a window is part of it."""
    return f"{site}.{sequence}.{of}"


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
        record["sequence_aggregations"] = _aggregations(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error!r}); run importance again") from error
    return dict(record)


def _aggregations(record: Mapping[str, Any]) -> list[SequenceAggregation]:
    """Aggregations over a window that a record has.

    Raises:
        ValueError: one that is none.
    """
    named = list(record.get("sequence_aggregations", _FIRST))
    known = get_args(SequenceAggregation)
    if not named or any(name not in known for name in named):
        raise ValueError(f"sequence_aggregations {named}")
    return named


def check_model(
    path: Path,
    config: ModelConfig,
    model_sha256: str,
    sequence: SequenceAggregation = "mean",
) -> None:
    """Make sure that scores are of a model, and have an aggregation over a window's tokens.

    Raises:
        InputError: they are of another one, were gathered without it, or are damaged.
    """
    record = read_record(path)
    if record["model_sha256"] != model_sha256:
        raise InputError(
            f"scores {path} were made from another checkpoint (weights "
            f"{record['model_sha256'][:12]}, this model has {model_sha256[:12]}); run importance "
            "over this model"
        )
    if record["sites"] not in [site_widths(config, site) for site in get_args(NeuronSite)]:
        raise InputError(
            f"scores {path} are of another shape, or from before Mamba-2 heads were scored; run "
            "importance over this model"
        )
    gathered = record["sequence_aggregations"]
    if sequence not in gathered:
        raise InputError(
            f"sequence_aggregation: scores {path} hold {', '.join(gathered)}, not {sequence}; run "
            f"importance with sequence_aggregations=[{', '.join([*gathered, sequence])}]"
        )


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
        names = record["sequence_aggregations"]
        statistics = Statistics(
            int(record["samples"]),
            int(record["tokens"]),
            _sums(tensors, names, record["sites"], "sum"),
            _sums(tensors, names, record["sites"], "sum_squares"),
            tensors[_COSINES],
        )
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{file} is damaged ({error}); run importance again") from error
    return Scores(statistics, record["model_sha256"], record["sha256"])


def _sums(
    tensors: Mapping[str, Tensor],
    names: Sequence[SequenceAggregation],
    sites: Sequence[str],
    of: str,
) -> dict[SequenceAggregation, Sums]:
    return {n: {site: tensors[_name(site, n, of)] for site in sites} for n in names}
