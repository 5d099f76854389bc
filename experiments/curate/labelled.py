"""Texts with gold labels, and with weak ones: what a text is taken for from where it is from.

A weak label says what a text was published as, not what a reader would call it.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from sysconfig import get_path

PIECE = 1200
"""Characters of a piece of a longer work."""
MOST = 400
"""Pieces of one origin at most, spread over its files."""


@dataclass(frozen=True)
class Text:
    """One labelled text.

    Args:
        text: the text.
        label: its class.
        source: where its label comes from.
        file: texts of one file are held out together.
    """

    text: str
    label: str
    source: str
    file: str


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def davidson(data: Path) -> list[Text]:
    """Tweets: hate speech or offensive language, or neither, by a majority of readers."""
    rows = _csv(data / "toxicity-davidson" / "labeled_data.csv")
    return [
        Text(r["tweet"], "not toxic" if r["class"] == "2" else "toxic", "tweets", "") for r in rows
    ]


def jigsaw(data: Path) -> list[Text]:
    """Comments on Wikipedia's talk pages, toxic by a majority of readers."""
    rows = _csv(data / "toxicity-jigsaw-testsets" / "toxicity_nonfuzzed_testset.csv")
    return [
        Text(r["comment"], "toxic" if r["toxic"] == "True" else "not toxic", "comments", "")
        for r in rows
    ]


def clinc(data: Path) -> list[Text]:
    """Questions to an assistant, in ten domains."""
    folder = data / "domain-clinc150"
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    of = {intent.replace(" ", "_"): name for name, group in domains.items() for intent in group}
    splits = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    return [
        Text(text, of[intent.replace(" ", "_")], split, "")
        for split in ("train", "val", "test")
        for text, intent in splits[split]
    ]


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Runs of whole lines of about ``size`` characters; a short rest is left out."""
    part: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        part.append(line)
        length += len(line)
        if length >= size:
            yield "".join(part).strip()
            part, length = [], 0
    if length >= size // 3:
        yield "".join(part).strip()


def _book(data: Path, name: str) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "books-standard-ebooks" / name).glob("chapter-*.xhtml")):
        raw = path.read_text(encoding="utf-8")
        body = raw[raw.find("<body") :]
        plain = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"</p>", "\n", body)))
        yield f"{name}/{path.name}", re.sub(r"[ \t]+", " ", plain)


def _speeches(data: Path, name: str) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(data / "nltk-public-domain" / f"{name}.zip") as archive:
        for member in sorted(archive.namelist()):
            if member.endswith(".txt") and "-" in member:
                yield member, archive.read(member).decode("utf-8", "replace")


def _wikipedia(data: Path) -> Iterator[tuple[str, str]]:
    articles = json.loads((data / "qa-xquad-en" / "xquad.en.json").read_text(encoding="utf-8"))
    for article in articles["data"]:
        text = "\n".join(paragraph["context"] for paragraph in article["paragraphs"])
        yield article.get("title") or text[:40], text


def _policies(data: Path) -> Iterator[tuple[str, str]]:
    for name in ("dev.json", "test.json"):
        found = json.loads((data / "qa-policyqa" / name).read_text(encoding="utf-8"))
        for site in found["data"]:
            contexts = dict.fromkeys(p["context"] for p in site["paragraphs"])
            yield site["title"], "\n".join(contexts)


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def _licences() -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, package in _packages():
        for path in package.files or []:
            if re.match(r"(licen[cs]e|copying|notice)", path.name, re.IGNORECASE):
                found = Path(str(package.locate_file(path)))
                text = (
                    found.read_text(encoding="utf-8", errors="replace") if found.is_file() else ""
                )
                key = " ".join(text.split())[-4000:]
                if key and key not in seen:
                    seen.add(key)
                    yield f"licence of {name}", text


def _descriptions() -> Iterator[tuple[str, str]]:
    for name, package in _packages():
        text = package.metadata.get("Description") or str(package.metadata.get_payload() or "")
        if len(text) > PIECE // 3:
            yield f"description of {name}", text


def _packages() -> Iterator[tuple[str, metadata.Distribution]]:
    found = {str(d.metadata["Name"]).lower(): d for d in metadata.distributions()}
    yield from sorted(found.items())


def _remarks() -> Iterator[tuple[str, str]]:
    """Comments of the standard library's modules, all of a module's in a row."""
    root = Path(get_path("stdlib"))
    for path in sorted(root.glob("*.py")) + sorted(root.glob("[a-z]*/*.py"))[:200]:
        if {"site-packages", "test", "idlelib"} & set(path.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            continue
        remarks = [t.string.lstrip("#! ") for t in tokens if t.type == tokenize.COMMENT]
        yield str(path.relative_to(root)), "\n".join(remarks)


def _short(origin: str, texts: Iterable[Text]) -> Iterator[tuple[str, str]]:
    """Short texts, ten to a file to be as long as others; what readers called toxic is left out."""
    group: list[str] = []
    for number, text in enumerate((t for t in texts if t.label == "not toxic"), 1):
        group.append(" ".join(text.text.split()))
        if number % 10 == 0:
            yield f"{origin} {number // 10}", "\n".join(group)
            group = []


Files = Callable[[Path], Iterator[tuple[str, str]]]

ORIGINS: dict[str, Files] = {
    "Moby-Dick": lambda data: _book(data, "moby-dick"),
    "Pride and Prejudice": lambda data: _book(data, "pride-and-prejudice"),
    "Origin of Species": lambda data: _book(data, "origin-of-species"),
    "state of the union": lambda data: _speeches(data, "state_union"),
    "inaugural speeches": lambda data: _speeches(data, "inaugural"),
    "Wikipedia": _wikipedia,
    "Python topics": lambda data: _topics(),
    "privacy policies": _policies,
    "licences": lambda data: _licences(),
    "package descriptions": lambda data: _descriptions(),
    "code comments": lambda data: _remarks(),
    "talk pages": lambda data: _short("talk pages", jigsaw(data)),
    "tweets": lambda data: _short("tweets", davidson(data)),
}

SPEECH: dict[str, tuple[str, ...]] = {
    "Books and Literature": ("Moby-Dick", "Pride and Prejudice"),
    "Analytical Exposition": ("state of the union", "inaugural speeches"),
    "Explanatory Articles": ("Wikipedia", "Python topics"),
    "Boilerplate Content": ("privacy policies", "licences"),
    "Online Comments": ("talk pages", "tweets"),
    "Product/Company/Organization/Personal Websites": ("package descriptions",),
}
QUALITY: dict[str, tuple[str, ...]] = {
    "High": ("Wikipedia", "Origin of Species", "inaugural speeches"),
    "Medium": ("package descriptions", "talk pages"),
    "Low": ("code comments", "tweets"),
}


def weak(data: Path, classes: dict[str, tuple[str, ...]], most: int = MOST) -> list[Text]:
    """Pieces of each origin, labelled by what the origin is.

    Args:
        data: the data folder.
        classes: class to its origins.
        most: pieces of an origin at most; those of a file are taken in its order, files in turn.
    """
    found: list[Text] = []
    for label, origins in classes.items():
        for origin in origins:
            waiting = [(file, list(pieces(text))) for file, text in ORIGINS[origin](data)]
            taken = 0
            for turn in range(max((len(parts) for _, parts in waiting), default=0)):
                for file, parts in waiting:
                    if turn < len(parts) and taken < most:
                        found.append(Text(parts[turn], label, origin, f"{origin}: {file}"))
                        taken += 1
    return found
