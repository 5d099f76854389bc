"""A checkpoint that several processes write together, of whole tensors in one folder.

Each tensor is put together in the process that writes it, so no process ever holds more than its
own share of the files; every process writes one file of a kind, into the staging folder of the
first, which writes the manifest last and publishes the folder. What is published is the same
whatever the world, and a world of any size can go on from it.

All processes must see one file system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from regrow.core.errors import CheckpointError, RegrowError
from regrow.train import checkpoint
from regrow.train.parallel import Sharding


def owners(sizes: Mapping[str, int], processes: int) -> dict[str, int]:
    """Which process writes each tensor: in order, stretches of about equal bytes."""
    total, done = max(1, sum(sizes.values())), 0
    found = {}
    for name, size in sizes.items():
        found[name] = min(processes - 1, done * processes // total)
        done += size
    return found


def save_together(
    folder: Path,
    step: int,
    state: checkpoint.State,
    sharding: Sharding,
    *,
    config_hash: str,
    keep: int,
    flush: Iterable[Path],
) -> None:
    """As :func:`regrow.train.checkpoint.save`, by all processes of a world at once.

    Args:
        folder: the run's ``checkpoints``.
        step: optimiser steps done.
        state: of this process; ``model`` and ``optimizer`` hold its shares.
        sharding: how to put them together.
        config_hash: of the run's settings.
        keep: at least 2.
        flush: files that must have reached the disk first.

    Raises:
        CheckpointError, ResourceError: in every process, when one of them cannot write.
    """
    world = sharding.world
    if world.is_first:
        saving = checkpoint.Saving(folder, step, state.bytes() * world.size, flush)
        error = _tried(saving.begin)
    else:
        saving, error = None, None
    error = world.share(error)
    if error is not None:
        raise error
    staging = checkpoint.staging_folder(folder, step)
    written: dict[str, Any] = {}

    def write() -> None:
        for kind, tensors in (("model", state.model), ("optimizer", state.optimizer)):
            name = f"{kind}-{world.rank + 1:05d}-of-{world.size:05d}.safetensors"
            checkpoint.write_tensors(staging / name, dict(_owned(tensors, sharding)))
            written[name] = checkpoint.finish_file(staging / name)

    error = _tried(write)
    outcomes = world.gather((written, error))
    errors = [failed for _, failed in outcomes if failed is not None]
    if saving is not None:
        files = {name: entry for entries, _ in outcomes for name, entry in entries.items()}
        error = (
            errors[0] if errors else _tried(lambda: saving.publish(state, files, config_hash, keep))
        )
        if error is not None:
            saving.abandon()
    error = world.share(error if world.is_first else None)
    if error is not None:
        raise error


def _owned(tensors: Mapping[str, Tensor], sharding: Sharding) -> Iterator[tuple[str, Tensor]]:
    """The whole tensors that this process writes; every process must go through it to the end."""
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    owner = owners(sizes, sharding.world.size)
    for name, whole in sharding.gathered(tensors):
        if owner[name] == sharding.world.rank:
            yield name, whole.detach().cpu().clone()


def _tried(action: Any) -> RegrowError | None:
    """The error that an action ends with, as one that can be sent to other processes."""
    try:
        action()
    except RegrowError as error:
        return error
    except OSError as error:
        return CheckpointError(f"cannot write the checkpoint at {error.filename}: {error}")
    return None
