"""One crawl-like pool of raw documents, with what it is measured on; a seed makes it.

Splits are made by file and before anything is doubled: a file's pages are all in the pool, or all
in one of the sets beside it. Half of the pool's pages are HTML, which ``curate`` takes the main
text out of; the other half are records of text from which the menus were not taken.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from experiments.curate import junk, texts
from experiments.curate.texts import File

from regrow.core import atomic
from regrow.core.seed import derive

TARGET_KINDS = ("pride-and-prejudice", "state-union", "topics", "packages")
"""Of the target of the selection and of held_in: a novel, speeches, reference, manuals."""
OUT_KINDS = ("moby-dick", "inaugural", "origin-of-species", "docstrings")
"""Of held_out, never in the target: another novel, other speeches, a treatise, other reference."""
ENGLISH = tuple(kind for kind in texts.POOL if kind not in ("foreign", "code"))
SETS = ("target", "held_in", "held_out", "far")
ASIDE = "random"
"""Random documents of the pool, taken out of it: the target of the control."""
SNAPSHOTS = ("2022-21", "2023-06", "2023-40", "2024-18")

QUALITY = {
    "High": (
        "pride-and-prejudice", "moby-dick", "origin-of-species", "state-union", "inaugural",
        "topics", "plays", "genesis",
    ),
    "Medium": ("packages", "docstrings", "licences", "comments"),
    "Low": ("tweets", "sentences", "code", "farm", "menus"),
}  # fmt: skip
"""Weak labels of quality, by what a text was published as; menus are text with furniture around."""

_SENTENCE = re.compile(r"[^.!?]{40,240}[.!?]")
_WORD = re.compile(r"[a-z]{5,12}")


@dataclass(frozen=True, slots=True)
class Size:
    """How large a pool is; bytes are of UTF-8."""

    kind_bytes: dict[str, int] = field(
        default_factory=lambda: {
            "tweets": 500_000,
            "sentences": 500_000,
            "licences": 500_000,
            "code": 3_000_000,
            "foreign": 4_500_000,
        }
    )
    """Of the pages of a kind at most, before any is doubled; others are taken whole."""
    scale: float = 1.0
    """Share of every kind's bytes, and of the link farms."""
    farms: int = 900
    """Link-farm pages."""
    page: int = 3500
    """Characters of a page, about."""
    families: float = 0.25
    """Share of the pages that are published in several near-duplicates."""
    exponent: float = 1.1
    cap: int = 40
    edits: float = 0.01
    html: float = 0.5
    """Share of the pages that lie as HTML."""
    set_bytes: int = 60_000
    """Of each kind in the target and in each held-out set."""
    label_bytes: int = 40_000
    """Of each kind in the labelled texts."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the pool before it is written."""

    kind: str
    origin: str
    title: str
    body: tuple[str, ...]


def build(data: Path, folder: Path, seed: int, size: Size) -> None:
    """Write a pool and its sets; what is there already stays.

    ``pages/<snapshot>/*.html`` and ``dump/*.jsonl`` are raw; ``sets/<set>.jsonl`` what is measured,
    and the target; ``labels.jsonl`` labelled texts; ``index.jsonl`` says what each raw document is.

    Args:
        data: the folder that ``REGROW_DATA`` names.
        folder: appears whole or not at all.
        seed: decides all draws.
        size: see there.
    """
    if folder.exists():
        return
    texts.check(data)
    random = Random(derive(seed, "world"))
    sides = split(_all_files(data), random, size)
    with atomic.staged_folder(folder) as staged:
        (staged / "sets").mkdir()
        for name in SETS:
            _write(staged / "sets" / f"{name}.jsonl", _set_lines(name, sides[name], size))
        wanted = (staged / "sets" / "target.jsonl").stat().st_size
        pool = _pool(sides["pool"], random, size)
        farms = _farms(pool, size.farms * size.scale, random)
        _write(staged / "labels.jsonl", _labels(sides["labels"], pool, random, size))
        _write_raw(staged, [*pool, *farms], random, size, wanted)
        atomic.write_json(staged / "size.json", asdict(size))


@cache
def _all_files(data: Path) -> dict[str, list[File]]:
    return {**texts.files(texts.POOL, data), **texts.files(texts.FAR, data)}


def split(found: dict[str, list[File]], random: Random, size: Size) -> dict[str, list[File]]:
    """``pool``, ``labels`` and each of ``SETS``: every file on one side, whatever kind it is of."""
    sides: dict[str, list[File]] = {name: [] for name in ("pool", "labels", *SETS)}
    taken: set[str] = set()
    left: dict[str, list[File]] = {}
    wanted = dict.fromkeys(TARGET_KINDS, ("target", "held_in"))
    wanted |= dict.fromkeys(OUT_KINDS, ("held_out",))
    wanted |= dict.fromkeys(texts.FAR, ("far",))
    # Kinds in the sets first: the code of a held-out docstring must not be in the pool.
    for kind in sorted(found, key=lambda kind: (kind not in wanted, kind)):
        files = [file for file in found[kind] if file.name not in taken]
        random.shuffle(files)
        for side in (*wanted.get(kind, ()), *(("labels",) if kind in _LABELLED else ())):
            quota = size.label_bytes if side == "labels" else size.set_bytes
            chosen = _until(files, quota)
            sides[side] += chosen
            taken |= {file.name for file in chosen}
            files = files[len(chosen) :]
        left[kind] = [] if kind in texts.FAR else files
    for files in left.values():
        sides["pool"] += [file for file in files if file.name not in taken]
    return sides


_LABELLED = frozenset(kind for kinds in QUALITY.values() for kind in kinds)


def _until(files: Sequence[File], quota: int) -> list[File]:
    chosen: list[File] = []
    held = 0
    for file in files:
        if held >= quota:
            break
        chosen.append(file)
        held += _bytes(file)
    return chosen


def _key(*parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def _set_lines(name: str, files: Sequence[File], size: Size) -> list[dict[str, Any]]:
    """Pages of a set; of each kind no more than its bytes, shared by its files."""
    lines = []
    by_kind: dict[str, list[File]] = {}
    for file in files:
        by_kind.setdefault(file.kind, []).append(file)
    for kind, members in sorted(by_kind.items()):
        waiting = [(file, texts.pages(file, size.page)) for file in members]
        used = 0
        for turn in range(max(len(found) for _, found in waiting)):
            for file, found in waiting:
                if turn < len(found) and used < size.set_bytes:
                    text = "\n\n".join(found[turn])
                    used += len(text.encode())
                    key = _key(name, file.name, turn)
                    lines.append({"id": key, "kind": kind, "file": file.name, "text": text})
    return lines


def _pool(files: Sequence[File], random: Random, size: Size) -> list[Page]:
    """Pages of each kind up to its bytes, files chosen by chance."""
    pages = []
    order = list(files)
    random.shuffle(order)
    used: dict[str, int] = {}
    whole: dict[str, int] = {}
    for file in order:
        whole[file.kind] = whole.get(file.kind, 0) + _bytes(file)
    for file in order:
        limit = min(size.kind_bytes.get(file.kind, whole[file.kind]), whole[file.kind])
        if used.get(file.kind, 0) >= limit * size.scale:
            continue
        used[file.kind] = used.get(file.kind, 0) + _bytes(file)
        for number, body in enumerate(texts.pages(file, size.page)):
            title = _title(body)
            # A module's code and its docstrings have one file name.
            pages.append(Page(file.kind, f"{file.kind} {file.name} {number}", title, body))
    return pages


def _title(body: Sequence[str]) -> str:
    return " ".join(body[0].split()[:8])[:80]


def _bytes(file: File) -> int:
    return sum(len(part.encode()) for part in file.paragraphs)


def _farms(pool: Sequence[Page], count: float, random: Random) -> list[Page]:
    english = [page for page in pool if page.kind in ENGLISH]
    material = _material(english, random)
    made = []
    for number in range(round(count)):
        body = junk.farm(random, *material)
        made.append(Page("farm", f"farm {number}", _title(body), body))
    return made


def _material(pages: Sequence[Page], random: Random) -> tuple[list[str], list[str], list[str]]:
    """Keywords, titles and sentences that link farms are made of."""
    some = random.sample(list(pages), min(len(pages), 400))
    text = " ".join(part for page in some for part in page.body)
    words = sorted(set(_WORD.findall(text)))
    titles = [page.title for page in some]
    return words, titles, [found.strip() for found in _SENTENCE.findall(text)]


def _labels(
    files: Sequence[File], pool: Sequence[Page], random: Random, size: Size
) -> list[dict[str, Any]]:
    """Labelled texts: of files that are on no other side, and farms that are drawn for this."""
    label_of = {kind: label for label, kinds in QUALITY.items() for kind in kinds}
    site = junk.Site("labels.example", random)
    lines = []
    made = []
    for file in files:
        found = texts.pages(file, size.page)
        made += [Page(file.kind, f"{file.name} {n}", file.name, body) for n, body in
                 enumerate(found[:4])]  # fmt: skip
    material = _material(made, random)
    for page in made:
        text = "\n\n".join(page.body)
        lines.append({"text": text, "label": label_of[page.kind], "file": page.origin})
        if label_of[page.kind] != "Low":
            shown = whole_text(site.page(page.title, page.body[:1], random.sample(material[1], 8)))
            if len(page.body[0]) < 400:  # more furniture than text
                lines.append({"text": shown, "label": "Low", "file": f"menus {page.origin}"})
    for number in range(max(20, len(made) // 8)):
        text = "\n\n".join(junk.farm(random, *material))
        lines.append({"text": text, "label": "Low", "file": f"farm {number}"})
    return lines


def _write_raw(folder: Path, pages: Sequence[Page], random: Random, size: Size, aside: int) -> None:
    """The pages with their near-duplicates in both forms, the index, and random ones set aside.

    Args:
        folder: where to.
        pages: each once.
        random: of all draws.
        size: see there.
        aside: bytes of text to set aside, about; whole families, so that no text is on both sides.
    """
    sites = {page.kind: [] for page in pages}
    for kind in sites:
        sites[kind] = [junk.Site(f"{kind}-{n}.example", random) for n in range(6)]
    titles: dict[str, list[str]] = {}
    for page in pages:
        titles.setdefault(page.kind, []).append(page.title)
    for snapshot in SNAPSHOTS:
        (folder / "pages" / snapshot).mkdir(parents=True)
    chosen: list[dict[str, Any]] = []
    dump, index = [], []
    order = list(pages)
    random.shuffle(order)
    for page in order:
        copies = 1
        if page.kind != "farm" and random.random() < size.families:
            copies = junk.family_size(random, size.exponent, size.cap)
        taken = aside > 0
        for number in range(copies):
            body = junk.edited(page.body, size.edits, random) if number else page.body
            site = random.choice(sites[page.kind])
            related = random.sample(titles[page.kind], min(len(titles[page.kind]), 10))
            markup = site.page(page.title, body, related)
            snapshot = random.choice(SNAPSHOTS)
            key = _key(page.origin, number)
            page_form = random.random() < size.html
            # Files of code lie as they are; all else has been a page once.
            text = body[0] if page.kind == "code" else whole_text(markup)
            if taken:
                text = main_text(markup) if page_form else text
                chosen.append({"id": key, "kind": page.kind, "text": text})
                aside -= len(text.encode())
                continue
            if page_form:
                path = f"pages/{snapshot}/{key}.html"
                (folder / path).write_text(markup, encoding="utf-8")
            else:
                dump.append({"id": key, "text": text, "date": snapshot})
                path = f"dump#{key}"
            index.append({"file": path, "kind": page.kind, "family": _key(page.origin),
                          "copy": number > 0})  # fmt: skip
    random.shuffle(dump)
    (folder / "dump").mkdir()
    half = len(dump) // 2
    _write(folder / "dump" / "one.jsonl", dump[:half])
    _write(folder / "dump" / "two.jsonl", dump[half:])
    _write(folder / "index.jsonl", index)
    _write(folder / "sets" / f"{ASIDE}.jsonl", [line for line in chosen if line["text"].strip()])


def whole_text(markup: str) -> str:
    """All text of a page, its menus and notices with it."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(markup, main_content=False)).strip()


def main_text(markup: str) -> str:
    """The main text of a page."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(markup, main_content=True)).strip()


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
