"""The two-blend recipe of Reuse, Don't Retrain against training longer on the pretraining blend.

    REGROW_DATA=path/to/data OMP_NUM_THREADS=1 nice -n 10 python -m experiments.continue.run
    python -m experiments.continue.run --report        # tables of what is there

Everything lies in run folders below --work; a run that is killed goes on with the checkpoint that
it was at. Each finished arm is one line of results.jsonl. While the file that REGROW_PAUSE_FILE
names exists, no new arm begins.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from experiments.progress import say, wait
from experiments.results import append, read

FOLDER = Path(__file__).parent


def run(work: Path, data: Path, results: Path, kinds: list[str], seeds: int, size: Any) -> None:
    """Prepare, train the base, then every arm that is not done; resumable at any instant.

    Args:
        work: where all run folders lie.
        data: what ``REGROW_DATA`` names.
        results: the file that gets a line an arm.
        kinds: arms to run.
        seeds: of each.
        size: see :class:`experiments.continue.prepare.Size`.
    """
    from . import arms, prepare  # noqa: TID252
    from .score import score  # noqa: TID252

    shards = prepare.shards(work, data, size)
    asked = prepare.questions(work)
    say("pairs: " + ", ".join(f"{name} {len(found)}" for name, found in asked.items()))
    folder, saturation = prepare.base(work, size, say)
    say("the base is saturated" if saturation["saturated"] else "the base is NOT saturated")
    known = {(r["arm"], r["seed"]) for r in read(results) if r["base"] == saturation}
    if ("base", 0) not in known:
        figures = score(folder / "export", shards, asked, size)
        append(results, [{"arm": "base", "seed": 0, "base": saturation, "scores": figures}])
    for name, seed in arms.due(known, kinds, seeds):
        wait()
        where = work / f"arm-{name}-seed{seed}-{saturation['tokens']}"
        made = prepare.do("continue", where, **arms.settings(name, seed, folder, shards, size))
        figures = score(where / "export", shards, asked, size)
        phases = made["schedule"]["phases"]
        last = phases[-1]["steps"] if len(phases) > 1 or name == "c" else 0
        append(
            results,
            [
                {
                    "arm": name,
                    "seed": seed,
                    "base": saturation,
                    "tokens": made["tokens"],
                    "steps": made["steps"],
                    "question_steps": last,
                    "question_epochs": made["ledger"].get(prepare.QA, {}).get("epochs", 0.0),
                    "seconds": made["seconds_training"],
                    "scores": figures,
                }
            ],
        )
        test = figures["test"]
        say(f"{name} seed {seed}: mean {test['mean']:.3f} qa {test['qa_text']:.3f}")


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done, then write the tables."""
    from . import report  # noqa: TID252
    from .arms import KINDS  # noqa: TID252
    from .prepare import Size  # noqa: TID252

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/continue-experiment"))
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of README.md")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument(
        "--ladder", type=int, nargs="*", default=list(Size().ladder), help="tokens of the base"
    )
    parser.add_argument("--report", action="store_true", help="only write the tables")
    settings = parser.parse_args(arguments)
    if not settings.report:
        import torch

        torch.set_num_threads(1)
        data = os.environ.get("REGROW_DATA")
        if not data:
            parser.error("REGROW_DATA names no folder; the experiment reads its texts")
        size = Size(ladder=tuple(settings.ladder))
        run(settings.work, Path(data), settings.results, settings.arms, settings.seeds, size)
    report.write(read(settings.results), settings.folder)


if __name__ == "__main__":
    main()
