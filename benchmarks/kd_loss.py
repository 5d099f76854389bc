"""The loss against a teacher: ours, torch's written out, TRL's and Liger's chunked ones.

Forward and backward of both output heads over random hidden states, fp32. Everything runs turn by
turn in one process on the same tensors and threads; memory is measured in a fresh process for each
candidate, as the growth of resident memory over the tensors. The peers need packages that regrow
does not: the script makes an environment for them on its first call and runs itself there.

    python benchmarks/kd_loss.py                    # everything, as in the README
    python benchmarks/kd_loss.py time --threads 2   # seconds at two vocabularies
    python benchmarks/kd_loss.py memory             # peaks at two vocabularies
    python benchmarks/kd_loss.py constant           # peaks of ours from 512 to 4096 tokens
    python benchmarks/kd_loss.py time --divergence jsd
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peers import run_beside
from torch import Tensor
from turns import ratio

from regrow.core.hardware import fingerprint
from regrow.model import chunked_matching
from regrow.model.divergences import Matching

PEERS = ("trl==1.16.0", "liger-kernel==0.8.5")

VOCABULARIES = (32_768, 131_072)
#: beta of the peers that gives each of our divergences.
THEIR_BETA = {"fkl": 0.0, "jsd": 0.5}
LIGER_CHUNK = 128

Job = Callable[["Inputs"], Tensor]


class Inputs(NamedTuple):
    """Hidden states (N, D) and output matrices (V, D) of student and teacher."""

    hidden: Tensor
    matrix: Tensor
    teacher_hidden: Tensor
    teacher_matrix: Tensor


def make(tokens: int, vocabulary: int, widths: tuple[int, int]) -> Inputs:
    """Random ones, the student's asking for gradients; logits have a deviation of about 2."""
    generator = torch.Generator().manual_seed(0)

    def normal(rows: int, width: int, scale: float) -> Tensor:
        return torch.empty(rows, width).normal_(0, scale, generator=generator)

    ours, theirs = widths
    return Inputs(
        normal(tokens, ours, 1.0).requires_grad_(),
        normal(vocabulary, ours, 2 * ours**-0.5).requires_grad_(),
        normal(tokens, theirs, 1.0),
        normal(vocabulary, theirs, 2 * theirs**-0.5),
    )


def regrow_loss(inputs: Inputs, divergence: str) -> Tensor:
    """Ours."""
    vocabulary = inputs.matrix.shape[0]
    total, _, _ = chunked_matching.match(
        *inputs,
        None,
        Matching(divergence),
        torch.float32,
        torch.float32,
        chunked_matching.chunk_size(vocabulary, torch.device("cpu")),
    )
    return total


def naive_loss(inputs: Inputs, divergence: str) -> Tensor:
    """The formula written out in torch."""
    log_s = F.log_softmax(inputs.hidden @ inputs.matrix.t(), -1)
    log_t = F.log_softmax(inputs.teacher_hidden @ inputs.teacher_matrix.t(), -1)
    if divergence == "fkl":
        return F.kl_div(log_s, log_t, reduction="sum", log_target=True)
    log_m = torch.logsumexp(torch.stack([log_s, log_t]), 0) - torch.log(torch.tensor(2.0))
    halves = [F.kl_div(log_m, p, reduction="sum", log_target=True) for p in (log_s, log_t)]
    return (halves[0] + halves[1]) / 2


def liger_loss(inputs: Inputs, divergence: str) -> Tensor:
    """Liger's chunked JSD without its cross-entropy, not compiled; its linear KL needs a GPU."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    made = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=THEIR_BETA[divergence],
        compiled=False,
        chunk_size=LIGER_CHUNK,
    )
    targets = torch.zeros(inputs.hidden.shape[0], dtype=torch.int64)
    loss: Tensor = made(*inputs, targets)
    return loss * inputs.hidden.shape[0]  # it gives a mean


def trl_loss(inputs: Inputs, divergence: str) -> Tensor:
    """TRL's chunked divergence."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    hidden, matrix, teacher_hidden, teacher_matrix = inputs
    each, _ = ChunkedDivergenceFunction.apply(
        hidden, matrix, None, teacher_hidden, teacher_matrix, None, THEIR_BETA[divergence]
    )
    total: Tensor = each.sum()
    return total


LOSSES: dict[str, Callable[[Inputs, str], Tensor]] = {
    "regrow": regrow_loss,
    "naive": naive_loss,
    "liger": liger_loss,
    "trl": trl_loss,
}


def products(inputs: Inputs) -> None:
    """The four matrix products that no exact loss can do without."""
    hidden, matrix, teacher_hidden, teacher_matrix = (tensor.detach() for tensor in inputs)
    logits = hidden @ matrix.t()
    _ = teacher_hidden @ teacher_matrix.t()
    _ = logits @ matrix
    _ = logits.t() @ hidden


def step(name: str, inputs: Inputs, divergence: str) -> Tensor:
    """Loss and gradients of one candidate; the gradients are left in the inputs."""
    inputs.hidden.grad = inputs.matrix.grad = None
    loss = LOSSES[name](inputs, divergence)
    loss.backward()
    return loss.detach()


def agree(inputs: Inputs, divergence: str) -> dict[str, float]:
    """Largest relative difference of each candidate's loss and gradients from the naive ones."""
    expected = step("naive", inputs, divergence)
    grads = [inputs.hidden.grad, inputs.matrix.grad]
    found = {}
    for name in LOSSES:
        loss = step(name, inputs, divergence)
        pairs = [
            (loss, expected),
            *zip((inputs.hidden.grad, inputs.matrix.grad), grads, strict=True),
        ]
        found[name] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    return found


def seconds(options: argparse.Namespace) -> dict[str, Any]:
    """Process seconds at each vocabulary, and ours over each other's, round by round."""
    from train_step import timed

    figures = {}
    for vocabulary in options.vocabularies:
        inputs = make(options.tokens, vocabulary, (256, 384))
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in [*LOSSES, "products"]}
        differences = agree(make(128, vocabulary, (256, 384)), options.divergence)
        for number in range(options.rounds + 1):
            for name in spent if number % 2 else reversed(spent):
                gc.collect()
                if name == "products":
                    each = timed(lambda inputs=inputs: products(inputs))
                else:
                    each = timed(lambda n=name, i=inputs: step(n, i, options.divergence))
                if number:
                    spent[name].append(each)
        figures[vocabulary] = {
            "wall_seconds": {n: statistics.median(w for w, _ in v) for n, v in spent.items()},
            "cpu_seconds": {n: statistics.median(c for _, c in v) for n, v in spent.items()},
            "ours_over": ratios(spent, 0),
            "ours_over_cpu": ratios(spent, 1),
            "relative_difference": differences,
        }
    return figures


def ratios(spent: dict[str, list[tuple[float, float]]], which: int) -> dict[str, Any]:
    """Ours over each other's, round by round: median, lowest and highest."""
    made = {}
    for name, values in spent.items():
        if name != "regrow":
            ours = [seconds[which] for seconds in spent["regrow"]]
            made[name] = ratio(ours, [seconds[which] for seconds in values])
    return made


def _peak(
    name: str, tokens: int, vocabulary: int, widths: tuple[int, int], options: Any, send: Any
) -> None:
    """In a fresh process: how far resident memory grows over the inputs in one step."""
    torch.set_num_threads(options.threads)
    step(name, make(64, 512, widths), options.divergence)  # imports and buffers of the libraries
    inputs = make(tokens, vocabulary, widths)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _status("VmRSS")
    step(name, inputs, options.divergence)
    send.send(_status("VmHWM") - before)


def _status(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def peak(
    name: str, tokens: int, vocabulary: int, widths: tuple[int, int], options: argparse.Namespace
) -> int:
    """Bytes of :func:`_peak`."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(name, tokens, vocabulary, widths, options, send))
    process.start()
    send.close()
    grown: int = receive.recv()
    process.join()
    return grown


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peaks at each vocabulary, and ours over each other's."""
    figures = {}
    for vocabulary in options.vocabularies:
        peaks = {
            name: peak(name, options.tokens, vocabulary, (256, 384), options) for name in LOSSES
        }
        figures[vocabulary] = {
            "peak_bytes": peaks,
            "ours_over": {n: peaks["regrow"] / size for n, size in peaks.items() if n != "regrow"},
        }
    return figures


def constant(options: argparse.Namespace) -> dict[str, Any]:
    """Peaks of ours from 512 to 4096 tokens; of the naive loss at 2048, to compare."""
    sizes = (512, 1024, 2048, 4096)
    vocabulary, widths = options.vocabularies[-1], (64, 96)
    peaks = {tokens: peak("regrow", tokens, vocabulary, widths, options) for tokens in sizes}
    naive = peak("naive", 2048, vocabulary, widths, options)
    return {
        "peak_bytes": peaks,
        "largest_over_smallest": max(peaks.values()) / min(peaks.values()),
        "naive_at_2048": naive,
        "ours_over_naive_at_2048": peaks[2048] / naive,
    }


def main() -> None:
    """Measure and print the figures."""
    run_beside("kd-loss", PEERS)
    kinds = {"time": seconds, "memory": memory, "constant": constant}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=[*kinds, "all"], default="all", nargs="?")
    parser.add_argument("--threads", type=int, help="by default one, then two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    parser.add_argument("--divergence", choices=THEIR_BETA, default="fkl")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "divergence": options.divergence,
        "tokens": options.tokens,
        "machine": fingerprint(),
        "torch": torch.__version__,
        "peers": PEERS,
    }
    given = options.threads
    for threads in (given,) if given else (1, 2):
        options.threads = threads
        torch.set_num_threads(threads)
        chosen = kinds if options.what == "all" else {options.what: kinds[options.what]}
        if options.what == "all" and threads > 1:
            chosen = {"time": seconds}  # memory does not depend on threads
        figures[f"threads_{threads}"] = {
            "load": os.getloadavg()[0],
            **{name: measure(options) for name, measure in chosen.items()},
        }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
