"""Mamba-2, attention, and a hybrid of both, at equal parameters: recall, language, decoding.

    python -m experiments.hybrid.run                    # all parts, about an hour of one core
    python -m experiments.hybrid.run --parts A --seeds 3
    python -m experiments.hybrid.run --report           # tables and drawings of what is there

Each finished arm is one line of results.jsonl; a run that is killed goes on with the arm that it
was at. While the file that REGROW_PAUSE_FILE names exists, no new arm begins.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.progress import say, wait
from experiments.results import append, read

FOLDER = Path(__file__).parent


def done(path: Path) -> list[dict[str, Any]]:
    """Finished arms that were trained."""
    return [result for result in read(path) if result["part"] != "E"]


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--parts", default="ABCDE", help="of A recall, B phonebook, C copying, D text, E decoding"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grid-seeds", type=int, default=1, help="that see every learning rate")
    parser.add_argument("--models", nargs="*", default=("transformer", "mamba2", "hybrid"))
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of README.md and drawings")
    parser.add_argument("--steps", type=float, default=1.0, help="share of each recipe's steps")
    parser.add_argument("--tests", type=int, default=256, help="sequences of a test")
    parser.add_argument(
        "--contexts", type=int, nargs="*", default=None, help="of part E, in tokens"
    )
    parser.add_argument("--report", action="store_true", help="only write tables and drawings")
    settings = parser.parse_args(arguments)

    import torch
    from experiments.hybrid import decode, report
    from experiments.hybrid.arms import Size, due, run

    torch.set_num_threads(1)
    size = Size(settings.steps, settings.tests, 512 * settings.tests)

    def remaining() -> list[Any]:
        parts = settings.parts.replace("E", "")
        known = done(settings.results)
        return due(known, parts, settings.seeds, settings.grid_seeds, settings.models)

    while not settings.report and (arms := remaining()):
        wait()
        result = run(arms[0], size)
        append(settings.results, [result])
        shown = result.get("accuracy") or result.get("exact_match") or result["held_out_loss"]
        say(f"{result['name']} {result['cpu_seconds']} s {shown}")
    if "E" in settings.parts and not settings.report:
        known = {r["name"] for r in read(settings.results)}
        contexts = settings.contexts or decode.CONTEXTS
        if not {f"E-hybrid-{context}" for context in contexts} <= known:
            wait()
            append(settings.results, decode.measure(contexts))
    report.write(read(settings.results), settings.folder)


if __name__ == "__main__":
    main()
