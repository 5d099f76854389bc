"""From one record of a file, whatever kind of file it is, to a document."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from regrow.core.errors import ConfigError, InputError
from regrow.data.document import Document, Rejected, clean
from regrow.data.settings.sources import CheckoutSource, FolderSource
from regrow.data.sources.pool import File, Item, Unit, split_files
from regrow.io.places import Place, find

C = TypeVar("C", FolderSource, CheckoutSource)

_PATH_DATE = re.compile(r"(?<!\d)(?:19|20)\d{2}(?:[-_/.]?\d{2}){0,2}(?!\d)")


@dataclass(frozen=True, slots=True)
class Origin:
    """A file of a source: what its documents have in common.

    Args:
        config: of the source.
        place: the file.
    """

    config: FolderSource | CheckoutSource
    place: Place

    @property
    def key(self) -> str:
        """The ``file`` column of what has no id of its own."""
        return f"{self.config.name}/{self.place.name}"

    def reject(
        self,
        number: int,
        reason: str,
        broken: bool = False,
        detail: str = "",
        record_id: str | None = None,
    ) -> Rejected:
        """A record that is no document, with the id that it would have had."""
        if record_id is not None:
            return Rejected(self.config.name, self._own(record_id), 0, reason, broken, detail)
        return Rejected(self.config.name, self.key, number, reason, broken, detail)

    def _own(self, record_id: str) -> str:
        # Whatever file it lies in: any split of records over files gives the same table.
        return f"{self.config.name}#{record_id}"

    def document(
        self,
        number: int,
        text: str,
        kind: str,
        *,
        record_id: str | None = None,
        language: str = "",
        licence: str | None = None,
        date: str | None = None,
        url: str | None = None,
        extractor: str | None = None,
    ) -> Item:
        """The document of a record, cleaned; a reject where nothing is left or it is no Unicode.

        The licence is by default the source's; the date is that of the path where the settings
        say so, whatever else was found.
        """
        if isinstance(self.config, FolderSource) and self.config.date_from == "path":
            date = path_date(self.place.name)
        try:
            text = clean(text, kind)
        except UnicodeEncodeError:
            return self.reject(number, "lone surrogate", True, "in its text", record_id)
        if not text.strip():
            return self.reject(number, "empty", record_id=record_id)
        return Document(
            text,
            self.config.name,
            kind,
            self.key if record_id is None else self._own(record_id),
            number if record_id is None else 0,
            language=language,
            licence=self.config.licence if licence is None else licence,
            date=date,
            url=url,
            extractor=extractor,
        )


def listed(config: FolderSource | CheckoutSource) -> list[Place]:
    """All files of a source, sorted by name; hidden ones are left.

    Raises:
        ConfigError, InputError: nothing there, or it cannot be listed.
    """
    named = f"source {config.name!r}: "
    try:
        return find(config.path)
    except ConfigError as error:
        raise ConfigError(f"{named}{error}") from error
    except InputError as error:
        raise InputError(f"{named}{error}; set its path") from error


def one_unit(
    config: C, places: Iterable[Place], read: Callable[[C, Place], Iterable[Item]]
) -> list[Unit]:
    """A source of files as one unit.

    Args:
        config: of the source.
        places: its files.
        read: gives the records of one; of a module, so that it can be pickled.
    """
    files = [File(Origin(config, p).key, partial(read, config, p), p.bytes) for p in places]
    return [Unit(config.name, partial(split_files, files), config.max_bytes)]


def path_date(name: str) -> str | None:
    """The first date in a path, as ``2024``, ``2024-18`` or ``2024-05-17``; None without one.

    The second number need not be a month: snapshots are numbered by week. Names of one scheme
    sort by their age.
    """
    found = _PATH_DATE.search(name)
    if not found:
        return None
    digits = re.sub(r"\D", "", found[0])
    return "-".join(filter(None, (digits[:4], digits[4:6], digits[6:8])))


def lookup(record: Mapping[str, Any], name: str | None) -> Any:
    """The value of a field; ``a.b`` is ``b`` inside ``a`` where no field has that whole name."""
    if name is None:
        return None
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


class Reader:
    """Makes documents of the records of one file of a folder source.

    Args:
        config: of the source.
        origin: the file.
    """

    def __init__(self, config: FolderSource, origin: Origin) -> None:
        self.config, self.origin = config, origin

    def read(self, number: int, record: Mapping[str, Any]) -> Item:
        """The document of a record with named fields."""
        config, fields, origin = self.config, self.config.fields, self.origin
        found = lookup(record, fields.id)
        record_id = None if found in (None, "") else _as_id(found)
        if record_id is None and found not in (None, ""):
            reason = f"field {fields.id!r} holds no id"
            return origin.reject(number, reason, True, f"but {type(found).__name__}")
        text = lookup(record, fields.text)
        if not isinstance(text, str):
            reason, detail = self._no_text(record, text)
            return origin.reject(number, reason, True, detail, record_id)
        extras: dict[str, str] = {}
        for name in ("language", "licence", "url"):
            value = lookup(record, getattr(fields, name))
            if isinstance(value, str) and value:
                extras[name] = value
        if config.date_from == "record":
            date = _as_date(lookup(record, fields.date))
            if date is not None:
                extras["date"] = date
        try:
            extras = {name: clean(value, "prose") for name, value in extras.items()}
        except UnicodeEncodeError:
            return origin.reject(number, "lone surrogate", True, "beside its text", record_id)
        extras.setdefault("language", config.language)
        return origin.document(number, text, config.content, record_id=record_id, **extras)

    def _no_text(self, record: Mapping[str, Any], text: Any) -> tuple[str, str]:
        name = self.config.fields.text
        if text is None and name not in record:
            return f"no field {name!r}", f"fields: {', '.join(map(str, record))}"
        return f"field {name!r} holds no text", f"but {type(text).__name__}"


def _as_id(value: Any) -> str | None:
    """An id as text: of a string or a whole number; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    # Escaped where it is no Unicode: the id goes into a column of the table.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _as_date(value: Any) -> str | None:
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool) and 1000 <= value <= 9999:
        return str(value)  # a year
    return value if isinstance(value, str) and value else None
