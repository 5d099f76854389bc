"""A whole curation of generated text: CPU seconds, wall and peak memory on one core and on two.

The text is made in a temporary folder (documents of random words from a fixed list, one in five an
edited copy of an earlier one) and deleted afterwards. Each run is the public command in a process
of its own, pinned to one core or to two; memory is the largest sum over the process and its
children. The bound is that of fuzzy duplicates: four times the signatures (448 bytes a document)
and 1 GB, whatever the amount of text.

    python benchmarks/curate.py --megabytes 1024 --rounds 1
    python benchmarks/curate.py --megabytes 100
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from regrow.core.hardware import fingerprint

STEPS = "[language, exact, fuzzy, filter, split]"
_SIGNATURE = 448
_FILES = 16
_WORDS = 20_000
_COMMON = ("the", "be", "to", "of", "and", "that", "have", "with", "in", "it", "is", "was")


def write_text(folder: Path, megabytes: int) -> int:
    """Records of about 3 kB each; how many."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, n)) for n in draw.integers(2, 10, _WORDS)]
    table = np.array([*words, *_COMMON * (_WORDS // 20)])
    wanted, documents, recent = megabytes << 20, 0, []
    share = wanted // _FILES
    for number in range(_FILES):
        written = 0
        with (folder / f"{number:02d}.jsonl").open("w", encoding="utf-8") as file:
            while written < share:
                if recent and draw.random() < 0.2:
                    text = list(recent[draw.integers(len(recent))])
                    for place in draw.integers(0, len(text), 1 + len(text) // 100):
                        text[place] = str(table[draw.integers(len(table))])
                else:
                    text = table[draw.integers(0, len(table), draw.integers(60, 900))].tolist()
                    recent = [*recent[-200:], text]
                line = json.dumps({"id": str(documents), "text": " ".join(text).capitalize() + "."})
                file.write(line + "\n")
                written += len(line)
                documents += 1
    return documents


def measured(pool: Path, run: Path, cores: list[int]) -> dict[str, Any]:
    """One run of the command on these cores."""
    source = f"{{kind: folder, name: pool, path: {pool}, fields: {{id: id}}}}"
    words = [f"sources=[{source}]", f"steps={STEPS}", f"engine.workers={len(cores)}"]
    words += ["filter.no_list=skip", "--run", str(run), "--quiet"]
    command = [sys.executable, "-m", "regrow", "curate", "run", *words]
    pin = ["taskset", "-c", ",".join(map(str, cores))]
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen([*pin, *command], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise SystemExit(f"curate run ended with {process.returncode}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    timings = json.loads((run / "timings.json").read_text())
    return {"wall": wall, "cpu": cpu, "peak_bytes": peak, "stages": timings}


def resident(pid: int) -> int:
    """Bytes in memory of a process and its descendants; pages that they share count once in all."""
    total = 0
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                total += resident(int(child))
    except (OSError, StopIteration):  # it has just ended
        pass
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    cores = sorted(os.sched_getaffinity(0))[:2]
    try:
        pool = folder / "pool"
        pool.mkdir()
        documents = write_text(pool, options.megabytes)
        found: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
        for number in range(options.rounds):
            for name, chosen in (("one", cores[:1]), ("two", cores)):
                run = folder / f"run-{name}-{number}"
                found[name].append(measured(pool, run, chosen))
                shutil.rmtree(run)
        bound = 4 * _SIGNATURE * documents + 10**9
        peaks = {name: max(one["peak_bytes"] for one in many) for name, many in found.items()}
        pairs = zip(found["one"], found["two"], strict=True)
        report = {
            "megabytes": options.megabytes,
            "documents": documents,
            "runs": found,
            "two_cores_over_one": statistics.median(a["wall"] / b["wall"] for a, b in pairs),
            "megabytes_per_cpu_second": {
                name: options.megabytes / statistics.median(one["cpu"] for one in many)
                for name, many in found.items()
            },
            "peak_bytes": peaks,
            "bound_bytes": bound,
            "load": os.getloadavg()[0],
            "machine": fingerprint(),
        }
        print(json.dumps(report, indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
