"""Real texts by kind, as files of paragraphs: what the crawl-like pool is built from.

A kind is a work or a collection, as a site of the web is. Text comes from the Python installation
and from the folder that ``REGROW_DATA`` names. Texts of evaluation sets are in ``FAR`` alone, which
is measured and never trained on.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from regrow.core.errors import InputError
from regrow.data.document import Document
from regrow.data.settings.sources import PythonDomain, PythonSource
from regrow.data.sources import SOURCES

NEEDED = (
    "bible-nt-8-languages",
    "books-standard-ebooks",
    "nltk-public-domain",
    "qa-covid",
    "qa-policyqa",
    "qa-xquad-en",
    "tatoeba-laser",
    "toxicity-davidson",
    "toxicity-jigsaw-testsets",
    "warc-samples",
)
_SPACE = re.compile(r"\s+")
_BLANK = re.compile(r"\n[ \t]*\n")
_THREAD = 12
_SENTENCES = 60
_LONGEST_CODE = 24_000


@dataclass(frozen=True, slots=True)
class File:
    """One file of a kind.

    Args:
        kind: the collection it is of.
        name: unique; texts of one file stay on one side of every split.
        paragraphs: its text; a paragraph with line ends is set as it stands.
    """

    kind: str
    name: str
    paragraphs: tuple[str, ...]


Reader = Callable[[Path], Iterator[File]]


def check(data: Path) -> None:
    """Make sure that the data folder has what is read.

    Raises:
        InputError: data sets are missing.
    """
    missing = [name for name in NEEDED if not (data / name).is_dir()]
    if missing:
        raise InputError(
            f"{data} lacks {', '.join(missing)}; set REGROW_DATA to the folder that has them"
        )


def _plain(parts: Iterable[str]) -> tuple[str, ...]:
    """Paragraphs on one line each."""
    flat = (_SPACE.sub(" ", part).strip() for part in parts)
    return tuple(part for part in flat if part)


def _set(text: str) -> tuple[str, ...]:
    """Paragraphs of a plain-text document: those with indented lines keep them."""
    parts = []
    for part in _BLANK.split(text):
        lines = part.strip("\n").rstrip().split("\n")
        indented = any(line[:1] in (" ", "\t", "|", "-", "*", ">") for line in lines)
        whole = "\n".join(lines) if indented else _SPACE.sub(" ", part)
        if whole.strip():
            parts.append(whole if indented else whole.strip())
    return tuple(parts)


def _book(kind: str, data: Path) -> Iterator[File]:
    wanted = ("p", "h2", "h3", "h4", "blockquote")
    for path in sorted((data / "books-standard-ebooks" / kind).glob("*chapter-*.xhtml")):
        root = ElementTree.fromstring(path.read_bytes())
        parts = [
            "".join(element.itertext())
            for element in root.iter()
            for tag in [element.tag.rpartition("}")[2]]
            if tag in wanted and not (tag == "blockquote" and len(element))
        ]
        yield File(kind, f"{kind}/{path.stem}", _plain(parts))


def _archive(data: Path, name: str, suffix: str) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(data / "nltk-public-domain" / f"{name}.zip") as archive:
        for member in sorted(archive.namelist()):
            if member.endswith(suffix):
                raw = archive.read(member)
                try:
                    yield Path(member).stem, raw.decode("utf-8")
                except UnicodeDecodeError:
                    yield Path(member).stem, raw.decode("latin-1")


def _state_union(data: Path) -> Iterator[File]:
    for name, text in _archive(data, "state_union", ".txt"):
        yield File("state-union", f"state-union/{name}", _plain(text.split("\n")))


def _inaugural(data: Path) -> Iterator[File]:
    for name, text in _archive(data, "inaugural", ".txt"):
        yield File("inaugural", f"inaugural/{name}", _plain(_BLANK.split(text)))


def _plays(data: Path) -> Iterator[File]:
    for name, text in _archive(data, "shakespeare", ".xml"):
        root = ElementTree.fromstring(text.encode())
        for number, scene in enumerate(root.iter("SCENE")):
            parts = [scene.findtext("TITLE") or ""]
            for speech in scene.iter("SPEECH"):
                lines = [speech.findtext("SPEAKER") or "", *(e.text for e in speech.iter("LINE"))]
                parts.append("\n".join(line for line in lines if line))
            yield File("plays", f"plays/{name}-{number:02d}", tuple(p for p in parts if p))


def _verses(kind: str, name: str, lines: list[str], size: int) -> Iterator[File]:
    for number, start in enumerate(range(0, len(lines), size)):
        yield File(kind, f"{name}-{number:03d}", _plain(lines[start : start + size]))


def _genesis(data: Path) -> Iterator[File]:
    for name, text in _archive(data, "genesis", ".txt"):
        if name == "english-web":  # the other translation tells the same, verse by verse
            yield from _verses("genesis", f"genesis/{name}", text.splitlines(), 120)


def _python(domain: PythonDomain, kind: str, wanted: str, data: Path) -> Iterator[File]:
    del data
    for unit in SOURCES.get("python")(PythonSource(domains=(domain,))):
        for item in unit.read():
            if isinstance(item, Document) and item.kind == wanted:
                text = item.text[:_LONGEST_CODE] if kind == "code" else item.text
                parts = (text,) if kind == "code" else _set(text)
                # Code and docstrings of a module have one name: they are on one side together.
                yield File(kind, item.file, parts)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _threads(kind: str, texts: Iterable[str]) -> Iterator[File]:
    posts = [text for text in _plain(texts) if len(text) > 40]
    for number, start in enumerate(range(0, len(posts), _THREAD)):
        yield File(kind, f"{kind}/{number:04d}", tuple(posts[start : start + _THREAD]))


def _comments(data: Path) -> Iterator[File]:
    rows = _rows(data / "toxicity-jigsaw-testsets" / "toxicity_nonfuzzed_testset.csv")
    return _threads("comments", (row["comment"] for row in rows))


def _tweets(data: Path) -> Iterator[File]:
    rows = _rows(data / "toxicity-davidson" / "labeled_data.csv")
    return _threads("tweets", (row["tweet"] for row in rows))


def _sentences(data: Path) -> Iterator[File]:
    seen: set[str] = set()
    for path in sorted((data / "tatoeba-laser").glob("tatoeba.*-eng.eng")):
        fresh = [line for line in path.read_text(encoding="utf-8").splitlines() if line not in seen]
        seen.update(fresh)
        yield from _verses("sentences", f"sentences/{path.name}", fresh, _SENTENCES)


def _testaments(data: Path) -> Iterator[File]:
    for path in sorted((data / "bible-nt-8-languages").glob("*.xml")):
        for element in ElementTree.parse(path).iter("div"):
            if element.get("type") == "chapter":
                name = f"{path.stem.partition('-')[0].lower()}-{element.get('id')}"
                verses = _plain(seg.text or "" for seg in element.iter("seg"))
                yield File("foreign", f"foreign/testament-{name}", verses)
    for name, text in _archive(data, "genesis", ".txt"):
        if name in ("finnish", "french", "german", "portuguese", "swedish"):
            yield from _verses("foreign", f"foreign/genesis-{name}", text.splitlines(), 40)


def _declarations(data: Path) -> Iterator[File]:
    for name, text in _archive(data, "udhr2", ".txt"):
        if not name.startswith(("eng", "sco")):
            yield File("foreign", f"foreign/declaration-{name}", _plain(text.split("\n")))


def _translations(data: Path) -> Iterator[File]:
    for path in sorted((data / "tatoeba-laser").glob("tatoeba.*-eng.*")):
        if not path.name.endswith(".eng"):
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from _verses("foreign", f"foreign/{path.name}", lines, _SENTENCES)


#: Collections of the pool, in English but for the last two lines.
POOL: dict[str, tuple[Reader, ...]] = {
    "pride-and-prejudice": (partial(_book, "pride-and-prejudice"),),
    "state-union": (_state_union,),
    "topics": (partial(_python, "reference", "topics", "reference"),),
    "packages": (partial(_python, "packages", "packages", "prose"),),
    "moby-dick": (partial(_book, "moby-dick"),),
    "inaugural": (_inaugural,),
    "origin-of-species": (partial(_book, "origin-of-species"),),
    "docstrings": (partial(_python, "docstrings", "docstrings", "reference"),),
    "plays": (_plays,),
    "genesis": (_genesis,),
    "licences": (partial(_python, "packages", "licences", "legal"),),
    "comments": (_comments,),
    "tweets": (_tweets,),
    "sentences": (_sentences,),
    "code": (partial(_python, "code", "code", "code"),),
    "foreign": (_testaments, _declarations, _translations),
}


def _wikipedia(data: Path) -> Iterator[File]:
    found = json.loads((data / "qa-xquad-en" / "xquad.en.json").read_text(encoding="utf-8"))
    for number, article in enumerate(found["data"]):
        parts = _plain(p["context"] for p in article["paragraphs"])
        yield File("wikipedia", f"wikipedia/{number:03d}", parts)


def _medicine(data: Path) -> Iterator[File]:
    found = json.loads((data / "qa-covid" / "covidqa.json").read_text(encoding="utf-8"))
    for number, article in enumerate(found["data"]):
        parts = _plain(part for p in article["paragraphs"] for part in p["context"].split("\n"))
        yield File("medicine", f"medicine/{number:03d}", parts)


def _policies(data: Path) -> Iterator[File]:
    for name in ("dev.json", "test.json"):
        found = json.loads((data / "qa-policyqa" / name).read_text(encoding="utf-8"))
        for site in found["data"]:
            parts = _plain(dict.fromkeys(p["context"] for p in site["paragraphs"]))
            yield File("policies", f"policies/{name}-{site['title']}", parts)


#: Kinds that are nowhere in the pool: texts of evaluation sets, measured and never trained on.
FAR: dict[str, tuple[Reader, ...]] = {
    "wikipedia": (_wikipedia,),
    "medicine": (_medicine,),
    "policies": (_policies,),
}


def files(kinds: dict[str, tuple[Reader, ...]], data: Path) -> dict[str, list[File]]:
    """All files of each kind, in a fixed order, those with hardly any text left out."""
    return {
        kind: [
            file
            for reader in readers
            for file in reader(data)
            if sum(map(len, file.paragraphs)) >= 200
        ]
        for kind, readers in kinds.items()
    }


def pages(file: File, size: int) -> list[tuple[str, ...]]:
    """A file cut into pages of about ``size`` characters, never within a paragraph."""
    made: list[tuple[str, ...]] = []
    part: list[str] = []
    length = 0
    for paragraph in file.paragraphs:
        part.append(paragraph)
        length += len(paragraph)
        if length >= size:
            made.append(tuple(part))
            part, length = [], 0
    if part and made and length < size // 4:
        made[-1] += tuple(part)
    elif part:
        made.append(tuple(part))
    return made
