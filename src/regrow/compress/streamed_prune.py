"""A model's folder cut to another one, tensor by tensor; neither is ever in memory as a whole.

The child's shards follow the source's. One is made from the memory-mapped source, written, flushed,
and only then given its name: a process that is killed loses the shard that it was at and no other.
When all are there the folder becomes the export in one rename. Memory: what is kept of one shard,
and of the source a few tensors, as pages of its file that the system can take back.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrow.compress.slicing import Keep, cut_tensor, renamed
from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.io import hf
from regrow.io.tokenizer import COMPANIONS
from regrow.model.adapters import ADAPTERS
from regrow.model.config import ModelConfig
from regrow.model.folder import Opened, check_export, describe, load_config, opened
from regrow.model.shapes import tensor_shapes

#: What was cut from what; the first file in a folder, so that whatever else is there is of it.
RECORD = "compress.json"
SHARD_BYTES = 5_000_000_000
#: Pages of a source's file that may gather in memory; a tensor may have more.
MAPPED_BYTES = 500_000_000
#: Copied byte for byte where the source has them.
COPIED = ("tokenizer.json", *COMPANIONS, "vocab.json", "merges.txt", hf.GENERATION_CONFIG)
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

#: Called with how many numbers of the child were cut since the last call.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of the child.

    Args:
        source: its name in the source's files.
        name: its name in the child's.
        axes: see :func:`regrow.compress.slicing.renamed`.
        block: of the source; -1 outside of the blocks.
        numbers: of the child's.
        nbytes: that they take.
    """

    source: str
    name: str
    axes: tuple[str, ...]
    block: int
    numbers: int
    nbytes: int


def shards_of(
    source: Opened, target: ModelConfig, keep: Keep, limit: int = SHARD_BYTES
) -> list[list[Piece]]:
    """What each of the child's shards holds: tensors of one file of the source, in its order.

    Args:
        source: the folder.
        target: shape of the child.
        keep: what stays.
        limit: bytes of a shard at most, unless one tensor alone has more.
    """
    names, shapes = dict(ADAPTERS.get(target.layout).names(target)), tensor_shapes(target)
    found = {}
    for old, new, axes, block in renamed(source.config, keep):
        theirs = source.names[old]
        numbers = prod(shapes[new])
        nbytes = numbers * _BYTES[source.weights.dtype(theirs)]
        found[theirs] = Piece(theirs, names[new], axes, block, numbers, nbytes)
    shards: list[list[Piece]] = []
    file, size = None, 0
    for theirs, info in source.weights.infos.items():
        if theirs not in found:
            continue
        piece = found[theirs]
        if info.file != file or size + piece.nbytes > limit:
            shards.append([])
            file, size = info.file, 0
        shards[-1].append(piece)
        size += piece.nbytes
    return shards


def cut_folder(
    source: Path,
    keep: Keep,
    record: Mapping[str, Any],
    work: Path,
    export: Path,
    advance: Advance = lambda numbers: None,
    limit: int = SHARD_BYTES,
) -> list[str]:
    """Cut a folder, or go on with it.

    Every tensor keeps the dtype of its file. The files of the tokenizer and the settings of
    generation are copied as they are.

    Args:
        source: folder of the model.
        keep: what stays.
        record: content of the child's ``compress.json``; work of another one is thrown away.
        work: where the shards gather until all are there; on the file system of ``export``.
        export: where the child appears, whole; nothing is done where it is already.
        advance: see :data:`Advance`; may raise in order to stop.
        limit: bytes of a shard at most.

    Returns:
        The shards that this call made.

    Raises:
        ConfigError: no stock class can hold the child.
        InputError: as :func:`regrow.model.folder.load`; or numbers that stay are not finite.
    """
    if _record_of(export) == dict(record):
        return []
    if _record_of(work) != dict(record):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        atomic.write_json(work / RECORD, dict(record))
    made = []
    target = keep.config(load_config(source))
    check_export(target)
    with opened(source) as folder:
        shards = shards_of(folder, target, keep, limit)
        files = [hf.shard_name(number, len(shards)) for number in range(len(shards))]
        for file, pieces in zip(files, shards, strict=True):
            if (work / file).is_file():
                advance(sum(piece.numbers for piece in pieces))
                continue
            _write_shard(folder, keep, pieces, work / file, advance)
            made.append(file)
        settings, generation = describe(target, folder.dtype)
    copied = [name for name in COPIED if (source / name).is_file()]
    own = None if hf.GENERATION_CONFIG in copied else generation
    hf.write_settings(work, settings, own)
    for name in copied:
        shutil.copyfile(hf.check_regular(source / name), work / name)
    if len(shards) > 1:
        pairs = zip(files, shards, strict=True)
        table = {piece.name: file for file, pieces in pairs for piece in pieces}
        hf.write_index(work, table, sum(piece.nbytes for shard in shards for piece in shard))
    atomic.remove_leftovers(work)
    atomic.publish_folder(work, export)
    return made


def _record_of(folder: Path) -> dict[str, Any] | None:
    """The record in a folder; None where there is none, or a broken one."""
    try:
        found = atomic.read_json(folder / RECORD)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_shard(
    folder: Opened, keep: Keep, pieces: list[Piece], path: Path, advance: Advance
) -> None:
    tensors: dict[str, Tensor] = {}
    mapped = 0
    for piece in pieces:
        whole = folder.weights.mapped(piece.source)
        mapped += whole.nbytes
        cut = cut_tensor(whole, piece.axes, piece.block, folder.config, keep)
        _check_finite(cut, piece.source)
        tensors[piece.name] = cut.contiguous()
        del whole
        if mapped >= MAPPED_BYTES:  # what was read needs no memory any more
            folder.weights.close()
            mapped = 0
        advance(piece.numbers)
    folder.weights.close()
    temporary = path.with_name(f"{atomic.TEMPORARY_PREFIX}{path.name}")
    hf.save_tensors(temporary, tensors)
    atomic.fsync_path(temporary)
    temporary.rename(path)
    atomic.fsync_path(path.parent)


def _check_finite(cut: Tensor, name: str) -> None:
    """Refuse a tensor with NaN or infinity.

    A sum is finite only where every number is, and takes a fiftieth of the time of the cut; what
    is too large for a sum is looked at number by number.
    """
    if bool(cut.sum().isfinite()):
        return
    bad = int((~torch.isfinite(cut)).sum())
    if bad:
        raise InputError(
            f"{name}: {bad} of the {cut.numel()} values that would stay are not finite; the "
            "checkpoint is damaged or its training diverged"
        )
