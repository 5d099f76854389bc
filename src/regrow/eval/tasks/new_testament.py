"""The New Testament in eight languages: how well each is modelled, on the same content."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from regrow.core.errors import InputError
from regrow.eval.task import Item, Passage, PassageTask, TaskSettings
from regrow.eval.tasks.rows import require_count, require_file

_OTHER_BOOKS = frozenset({"GEN", "EXO"})  # the Armenian file begins with them
#: File and number of verses by language. Translations join verses differently; the Armenian one
#: has the gospels only, the Swahili one lacks Philippians.
LANGUAGES = {
    "armenian": ("Armenian-PART.xml", 3779),
    "basque": ("Basque-NT.xml", 7952),
    "gujarati": ("Gujarati-NT.xml", 7807),
    "latvian": ("Latvian-NT.xml", 7949),
    "swahili": ("Swahili-NT.xml", 7853),
    "ukrainian": ("Ukranian-NT.xml", 7955),  # the file is spelt so
    "wolof": ("Wolof-NT.xml", 7920),
    "zulu": ("Zulu-NT.xml", 7975),
}


class NewTestament(PassageTask):
    """Each verse alone, grouped by language."""

    name = "new_testament"
    size = 59_190
    files = "bible-nt-8-languages"

    def items(self, settings: TaskSettings) -> list[Item]:
        folder = self.folder(settings)
        items: list[Item] = []
        for language, (file, public) in LANGUAGES.items():
            verses = _verses(folder / file)
            require_count(folder / file, len(verses), public, "verses")
            items += [
                Passage(id=f"{language}/{place}", group=language, text=text)
                for place, text in verses.items()
            ]
        return items


def _verses(path: Path) -> dict[str, str]:
    """Place (``MAT.1.1``) to text."""
    raw = require_file(path).read_bytes()
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise InputError(f"{path} declares entities, which are not read")
    try:
        root = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is no XML ({error})") from error
    found = {}
    for verse in root.iter("seg"):
        place = verse.get("id", "").removeprefix("b.")
        text = " ".join("".join(verse.itertext()).split())
        if place.partition(".")[0] not in _OTHER_BOOKS and text:
            found[place] = text
    return found
