"""Text of the data folder, as plain files that ``curate`` takes; a split never cuts a file.

Books and speeches are English. Multilingual: Genesis in five languages, the New Testament in eight,
Tatoeba sentences in 112. Long texts are cut so that each language is on every side of the split.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from regrow.core.errors import InputError

#: Source to the folder of the data set that it is made from.
SOURCES = ("books", "speeches", "languages")
GENESIS = ("finnish", "french", "german", "portuguese", "swedish")
_VERSES, _SENTENCES = 40, 50
_SKIPPED = ("colophon", "imprint", "titlepage", "halftitlepage", "uncopyright", "endnotes")
_SPACE = re.compile(r"[ \t\n]+")


def write_sources(data: Path, out: Path) -> dict[str, int]:
    """Write ``out/<source>/*.txt``; the number of files of each source.

    Args:
        data: the folder that ``REGROW_DATA`` names.
        out: where to; files that are there already stay.

    Raises:
        InputError: a data set is missing.
    """
    wanted = ("books-standard-ebooks", "nltk-public-domain", "bible-nt-8-languages")
    for name in (*wanted, "tatoeba-laser"):
        if not (data / name).is_dir():
            raise InputError(f"{data} lacks {name}; set REGROW_DATA to the folder that has it")
    texts = {"books": books, "speeches": speeches, "languages": languages}
    counts = {}
    for source, read in texts.items():
        folder = out / source
        folder.mkdir(parents=True, exist_ok=True)
        counts[source] = 0
        for name, text in read(data):
            counts[source] += 1
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return counts


def books(data: Path) -> Iterator[tuple[str, str]]:
    """Chapters of the books: name and text."""
    for path in sorted((data / "books-standard-ebooks").glob("*/*.xhtml")):
        if not path.stem.startswith(_SKIPPED):
            yield f"{path.parent.name}-{path.stem}", chapter_text(path.read_bytes())


def chapter_text(page: bytes) -> str:
    """The paragraphs and headings of an XHTML page, one a line."""
    root = ElementTree.fromstring(page)
    kinds = ("p", "h1", "h2", "h3", "h4", "blockquote")
    lines = []
    for element in root.iter():
        kind = element.tag.rpartition("}")[2]
        if kind in kinds and not (kind == "blockquote" and len(element)):
            lines.append(_SPACE.sub(" ", "".join(element.itertext())).strip())
    return "\n".join(line for line in lines if line) + "\n"


def speeches(data: Path) -> Iterator[tuple[str, str]]:
    """Inaugural and State of the Union addresses."""
    for corpus in ("inaugural", "state_union"):
        for name, text in _zipped(data, corpus):
            yield f"{corpus}-{name}", text


def languages(data: Path) -> Iterator[tuple[str, str]]:
    """Everything that is not English."""
    for name, text in _zipped(data, "genesis"):
        if name in GENESIS:
            yield from _cut(f"genesis-{name}", text.splitlines(), _VERSES)
    for path in sorted((data / "bible-nt-8-languages").glob("*.xml")):
        yield from testament(path)
    for path in sorted((data / "tatoeba-laser").glob("tatoeba.*")):
        language = path.suffix[1:]
        if language != "eng":
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from _cut(f"tatoeba-{language}", lines, _SENTENCES)


def testament(path: Path) -> Iterator[tuple[str, str]]:
    """Chapters of one translation: a verse a line."""
    language = path.stem.partition("-")[0].lower()
    for element in ElementTree.parse(path).iter("div"):
        if element.get("type") == "chapter":
            verses = [" ".join((seg.text or "").split()) for seg in element.iter("seg")]
            name = str(element.get("id")).lower().removeprefix("b.").replace(".", "-")
            yield f"testament-{language}-{name}", "\n".join(v for v in verses if v) + "\n"


def _cut(name: str, lines: Sequence[str], size: int) -> Iterator[tuple[str, str]]:
    for number, start in enumerate(range(0, len(lines), size)):
        yield f"{name}-{number:03d}", "\n".join(lines[start : start + size]) + "\n"


def _zipped(data: Path, corpus: str) -> Iterator[tuple[str, str]]:
    """Texts of an archive; the older ones are Latin-1."""
    with zipfile.ZipFile(data / "nltk-public-domain" / f"{corpus}.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                raw = archive.read(name)
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError:
                    text = raw.decode("latin-1")
                yield Path(name).stem, text
