"""Gathering against the bare libraries that it stands on, turn by turn in one process.

Extraction against resiliparse alone on the same pages, languages against py3langid's own
``classify``, masking and records in megabytes a CPU-second. Ratios are medians of the rounds, by
CPU time; above 1 the library takes longer than we do.

    python benchmarks/gather.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from resiliparse.extract.html2text import extract_plain_text
from turns import ratio, rounds

from regrow.core.hardware import fingerprint
from regrow.data import extract, languages
from regrow.data.pii import Masker
from regrow.data.settings.pii import PiiConfig
from regrow.data.settings.sources import FolderSource
from regrow.data.sources.folder import units
from regrow.io.warc import read_captures

BATCH = 512


def pages(data: Path | None) -> list[bytes]:
    """Pages of installed packages, and of the archives where the data folder is there."""
    library = Path(sysconfig.get_path("purelib"))
    found = [path.read_bytes() for path in sorted(library.rglob("*.htm*")) if path.is_file()]
    for path in sorted((data / "warc-samples").rglob("*.warc*")) if data else ():
        if path.is_file():
            captures = read_captures(lambda path=path: path.open("rb"))  # type: ignore[misc]
            found += [c.body for c in captures if c.content_type in extract.HTML_TYPES]
    return [page for page in found if len(page) > 2000]


def texts(limit: int) -> list[str]:
    """Pieces of the standard library of at most 3,000 characters."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text("utf-8", errors="replace")
        found += [text[at : at + 3000] for at in range(0, len(text), 3000)]
    return found[:limit]


def extraction(data: Path | None, count: int) -> dict[str, Any]:
    """Decoding and main text of pages, against the main text of what is decoded already."""
    raw = pages(data)
    decoded = []
    for page in raw:
        try:
            decoded.append(extract.decode(page))
        except extract.PageError:
            decoded.append("")

    def ours() -> None:
        for page in raw:
            try:
                extract.main_text(extract.decode(page))
            except extract.PageError:
                continue

    def bare() -> None:
        for page in decoded:
            extract_plain_text(page, main_content=True)

    spent = rounds({"ours": ours, "bare": bare}, count)
    size = sum(map(len, raw)) / 1e6
    return {
        "pages": len(raw),
        "megabytes": round(size, 2),
        "bare_over_ours": ratio(spent["bare"], spent["ours"]),
        "megabytes_per_cpu_second": round(size / statistics.median(spent["ours"]), 1),
    }


def identification(found: list[str], count: int) -> dict[str, Any]:
    """Languages of batches, against the library text by text."""
    library: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    samples = [languages.sample(text) for text in found]

    def ours() -> None:
        for at in range(0, len(found), BATCH):
            languages.identify(found[at : at + BATCH])

    def bare() -> None:
        for sample in samples:
            library.classify(sample)

    spent = rounds({"ours": ours, "bare": bare}, count)
    return {
        "documents": len(found),
        "bare_over_ours": ratio(spent["bare"], spent["ours"]),
        "documents_per_cpu_second": round(len(found) / statistics.median(spent["ours"])),
    }


def masking(found: list[str], count: int) -> dict[str, Any]:
    """What is masked by default, in code, and everything."""
    size = sum(map(len, found)) / 1e6

    def job(kind: str, **mask: Any) -> Callable[[], None]:
        masker = Masker(PiiConfig(**mask))
        return lambda: [masker.mask(text, kind) for text in found] and None

    everything = ("email", "ip", "phone", "card", "key")
    jobs = {
        "prose": job("prose"),
        "code": job("code"),
        "everything": job("prose", mask=everything),
    }
    spent = rounds(jobs, count)
    return {f"{n}_megabytes_per_cpu_second": round(size / min(s)) for n, s in spent.items()}


def reading(found: list[str], count: int, folder: Path) -> dict[str, Any]:
    """Records of a ``.jsonl`` file to documents, against parsing them alone."""
    path = folder / "records.jsonl"
    records = [{"id": f"r{n}", "text": text, "url": f"x/{n}"} for n, text in enumerate(found)]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    (unit,) = units(FolderSource(name="bench", path=str(path)))

    def ours() -> None:
        for _ in unit.read():
            pass

    def bare() -> None:
        with path.open("rb") as file:
            for line in file:
                json.loads(line)

    spent = rounds({"ours": ours, "bare": bare}, count)
    size = path.stat().st_size / 1e6
    return {
        "bare_over_ours": ratio(spent["bare"], spent["ours"]),
        "megabytes_per_cpu_second": round(size / statistics.median(spent["ours"])),
    }


def main() -> None:
    """Print the figures of all four as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--data", type=Path, help="the folder that REGROW_DATA names")
    options = parser.parse_args()
    found = texts(options.documents)
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "machine": fingerprint(),
            "load": os.getloadavg()[0],
            "extraction": extraction(options.data, options.rounds),
            "languages": identification(found, options.rounds),
            "masking": masking(found, options.rounds),
            "records": reading(found, options.rounds, Path(folder)),
        }
    print(json.dumps(figures, indent=2, default=str))


if __name__ == "__main__":
    main()
