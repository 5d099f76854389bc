"""The training forward of attention and MLP blocks as fused kernels (``torch.compile``), or not.

Blocks are compiled one by one, each kind once, whatever their number; embedding, head and losses
stay as they are, and so do Mamba-2 blocks, whose scan is made of chunks that a compiler would
unroll. Evaluation, export and decoding never use what was compiled. Whether to compile is decided
once for a run: an attempt that goes on takes the same path, since the two differ in rounding.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from regrow.core.run import Run
from regrow.model.blocks import Block
from regrow.train.device import device_of, product_rate
from regrow.train.world import World

#: On a CPU the first step waits for a compiler, a minute or more: not worth it for shorter runs.
WORTH_SECONDS = 30 * 60
#: What a step gets of the machine's matrix products (benchmarks/train_step.py: 0.4 to 0.8).
_SHARE_OF_PRODUCTS = 0.5
_COMPILED = "*-"

Wanted = bool | Literal["auto"]


def choose(
    wanted: Wanted, module: nn.Module, run: Run, world: World, flops: float, rows: int, threads: int
) -> bool:
    """Compile a decoder's blocks where that is wanted and possible; say in the log what was chosen.

    Args:
        wanted: the setting ``train.compile``.
        module: a decoder, where it lies, sharded or not.
        run: keeps the choice for later attempts.
        world: the processes that train it; all take the choice of the first.
        flops: of the whole run.
        rows: tokens of a micro-batch.
        threads: CPU threads that will compute.

    Returns:
        Whether blocks were compiled.
    """
    reason = "as in the first attempt"

    def decided() -> str:
        nonlocal reason
        compiles, reason = decide(wanted, module, flops, rows, threads, world.tensor)
        return "compiled" if compiles else "eager"

    compiles = bool(world.share(run.decide("compile", decided)) == "compiled")
    if compiles and (missing := missing_compiler(device_of(module))) is not None:
        message = f"compiled before, eager now: {missing}; results will differ in rounding"
        run.log("resumed_differently", level="warning", message=message)
        return False
    if compiles:
        reason = f"{compile_blocks(module)} blocks; {reason}"
    run.log("compile", compiled=compiles, message=reason)
    return compiles


def decide(
    wanted: Wanted, module: nn.Module, flops: float, rows: int, threads: int, tensor: int = 1
) -> tuple[bool, str]:
    """Whether to compile, and why or why not.

    Args:
        wanted: the setting; auto: on a GPU yes, on a CPU for runs of over half an hour.
        module: a decoder, where it lies.
        flops: of the whole run.
        rows: tokens of a micro-batch.
        threads: CPU threads that will compute.
        tensor: processes that hold one replica together.
    """
    if wanted is False:
        return False, "train.compile is false"
    if not any(_kind(block) in _COMPILED for block in _blocks(module)):
        return False, "the model has no attention or MLP block to compile"
    if tensor > 1:
        return False, "blocks that exchange partial sums (parallel.tp) are not compiled"
    device = device_of(module)
    if wanted == "auto" and device.type == "cpu":
        seconds = flops / (_SHARE_OF_PRODUCTS * threads * product_rate(module, rows))
        if seconds < WORTH_SECONDS:
            return False, f"the run takes about {seconds / 60:.1f} minutes: too few to pay for it"
    missing = missing_compiler(device)  # last, since trying it takes seconds
    asked = "worth it for this run" if wanted == "auto" else "train.compile is true"
    return missing is None, missing or asked


def missing_compiler(device: torch.device) -> str | None:
    """What ``torch.compile`` lacks to make code for a device; None where it does make some."""
    if device.type == "cuda":
        there = importlib.util.find_spec("triton") is not None
        return None if there else "the package triton is not installed"
    name = os.environ.get("CXX") or "g++"
    if shutil.which(name) is None:
        return f"there is no C++ compiler ({name})"
    return _failure(device)


def _failure(device: torch.device) -> str | None:
    """Why the smallest of functions cannot be compiled: a compiler may lack headers, say."""
    use_cache()
    x = torch.ones(8, device=device, requires_grad=True)
    try:
        torch.compile(_smallest, fullgraph=True)(x).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ImportError) as error:
        return f"torch.compile does not work here ({str(error).strip().splitlines()[0]})"
    return None


def _smallest(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * x + 1


def cache_folder() -> Path:
    """Where compiled code is kept for the next run: with the user's caches, not in the run."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "regrow" / "compiled"


def use_cache() -> None:
    """Let torch keep compiled code there, unless ``TORCHINDUCTOR_CACHE_DIR`` names a place."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))


def compile_blocks(module: nn.Module) -> int:
    """Compile the training forward of a decoder's attention and MLP blocks, in place.

    A block of which some part cannot be compiled after all runs that part as before.

    Returns:
        How many blocks.
    """
    import torch._dynamo.config as dynamo

    use_cache()
    torch._dynamo.reset()  # what earlier models of this process have left counts against a limit
    dynamo.suppress_errors = True
    made: dict[str, Callable[..., Any]] = {}
    chosen = [block for block in _blocks(module) if _kind(block) in _COMPILED]
    for block in chosen:
        # One function for each kind, so that blocks of a kind share the code and its guards.
        made.setdefault(_kind(block), torch.compile(Block.add, dynamic=False))
        block.compiled = made[_kind(block)]
    return len(chosen)


def _blocks(module: nn.Module) -> list[Block]:
    return [cast(Block, block) for block in cast(Any, module).blocks]


def _kind(block: Block) -> str:
    return block.symbol
