"""Near duplicates from texts to clusters: the step ``fuzzy``, bare Daft, rensa and datasketch.

A generated corpus with planted near duplicates whose similarity is known exactly; 14 bands of 8
hashes over 5 words for everyone. Each candidate runs in a fresh process, turn by turn; CPU seconds
are of that process with all of its threads, from the first read to the last component, after it has
done a small corpus, for imports and first calls; memory is the peak of the process. Texts are
normalised by each candidate (lower case, no punctuation, single blanks), or before, for the peers'
sake, with ``--normalised``: then theirs only split, and Daft's and ours normalise what is normal
already. The peers need packages that regrow does not: the script makes an environment for them on
its first call and runs itself there.

    python benchmarks/dedup.py                                 # as in the README
    python benchmarks/dedup.py --normalised
    python benchmarks/dedup.py --documents 3000 --rounds 1     # a quick look
    python benchmarks/dedup.py --only regrow verbs --documents 120000 --rounds 1   # memory, 1 GB

``regrow`` is the whole step: it also chooses who stays, writes the table of clusters and gives the
column of copies, which the peers do not. ``verbs`` is ours with edges and components by the
engine's verbs, as above the bounds of the driver.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from peers import run_beside
from turns import ratio

from regrow.core.hardware import fingerprint

PEERS = ("datasketch==2.0.0", "rensa==0.5.0")

BANDS, ROWS, WORDS = 14, 8, 5
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FAMILIES = 0.35  # of the documents have a copy, as many as three of them
ROWS_PER_GROUP = 256
ROWS_PER_FILE = 8192
NOT_TEXT = re.compile(r"[^\w\s]|_")

Labels = dict[str, str]
Run = Callable[[Path], Labels]


def make_corpus(
    path: Path, documents: int, seed: int, normalised: bool
) -> list[tuple[str, str, float]]:
    """Write files of ``id, text, source, date``; planted pairs with their Jaccard similarity.

    Words follow Zipf's law over 60,000; a copy differs in one to four runs of words, so that
    similarities spread from 0.4 to 1; case, marks and line ends differ in all of them unless
    ``normalised``.
    """
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    vocabulary = np.array(
        [bytes(rng.choice(letters, rng.integers(2, 11))).decode() for _ in range(60_000)]
    )
    weights = 1 / np.arange(3, 60_003)
    weights /= weights.sum()
    pairs: list[tuple[str, str, float]] = []
    schema = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "date")])
    path.mkdir()
    made = 0
    while made < documents:
        with pq.ParquetWriter(path / f"part-{made:07d}.parquet", schema) as writer:
            end = min(documents, made + ROWS_PER_FILE)
            while made < end:
                rows: list[dict[str, str]] = []
                while len(rows) < ROWS_PER_GROUP and made + len(rows) < end:
                    family, similar = make_family(rng, vocabulary, weights, normalised)
                    pairs += [
                        (family[0]["id"], r["id"], s)
                        for r, s in zip(family[1:], similar, strict=True)
                    ]
                    rows += family
                made += len(rows)
                writer.write_table(pa.Table.from_pylist(rows, schema))
    return pairs


def make_family(
    rng: np.random.Generator, vocabulary: np.ndarray, weights: np.ndarray, normalised: bool
) -> tuple[list[dict[str, str]], list[float]]:
    """A document and perhaps up to three copies of it, and the similarity of each with it."""
    size = int(np.clip(rng.lognormal(6.75, 0.85), 30, 20_000))
    words = vocabulary[rng.choice(len(vocabulary), size, p=weights)]
    rows, similar = [row(rng, words, normalised)], []
    for _ in range(rng.integers(1, 4) if rng.random() < FAMILIES else 0):
        changed = words.copy()
        share = rng.uniform(0, 0.35)
        for gap in rng.integers(0, size, rng.integers(1, 5)):
            run = changed[gap : gap + max(1, int(share * size / 4))]
            run[:] = vocabulary[rng.choice(len(vocabulary), len(run), p=weights)]
        rows.append(row(rng, changed, normalised))
        similar.append(similarity(words, changed))
    return rows, similar


def row(rng: np.random.Generator, words: np.ndarray, normalised: bool) -> dict[str, str]:
    """A document: its words, in sentences and lines unless they shall be normalised."""
    text = " ".join(words.tolist())
    if not normalised:
        ends = rng.random(len(words))
        shown = words.astype(object)
        shown = np.where(ends < 0.08, shown + ".", np.where(ends < 0.15, shown + ",", shown))
        blanks = np.where(rng.random(len(words)) < 0.06, "\n", " ")
        text = "".join((shown + blanks).tolist()).capitalize()
    return {
        "id": rng.bytes(16).hex(),
        "text": text,
        "source": ("web", "books", "wiki")[rng.integers(3)],
        "date": f"20{rng.integers(10, 26)}-{rng.integers(1, 13):02d}",
    }


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of the sets of runs of five words."""
    a, b = (
        {tuple(w[i : i + WORDS]) for i in range(max(1, len(w) - WORDS + 1))}
        for w in (one.tolist(), other.tolist())
    )
    return len(a & b) / len(a | b)


def texts(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Ids and the words of the normalised texts, a row group at a time."""
    done = path.name.startswith("normalised")
    for batch in batches(path, "id", "text"):
        for name, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            yield name, text.split(" ") if done else NOT_TEXT.sub("", text.lower()).split()


def batches(path: Path, *columns: str) -> Iterator[pa.RecordBatch]:
    """Rows of all files, a row group at a time."""
    for part in sorted(path.iterdir()):
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(ROWS_PER_GROUP, columns=list(columns))


def shingles(words: list[str]) -> list[str]:
    """Runs of five words."""
    return [" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]


def scipy_components(ids: list[str], first: Any, second: Any) -> Labels:
    """Labels of the nodes that have an edge."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(first), np.int8)
    graph = coo_array((ones, (first, second)), shape=(len(ids), len(ids)))
    _, labels = connected_components(graph, directed=False)
    touched = np.unique(np.concatenate([first, second]))
    return {ids[i]: str(labels[i]) for i in touched.tolist()}


def regrow_step() -> Run:
    """Ours, as the job runs it."""
    from regrow.core.config import load_config
    from regrow.data import engine
    from regrow.data.config import CurateConfig
    from regrow.data.steps.fuzzy import Fuzzy

    sources = [{"kind": "folder", "name": name, "path": "/"} for name in ("web", "books", "wiki")]
    step = Fuzzy(load_config(CurateConfig, base={"sources": sources}))

    def run(path: Path) -> Labels:
        folder = Path(tempfile.mkdtemp())
        frame = engine.read_parquet(sorted(path.iterdir())).select("id", *step.reads())
        engine.collected(step.score(frame, folder))
        table = pq.read_table(folder / "clusters.parquet", columns=["id", "component"])
        shutil.rmtree(folder)
        return dict(zip(table["id"].to_pylist(), table["component"].to_pylist(), strict=True))

    return run


def regrow_verbs() -> Run:
    """Ours above the bounds of the driver."""
    from regrow.data import components

    components.DRIVER_KEYS = components.DRIVER_EDGES = 0
    return regrow_step()


def bare_daft() -> Run:
    """The same verbs written out in Daft, and SciPy's components."""
    from regrow.core.engines import prepare_engines

    prepare_engines()
    import daft
    from daft import functions as f

    daft.set_runner_native()

    def run(path: Path) -> Labels:
        frame = daft.read_parquet(str(path / "*.parquet"))
        plain = f.regexp_replace(frame["text"], r"[\p{P}\p{S}]+", "")
        plain = f.normalize(plain, lowercase=True, white_space=True)
        signature = f.minhash(
            plain, num_hashes=BANDS * ROWS, ngram_size=WORDS, hash_function="xxhash3_64"
        )
        bands = frame.select("id", f.chunk(signature, ROWS).alias("bands"))
        band = f.list_map(bands["bands"], f.hash(daft.element()))
        numbered = bands.select("id", band.alias("band")).explode("band").collect()
        least = numbered.groupby("band").agg(
            numbered["id"].min().alias("first"), numbered["id"].count().alias("texts")
        )
        least = least.where(least["texts"] > 1).select("band", "first")
        edges = numbered.join(least, on="band")
        edges = edges.where(edges["id"] != edges["first"]).select("first", "id").distinct()
        found = edges.to_pydict()
        ids = sorted({*found["first"], *found["id"]})
        places = {name: place for place, name in enumerate(ids)}
        first, second = (np.array([places[i] for i in found[n]]) for n in ("first", "id"))
        return scipy_components(ids, first, second)

    return run


def band_edges(ids: list[str], signatures: np.ndarray) -> Labels:
    """Edges from the first text of each bucket, by sorting, and SciPy's components."""
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    for band in range(BANDS):
        rows = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])
        _, at, group = np.unique(
            rows.view(np.dtype((np.void, rows.dtype.itemsize * ROWS))).ravel(),
            return_index=True,
            return_inverse=True,
        )
        lead = at[group]
        other = np.flatnonzero(lead != np.arange(len(ids)))
        first.append(lead[other])
        second.append(other)
    return scipy_components(ids, np.concatenate(first), np.concatenate(second))


def rensa_numpy() -> Run:
    """rensa's signatures, NumPy's buckets."""
    from rensa import RMinHash

    def run(path: Path) -> Labels:
        ids: list[str] = []
        signed: list[np.ndarray] = []
        for name, words in texts(path):
            sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
            sketch.update(shingles(words))
            ids.append(name)
            signed.append(np.array(sketch.digest(), np.uint32))
        return band_edges(ids, np.array(signed))

    return run


def datasketch_lsh() -> Run:
    """datasketch's MinHash and its LSH index."""
    from datasketch import MinHash, MinHashLSH

    def run(path: Path) -> Labels:
        index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        ids: list[str] = []
        places: dict[str, int] = {}
        first: list[int] = []
        second: list[int] = []
        for name, words in texts(path):
            sketch = MinHash(num_perm=BANDS * ROWS)
            sketch.update_batch([shingle.encode() for shingle in shingles(words)])
            for other in index.query(sketch):
                first.append(places[other])
                second.append(len(ids))
            index.insert(name, sketch, check_duplication=False)
            places[name] = len(ids)
            ids.append(name)
        return scipy_components(ids, np.array(first), np.array(second))

    return run


CANDIDATES: dict[str, Callable[[], Run]] = {
    "regrow": regrow_step,
    "verbs": regrow_verbs,
    "daft": bare_daft,
    "rensa": rensa_numpy,
    "datasketch": datasketch_lsh,
}


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def alone(
    name: str, path: Path, small: Path, pairs: list[tuple[str, str, float]], send: Any
) -> None:
    """In a fresh process: run one candidate and send its figures."""
    run = CANDIDATES[name]()
    run(small)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    cpu, wall = cpu_seconds(), time.monotonic()
    labels = run(path)
    cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
    peak = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    together = [labels.get(a) is not None and labels.get(a) == labels.get(b) for a, b, _ in pairs]
    values = np.array([s for _, _, s in pairs])
    hits = np.array(together)
    recall = {}
    for low, high in zip(BINS, (*BINS[1:], 2.0), strict=True):
        inside = (values >= low) & (values < high)
        if inside.any():
            label = "1" if low == 1 else f"{low} to {high}"
            recall[label] = [round(float(hits[inside].mean()), 4), int(inside.sum())]
    send.send(
        {
            "cpu": cpu,
            "wall": wall,
            "peak_bytes": 1024 * int(peak.split()[1]),
            "recall": recall,
            "members": len(labels),
            "clusters": len(set(labels.values())),
        }
    )


def measure(
    name: str, path: Path, small: Path, pairs: list[tuple[str, str, float]]
) -> dict[str, Any]:
    """Figures of :func:`alone`."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=alone, args=(name, path, small, pairs, send))
    process.start()
    send.close()
    found: dict[str, Any] = receive.recv()
    process.join()
    return found


def curve(pairs: list[tuple[str, str, float]]) -> dict[str, float]:
    """What the bands should find of the planted pairs, taken one by one."""
    values = np.array([s for _, _, s in pairs])
    found = 1 - (1 - values**ROWS) ** BANDS
    made = {}
    for low, high in zip(BINS, (*BINS[1:], 2.0), strict=True):
        inside = (values >= low) & (values < high)
        if inside.any():
            made["1" if low == 1 else f"{low} to {high}"] = round(float(found[inside].mean()), 4)
    return made


def main() -> None:
    """Measure and print the figures."""
    run_beside("dedup", PEERS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=33_600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--normalised", action="store_true", help="texts are normal already")
    parser.add_argument("--only", choices=CANDIDATES, nargs="+", default=list(CANDIDATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kind = "normalised" if options.normalised else "raw"
        path = Path(folder) / kind
        pairs = make_corpus(path, options.documents, options.seed, options.normalised)
        small = Path(folder) / f"{kind}-small"
        make_corpus(small, 200, options.seed + 1, options.normalised)
        sizes = [pc.binary_length(batch["text"]) for batch in batches(path, "text")]
        size, documents = sum(pc.sum(s).as_py() for s in sizes), sum(map(len, sizes))
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for number in range(options.rounds):
            order = list(rounds)
            for name in order if number % 2 == 0 else reversed(order):
                rounds[name].append(measure(name, path, small, pairs))
    figures: dict[str, Any] = {
        "documents": documents,
        "texts": kind,
        "megabytes": round(size / 1e6, 1),
        "planted_pairs": len(pairs),
        "curve": curve(pairs),
        "allowed_bytes": 4 * 448 * documents + 10**9,
        "machine": fingerprint(),
        "load": os.getloadavg()[0],
        "peers": PEERS,
    }
    ours = [r["cpu"] for r in rounds.get("regrow", [])]
    for name, found in rounds.items():
        cpu = [r["cpu"] for r in found]
        figures[name] = {
            **{k: v for k, v in found[-1].items() if k in ("recall", "members", "clusters")},
            "cpu_seconds": round(statistics.median(cpu), 3),
            "wall_seconds": round(statistics.median(r["wall"] for r in found), 3),
            "megabytes_per_cpu_second": round(size / 1e6 / statistics.median(cpu), 1),
            "peak_bytes": max(r["peak_bytes"] for r in found),
        }
        if ours and name != "regrow":
            figures[name]["cpu_over_regrow"] = ratio(cpu, ours)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
