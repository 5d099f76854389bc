"""How good the linear attribute classifiers are on gold labels, weak labels and noise.

    REGROW_DATA=path/to/data OMP_NUM_THREADS=1 python -m experiments.curate.attributes

Each arm is a run of ``curate annotate`` on a file of labels, or, where the test comes from
elsewhere, the same training and figures called directly. Prints the table of README.md; a finished
arm is a line of attributes.jsonl and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from experiments.curate import labelled
from experiments.curate.labelled import Text
from experiments.results import append, read

from regrow.core.config import load_config
from regrow.core.errors import RunError
from regrow.core.run import Run
from regrow.data.attributes.linear import train
from regrow.data.attributes.measures import calibration_error, evaluate, softmax
from regrow.data.jobs import annotate
from regrow.data.settings.annotate import AnnotateConfig

FOLDER = Path(__file__).parent
SEEDS = 5
FLOOR = 0.6
Figures = dict[str, Any]


def annotated(attribute: str, texts: Sequence[Text], seed: int, work: Path) -> Figures:
    """Figures of ``curate annotate``, or that it refused to export."""
    file = work / "labels.jsonl"
    rows = ({"text": t.text, "label": t.label, "source": t.source, "file": t.file} for t in texts)
    lines = {row["text"]: json.dumps(row) + "\n" for row in rows}  # equal texts count once
    file.write_text("".join(lines.values()), encoding="utf-8")
    base = {"attribute": attribute, "labels": str(file), "seed": seed, "min_macro_f1": FLOOR}
    config = load_config(AnnotateConfig, base=base)
    run = Run.claim(work / f"run-{seed}", "curate annotate", config, force=True, quiet=True)
    try:
        result = annotate.run(config, run)
    except RunError:
        events = (run.path / "events.jsonl").read_text().splitlines()
        measured = [json.loads(line) for line in events if "measured" in line][-1]
        if run.export.exists():
            raise
        return {"refused": True, "macro_f1": measured["macro_f1"], "accuracy": measured["accuracy"]}
    finally:
        run.release()
    held = result["held_out"]
    return {
        "refused": False,
        **{k: held[k] for k in ("texts", "accuracy", "macro_f1", "ece", "ece_uncalibrated", "f1")},
        "majority_macro_f1": held["majority"]["macro_f1"],
        "held_out_by": result["held_out_by"],
        "classes": len(result["classes"]),
        "trained": result["trained_documents"],
    }


def elsewhere(inside: Sequence[Text], outside: Sequence[Text], seed: int) -> Figures:
    """Figures on texts of other origins than those that were trained on."""
    known = {t.label for t in inside}
    outside = [t for t in outside if t.label in known]
    made = train([t.text for t in inside], [t.label for t in inside], seed=seed)
    truth = np.array([made.labels.index(t.label) for t in outside])
    logits = made.logits([t.text for t in outside])
    found = evaluate(softmax(made.calibration(logits)), truth, made.labels)
    return {
        "refused": found["macro_f1"] < FLOOR,
        **{k: found[k] for k in ("texts", "accuracy", "macro_f1", "ece", "f1")},
        "ece_uncalibrated": calibration_error(softmax(logits), truth)[0],
        "majority_macro_f1": found["majority"]["macro_f1"],
        "held_out_by": "origin",
        "classes": len(made.labels),
        "trained": len(inside),
    }


def by_origin(texts: Sequence[Text], classes: dict[str, tuple[str, ...]], seed: int) -> Figures:
    """Trained on all but the last origin of each class that has two or more, measured on those."""
    last = {origins[-1] for origins in classes.values() if len(origins) > 1}
    several = {label for label, origins in classes.items() if len(origins) > 1}
    inside = [t for t in texts if t.source not in last]
    outside = [t for t in texts if t.source in last and t.label in several]
    return elsewhere(inside, outside, seed)


def shuffled(texts: Sequence[Text], seed: int) -> list[Text]:
    """The same texts with their labels dealt out anew."""
    labels = [t.label for t in texts]
    random.Random(seed).shuffle(labels)
    return [Text(t.text, label, t.source, t.file) for t, label in zip(texts, labels, strict=True)]


def arms(data: Path, most: int | None) -> dict[str, Callable[[int, Path], Figures]]:
    """Name to what gives its figures for a seed.

    Args:
        data: the data folder.
        most: texts of a set at most (of the small run of the tests); None for all.
    """

    def some(texts: list[Text]) -> list[Text]:
        if most is None or len(texts) <= most:
            return texts
        return random.Random(0).sample(texts, most)

    tweets, comments = some(labelled.davidson(data)), some(labelled.jigsaw(data))
    questions = some(labelled.clinc(data))
    pieces = labelled.MOST if most is None else max(20, most // 20)
    speech = labelled.weak(data, labelled.SPEECH, pieces)
    quality = labelled.weak(data, labelled.QUALITY, pieces)
    return {
        "toxicity, tweets": lambda s, w: annotated("toxicity", tweets, s, w),
        "toxicity, talk pages": lambda s, w: annotated("toxicity", comments, s, w),
        "toxicity, tweets to talk pages": lambda s, w: elsewhere(tweets, comments, s),
        "domain, ten of questions": lambda s, w: annotated("question_domain", questions, s, w),
        "speech (weak), other files": lambda s, w: annotated("speech", speech, s, w),
        "speech (weak), other origins": lambda s, w: by_origin(speech, labelled.SPEECH, s),
        "quality (weak), other files": lambda s, w: annotated("quality", quality, s, w),
        "quality (weak), other origins": lambda s, w: by_origin(quality, labelled.QUALITY, s),
        "toxicity, labels shuffled": lambda s, w: annotated(
            "toxicity", shuffled(comments, s), s, w
        ),
        "speech, labels shuffled": lambda s, w: annotated("speech", shuffled(speech, s), s, w),
    }


def run(data: Path, results: Path, seeds: int, most: int | None = None) -> None:
    """Every arm that has no line yet."""
    done = {(record["arm"], record["seed"]) for record in read(results)}
    for name, figures in arms(data, most).items():
        for seed in range(seeds):
            if (name, seed) in done:
                continue
            started = time.process_time()
            with tempfile.TemporaryDirectory() as work:
                found = figures(seed, Path(work))
            seconds = round(time.process_time() - started, 2)
            append(results, [{"arm": name, "seed": seed, "cpu_seconds": seconds, **found}])


def table(records: Sequence[Figures]) -> str:
    """The arms' means over seeds, with the spread of macro-F1, as Markdown."""
    lines = [
        "| arm | classes | trained on | measured on | accuracy | macro-F1 | commonest class | ECE "
        "| before calibration | exported |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(record["arm"] for record in records):
        rows = [record for record in records if record["arm"] == name]

        def middle(key: str, rows: Sequence[Figures] = rows, digits: int = 3) -> str:
            values = [row[key] for row in rows if key in row]
            return f"{mean(values):.{digits}f}" if values else "-"

        f1 = [row["macro_f1"] for row in rows]
        spread = f" ± {stdev(f1):.3f}" if len(f1) > 1 else ""
        exported = sum(not row["refused"] for row in rows)
        lines.append(
            f"| {name} | {middle('classes', digits=0)} | {middle('trained', digits=0)} "
            f"| {middle('texts', digits=0)} | {middle('accuracy')} | {mean(f1):.3f}{spread} "
            f"| {middle('majority_macro_f1')} | {middle('ece')} | {middle('ece_uncalibrated')} "
            f"| {exported} of {len(rows)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--results", type=Path, default=FOLDER / "attributes.jsonl")
    parser.add_argument("--report", action="store_true", help="only the table of what is there")
    given = parser.parse_args()
    if not given.report:
        run(Path(os.environ["REGROW_DATA"]), given.results, given.seeds)
    sys.stdout.write(table(read(given.results)) + "\n")


if __name__ == "__main__":
    main()
