"""Importance weights over hashed n-grams against ``data-selection``, in CPU seconds.

``features`` is what the target needs: the counts of all buckets, of text that was not seen before.
``again`` is ours on the same text once more, when every n-gram is known: what a much larger corpus
comes near to, since SHA-256 of new n-grams is most of the work. ``weights`` is a selection up to
the draw: both distributions, then the log weight of each document; theirs cuts and hashes the
documents for the one and again for the other, ours once. Counts must be equal, weights must agree.

Both see the same texts, turn by turn; theirs works in a process and an environment of its own,
which the script makes on its first call. Its tokenizer comes from a release of nltk that cuts with
``re``, as all did when it was written.

    python benchmarks/dsir.py                       # text of the Python installation, 16 MB
    python benchmarks/dsir.py --documents runs/x    # documents of a run of curate
    python benchmarks/dsir.py --folder .venv/lib    # source code and notes below a folder
    python benchmarks/dsir.py --rounds 5 --megabytes 64
    python benchmarks/dsir.py --profile             # where our time goes
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer
from texts import of_python, of_run, up_to
from turns import ratio

PEERS = ("data-selection==1.0.3", "nltk==3.9.1")
TARGET_SHARE = 10  # one text of so many is the target


def peer(folder: Path) -> None:
    """In their environment: for each line read, one round, answered by one line of JSON."""
    from data_selection import HashedNgramDSIR
    from data_selection.hashed_ngram_dsir import get_ngram_counts

    raw, target = folder / "raw.jsonl", folder / "target.jsonl"
    texts = [json.loads(line)["text"] for line in raw.read_text().splitlines()]

    def spent() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))

    for line in sys.stdin:
        number = int(line)
        started = spent()
        counts = np.zeros(10_000, int)
        for text in texts:
            counts = get_ngram_counts(text, counts=counts)
        features = spent() - started
        started = spent()
        cache = folder / f"cache{number}"
        theirs = HashedNgramDSIR([str(raw)], [str(target)], str(cache), num_proc=1)
        theirs.fit_importance_estimator()
        theirs.compute_importance_weights()
        weights = spent() - started
        np.save(folder / "counts.npy", counts)
        found = np.load(next((cache / "log_importance_weights").glob("*.npy")))
        np.save(folder / "weights.npy", found)
        print(json.dumps({"features": features, "weights": weights}), flush=True)


def of_folder(folder: Path) -> Iterator[str]:
    """Source code and notes."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".md", ".rst", ".txt") and path.is_file():
            yield path.read_text("utf-8", "ignore")


def gathered(options: argparse.Namespace) -> list[str]:
    """Texts up to the size that was asked for."""
    if options.folder:
        found = of_folder(options.folder)
    elif options.documents:
        found = of_run(options.documents, code=True)
    else:
        found = of_python(("reference", "docstrings", "packages", "code"), code=True)
    return up_to(options.megabytes, found)


def weights(texts: list[str], target: list[str]) -> np.ndarray:
    """Log weights of all texts."""
    from regrow.data import dsir

    hasher = dsir.Hasher()
    wanted = hasher.features(target).counts()
    found = hasher.features(texts)
    gains = dsir.log_ratio(wanted, found.counts())
    parts = np.split(found.buckets, found.first[1:-1])
    return np.array([dsir.log_weight(part, gains) for part in parts])


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=Path, help="a run of curate")
    parser.add_argument("--folder", type=Path, help="a folder of text files")
    parser.add_argument("--megabytes", type=float, default=16.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer)
        return

    from regrow.core.hardware import fingerprint
    from regrow.data import dsir

    every = gathered(options)
    target = every[::TARGET_SHARE]
    texts = [text for number, text in enumerate(every) if number % TARGET_SHARE]
    knowing: list[dsir.Hasher] = []

    def fresh() -> np.ndarray:
        knowing[:] = [dsir.Hasher()]
        return again()

    def again() -> np.ndarray:
        found: np.ndarray = knowing[0].features(texts).counts()
        return found

    ours = {"features": fresh, "again": again, "weights": lambda: weights(texts, target)}
    folder = Path(tempfile.mkdtemp(prefix="regrow-dsir-"))
    for name, some in (("raw", texts), ("target", target)):
        lines = (json.dumps({"text": text}) + "\n" for text in some)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    theirs = Peer("dsir", PEERS, [__file__, "--peer", folder])
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ours}
    made: dict[str, np.ndarray] = {}
    for number in range(options.rounds + 1):
        seconds = {}
        for name, function in ours.items():
            started = time.process_time()
            made[name] = function()
            seconds[name] = time.process_time() - started
        their_seconds = theirs.ask(str(number))
        if number:
            for name, own in seconds.items():
                theirs_here = their_seconds["features" if name == "again" else name]
                spent[name].append((own, theirs_here))
    counts, logs = (np.load(folder / f"{name}.npy") for name in ("counts", "weights"))
    figures: dict[str, Any] = {
        "documents": len(texts),
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "ngrams": int(counts.sum()),
        "machine": fingerprint(),
        "load": os.getloadavg()[0],
        "peers": PEERS,
        "buckets_that_differ": int(np.count_nonzero(counts != made["features"])),
        "weights_differ_at_most": float(np.abs(logs - made["weights"]).max()),
        "cpu_seconds": {
            n: [statistics.median(c) for c in zip(*p, strict=True)] for n, p in spent.items()
        },
        "theirs_over_ours": {
            name: ratio([b for _, b in pairs], [a for a, _ in pairs])
            for name, pairs in spent.items()
        },
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(fresh)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
