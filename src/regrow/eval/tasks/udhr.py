"""The Universal Declaration of Human Rights in 388 translations: bits per byte of each."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from regrow.core.errors import InputError
from regrow.eval.task import Item, Passage, PassageTask, TaskSettings
from regrow.eval.tasks.rows import require_count, require_file

_LARGEST = 1 << 20  # bytes of one translation; the longest has 46 kB


class Udhr(PassageTask):
    """Each translation as one text, grouped by its language code. Some hold the preamble only."""

    name = "udhr"
    size = 388
    files = "nltk-public-domain/udhr2.zip"

    def items(self, settings: TaskSettings) -> list[Item]:
        path = require_file(self.folder(settings))
        texts = _texts(path)
        require_count(path, len(texts), self.size, "translations")
        return [Passage(id=code, group=code, text=text) for code, text in sorted(texts.items())]


def _texts(path: Path) -> dict[str, str]:
    """Language code to text; nothing is unpacked to the disk, and nothing large is unpacked."""
    texts = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.endswith(".txt"):
                    continue
                with archive.open(entry) as file:
                    raw = file.read(_LARGEST + 1)
                if len(raw) > _LARGEST:
                    raise InputError(f"{path}: {entry.filename} is larger than {_LARGEST} bytes")
                lines = (line.strip() for line in raw.decode("utf-8").splitlines())
                code = entry.filename.rpartition("/")[2].removesuffix(".txt")
                texts[code] = "\n".join(line for line in lines if line)
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    return texts
