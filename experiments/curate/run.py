"""Does curation make better training text? Every stage of the pipeline against the raw pool.

    REGROW_DATA=path/to/data OMP_NUM_THREADS=1 python -m experiments.curate.run --processes 2
    python -m experiments.curate.run --plan                # what is due, and how long it takes
    python -m experiments.curate.run --parts decoder       # our decoder, one seed, over an hour
    python -m experiments.curate.run --report              # only the tables

A seed makes a pool, and each arm of it is a run of ``curate run`` with a file of ``arms/``. Each
finished arm is one line of results.jsonl; everything lies in run folders below --work, so a run
that is killed goes on where it was. While the file that REGROW_PAUSE_FILE names exists, no new arm
begins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from experiments.progress import say, wait
from experiments.results import append, read

FOLDER = Path(__file__).parent
PARTS = ("ngram", "decoder")
SEEDS = {"ngram": 5, "decoder": 1}
#: CPU seconds of one arm, and of what each seed needs before; for the plan alone.
_SECONDS = {"ngram": 12, "decoder": 600}
_PREPARING = 60


def due(results: Path, parts: Sequence[str], seeds: int | None) -> list[tuple[str, int, str]]:
    """Part, seed and arm of every line that is not there, in the order of running."""
    from experiments.curate.arms import ARMS

    done = {(line["part"], line["seed"], line["arm"]) for line in read(results)}
    return [
        (part, seed, name)
        for part in parts
        for seed in range(min(SEEDS[part], seeds or SEEDS[part]))
        for name in ARMS
        if (part, seed, name) not in done
    ]


def run_seed(
    data: Path, work: Path, results: Path, size: Any, seed: int, todo: Sequence[tuple[str, str]]
) -> None:
    """What is due of one seed: pairs of part and arm."""
    import torch
    from experiments.curate import arms
    from experiments.curate.prepare import Seed

    torch.set_num_threads(1)
    for part, name in todo:
        wait()
        arm = arms.ARMS[name]
        one = Seed(data, work, seed, size, arm.small)
        begun = time.process_time()
        removed = one.prepare()
        ready = time.process_time()
        line = measure(one, part, name)
        line |= {
            "contaminated": removed["documents"],
            "prepared_s": round(ready - begun, 1),
            "cpu_s": round(time.process_time() - ready, 1),
        }
        append(results, [line])
        shown = ", ".join(f"{s} {f['nats']:.3f}" for s, f in line["sets"].items())
        say(f"{part} seed {seed} {name}: {shown} in {line['cpu_s']:.0f} s")


def measure(seed: Any, part: str, name: str) -> dict[str, Any]:
    """One line of the results."""
    from experiments.curate import arms, score

    arm = arms.ARMS[name]
    folder = arms.curated(seed, name)
    tokens = seed.folder / f"tokens-{part}-{name}"
    sample = arms.drawn(seed, tokens, folder, arm.shares, tokens_of(seed, part))
    if part == "ngram":
        sets = score.ngram(seed, sample)
    else:
        sets = score.decoder(seed, sample, seed.folder / f"decoder-{name}")
    manifest = json.loads((folder / "documents" / "manifest.json").read_text())
    line = {
        "part": part,
        "arm": name,
        "seed": seed.seed,
        "pool": digest(seed.world),
        "sets": sets,
        "tokens": sample.tokens,
        "epochs": sample.epochs,
        "documents": manifest["total_documents"],
        "bytes": manifest["total_bytes"],
        "mixture": arms.mixture(seed, sample),
    }
    if name == "dsir":
        line["removed"] = arms.removed(seed, folder)
    if name == "attr":
        annotated = json.loads((seed.folder / "classifier" / "result.json").read_text())
        line["classifier"] = annotated["held_out"]["macro_f1"]
    return line


def tokens_of(seed: Any, part: str) -> int:
    """Training tokens; of the small pool twice as many as it has raw."""
    from experiments.curate.prepare import raw_tokens

    if seed.small:
        return 2 * raw_tokens(seed)
    return int(seed.size.tokens if part == "ngram" else seed.size.decoder_tokens)


def digest(world: Path) -> str:
    """What tells one pool from another."""
    parts = (world / "size.json").read_bytes() + (world / "index.jsonl").read_bytes()
    return hashlib.blake2b(parts, digest_size=6).hexdigest()


def run(
    data: Path,
    work: Path,
    results: Path,
    size: Any,
    todo: list[tuple[str, int, str]],
    processes: int,
) -> None:
    """Everything that is due; seeds are shared by the processes.

    Args:
        data: what ``REGROW_DATA`` names.
        work: where all run folders lie.
        results: the file that gets a line an arm.
        size: see :class:`experiments.curate.prepare.Size`.
        todo: of :func:`due`.
        processes: how many work at once.
    """
    by_seed: dict[int, list[tuple[str, str]]] = {}
    for part, seed, name in todo:
        by_seed.setdefault(seed, []).append((part, name))
    given = [(data, work, results, size, seed, arms) for seed, arms in by_seed.items()]
    if processes == 1:
        for one in given:
            run_seed(*one)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for finished in [pool.submit(run_seed, *one) for one in given]:
            finished.result()


def plan(todo: list[tuple[str, int, str]], processes: int) -> str:
    """What is due and how long it takes, from what it took once."""
    if not todo:
        return "nothing is due"
    seconds = sum(_SECONDS[part] for part, _, _ in todo)
    seconds += 2 * _PREPARING * len({seed for _, seed, _ in todo})
    lines = [f"{part} seed {seed} {name}" for part, seed, name in todo]
    minutes = seconds / 60 / min(processes, len({seed for _, seed, _ in todo}))
    return "\n".join([*lines, f"{len(todo)} arms, about {minutes:.0f} minutes"])


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done, then write the tables."""
    from experiments.curate import report
    from experiments.curate.prepare import Size

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/curate-experiment"))
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of README.md")
    parser.add_argument("--parts", nargs="*", default=["ngram"], choices=PARTS)
    parser.add_argument("--seeds", type=int, default=None, help="fewer than a part has")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plan", action="store_true", help="only say what is due")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    settings = parser.parse_args(arguments)
    todo = due(settings.results, settings.parts, settings.seeds)
    if settings.plan:
        say(plan(todo, settings.processes))
        return
    if not settings.report:
        data = os.environ.get("REGROW_DATA")
        if not data:
            parser.error("REGROW_DATA names no folder; the experiment reads its texts")
        run(Path(data), settings.work, settings.results, Size(), todo, settings.processes)
    report.write(read(settings.results), settings.folder)


if __name__ == "__main__":
    main()
