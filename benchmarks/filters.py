"""The step ``filter`` against datatrove's Gopher filters, in MB a CPU second.

Ours is the whole step: every figure of every document, and the verdict. Theirs is the two filters
that hold the same rules, ``GopherQualityFilter`` and, for what it lets pass,
``GopherRepetitionFilter``; each stops at the first rule that is broken. Both see the same texts,
turn by turn; datatrove works in a process and an environment of its own, which the script makes on
its first call (it needs another version of a package that regrow needs).

    python benchmarks/filters.py                        # text of the Python installation, 4 MB
    python benchmarks/filters.py --documents runs/x     # documents of a run of curate
    python benchmarks/filters.py --rounds 5 --megabytes 8
    python benchmarks/filters.py --profile              # where our time goes
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from peers import Peer
from texts import of_python, of_run, up_to
from turns import ratio

PEERS = ("datatrove==0.10.1", "xxhash<4", "spacy==3.8.18", "tokenizers", "regex", "numpy<3")


def peer(texts_file: Path) -> None:
    """In datatrove's environment: for each line read, one round, answered by one line of JSON."""
    from datatrove.data import Document
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

    texts = json.loads(texts_file.read_text())
    filters = (GopherQualityFilter(), GopherRepetitionFilter())
    for one in filters:
        one.filter(Document("warm up. " * 20, "0"))
    for _ in sys.stdin:
        started = time.process_time()
        kept = []
        for number, text in enumerate(texts):
            document = Document(text, str(number))
            kept.append(all(one.filter(document) is True for one in filters))
        seconds = time.process_time() - started
        print(json.dumps({"seconds": seconds, "kept": kept}), flush=True)


def gathered(options: argparse.Namespace) -> list[str]:
    """Texts that are no code, up to the size that was asked for."""
    if options.documents:
        found = of_run(options.documents, code=False)
    else:
        found = of_python(("docstrings", "reference", "packages"), code=False)
    return up_to(options.megabytes, found)


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=Path, help="a run of curate")
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer)
        return

    from regrow.core.hardware import fingerprint
    from regrow.data import engine
    from regrow.data.config import CurateConfig
    from regrow.data.settings.engine import EngineConfig
    from regrow.data.settings.filter import FilterConfig
    from regrow.data.steps.filter import Filter
    from regrow.data.text_stats import prose_stats
    from regrow.data.word_lists import WORD_LISTS

    texts = gathered(options)
    size = sum(len(text.encode()) for text in texts) / 1e6
    engine.configure(EngineConfig(workers=1))
    config = CurateConfig(steps=("filter", "split"), filter=FilterConfig(preset="gopher"))
    step = Filter(config)
    frame = engine.collected(
        engine.from_columns(
            {
                "id": [f"{number:08d}" for number in range(len(texts))],
                "text": texts,
                "kind": ["prose"] * len(texts),
                "language": ["en"] * len(texts),
            }
        )
    )

    def whole_step() -> list[bool]:
        scores = engine.collected(step.score(frame, Path()))
        verdict = sorted(engine.rows(step.judge(scores, Path())), key=lambda row: row["id"])
        return [row["reason"] is None for row in verdict]

    lists = [WORD_LISTS["en"]] * len(texts)

    def figures_alone() -> None:
        prose_stats(texts, lists)

    def regular_expressions() -> None:
        count = engine.expressions().regexp_count
        patterns = (r"\s+", r"\d", r"[A-Za-z]", r"[(){}\[\]]", r"https?://\S+", r"#", r"\.\.\.")
        columns = [count(frame["text"], p).alias(str(i)) for i, p in enumerate(patterns)]
        engine.collected(frame.select("id", *columns))

    ours = {
        "step": whole_step,
        "figures": figures_alone,
        "seven engine counts": regular_expressions,
    }
    file = Path(tempfile.gettempdir()) / "regrow-filters-texts.json"
    file.write_text(json.dumps(texts))
    theirs = Peer("filters", PEERS, [__file__, "--peer", file])
    spent: dict[str, list[float]] = {name: [] for name in (*ours, "datatrove")}
    kept: list[bool] = []
    for number in range(options.rounds + 1):
        for name, function in ours.items():
            started = time.process_time()
            found = function()
            if number:
                spent[name].append(time.process_time() - started)
            kept = found if name == "step" else kept
        answer = theirs.ask("")
        if number:
            spent["datatrove"].append(answer["seconds"])
    verdicts = Counter(
        f"{'kept' if o else 'dropped'} by us, {'kept' if t else 'dropped'} by datatrove"
        for o, t in zip(kept, answer["kept"], strict=True)
    )
    figures: dict[str, Any] = {
        "documents": len(texts),
        "megabytes": size,
        "machine": fingerprint(),
        "load": os.getloadavg()[0],
        "peers": PEERS,
        "megabytes_a_cpu_second": {n: size / statistics.median(v) for n, v in spent.items()},
        "datatrove_over_step": ratio(spent["datatrove"], spent["step"]),
        "verdicts": dict(verdicts),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(figures_alone)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
