"""Prune to a half and distil: every claim of Minitron that a small model can show.

    regrow grow recipes/base.yaml --run runs/base-recipe               # once: the teacher
    OMP_NUM_THREADS=1 python -m experiments.compress.run --plan        # what is due, how long
    OMP_NUM_THREADS=1 nice -n 10 python -m experiments.compress.run    # all parts
    python -m experiments.compress.run --report                        # tables and drawings

Each finished piece is one line of results.jsonl, and everything lies in run folders below --work: a
run that is killed goes on with the checkpoint that it was at. Two processes of the same command
share the work. While the file that REGROW_PAUSE_FILE names exists, nothing new begins.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.progress import say, wait
from experiments.results import append

FOLDER = Path(__file__).parent
PARTS = ("zero", "arms", "depth", "search", "compute", "twin", "speed")


class Task(NamedTuple):
    """One line of the results that is not there yet."""

    name: str
    make: Callable[[], dict[str, Any]]


def tasks(
    results: list[dict[str, Any]], students: Any, parts: Sequence[str], seeds: int, size: Any
) -> Iterator[Task]:
    """What is due now; more may follow from what it gives."""
    from experiments.compress import arms, search, zero

    done = arms.latest(results)
    if "base" not in done:
        yield Task("base", lambda: arms.teacher(students))
    if "zero" in parts:
        for cut in zero.due(results, seeds, size):
            yield Task(cut.name, lambda cut=cut: zero.run(cut, students))
    for arm in arms.due(results, students, parts, seeds, size):
        yield Task(arm.name, lambda arm=arm: arms.run(arm, students))
    if "search" in parts:
        rate = search.rate(results, students)
        if rate is not None and search.due(results, students):
            yield Task(search.NAME, lambda: search.run(students, rate))
    if "speed" in parts and "speed" not in done:
        yield Task("speed", lambda: arms.speeds(students))


def run(
    students: Any, results: Path, parts: Sequence[str], seeds: int, poll_s: float = 5.0
) -> None:
    """Every piece that is not done; resumable at any instant.

    Args:
        students: the :class:`experiments.compress.prepare.Students` of a base.
        results: the file that gets a line a piece.
        parts: of :data:`PARTS`.
        seeds: of each arm.
        poll_s: seconds between two looks at what another process is doing.
    """
    from experiments.compress.arms import read_of

    from regrow.core.errors import BusyError

    key, size = students.key, students.size
    while True:
        wait()
        try:
            todo = list(tasks(read_of(results, key), students, parts, seeds, size))
        except BusyError:  # what to do follows from a cut that another process is at
            time.sleep(poll_s)
            continue
        if not todo:
            return
        for task in todo:
            started = time.monotonic()
            try:
                line = task.make()
            except BusyError:  # another process is at it
                continue
            if task.name not in {r["name"] for r in read_of(results, key)}:
                append(results, [{"base": key, **line}])
            loss = line.get("test") or line.get("loss") or line.get("winner_test")
            told = f" {loss:.3f}" if loss is not None else ""
            say(f"{task.name}{told} in {time.monotonic() - started:.0f} s")
            break
        else:
            time.sleep(poll_s)


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=Path("runs/base-recipe"), help="family folder")
    parser.add_argument("--work", type=Path, default=Path("runs/compress-experiment"))
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of README.md and drawings")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--size", choices=("full", "tiny"), default="full", help="tiny makes its own base"
    )
    parser.add_argument("--again", action="store_true", help="measure the speeds anew")
    parser.add_argument("--plan", action="store_true", help="only say what is due")
    parser.add_argument("--report", action="store_true", help="only write tables and drawings")
    settings = parser.parse_args(arguments)

    import torch
    from experiments.compress import arms, estimate, prepare, report
    from experiments.results import read

    if settings.report:
        report.write(report.of_last_base(read(settings.results)), settings.folder)
        return
    torch.set_num_threads(1)
    tiny = settings.size == "tiny"
    base = prepare.tiny(settings.work / "base") if tiny else prepare.Base(settings.base)
    if not (base.folder / "result.json").is_file():
        parser.error(
            f"{base.folder} holds no finished base; make it with: "
            f"regrow grow recipes/base.yaml --run {settings.base}"
        )
    size = prepare.TINY if tiny else prepare.Size()
    students = prepare.Students(base, settings.work, size)
    if settings.plan:
        results = arms.read_of(settings.results, students.key)
        say(estimate.plan(results, students, settings.parts, settings.seeds))
        return
    if settings.again:
        append(settings.results, [{"base": students.key, **arms.speeds(students)}])
    run(students, settings.results, settings.parts, settings.seeds)
    report.write(arms.read_of(settings.results, students.key), settings.folder)


if __name__ == "__main__":
    main()
