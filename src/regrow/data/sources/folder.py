"""A user's files: text, records, pages and web archives, in a folder or wherever fsspec reaches.

Broken records are quarantined one by one and counted; they never end the run. Files of no known
kind are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.data import extract
from regrow.data.settings.sources import FolderSource
from regrow.data.sources import pages, tables
from regrow.data.sources.plain import read_plain
from regrow.data.sources.pool import Item, Unit
from regrow.data.sources.record import Origin, listed, one_unit, path_date
from regrow.io.places import Place, plain_suffix

PLAIN = (".txt", ".md")
PAGES = (".html", ".htm", ".xhtml")
RECORDS = (".jsonl",)
TABLES = (".parquet",)
ARCHIVES = (".warc", ".arc")
KNOWN = (*PLAIN, *PAGES, *RECORDS, *TABLES, *ARCHIVES)
# Compressed by their own means, or by the record: a suffix behind them is no compression of ours.
_AS_THEY_LIE = {".parquet": (".parquet",), ".warc": (".warc", ".warc.gz")}
_ALSO_ARCHIVES = (".wet", ".wat")  # of Common Crawl: texts, and metadata, in the same format
_PEEK = 3


def units(config: FolderSource) -> list[Unit]:
    """The source as one unit.

    Raises:
        ConfigError: a package is missing that the files need, or ``date_from`` finds nothing.
        InputError: nothing there, no file that could hold text, or records without the field.
    """
    named = f"source {config.name!r}: "
    places = listed(config)
    kinds = {_kind(place) for place in places}
    if not kinds - {""}:
        raise InputError(f"{named}{config.path} holds no {', '.join(KNOWN)} file, so no documents")
    if kinds & {*PAGES, ".warc"} and config.content != "code":
        extract.require(config.extractor)
    if config.date_from == "path" and not any(path_date(place.name) for place in places):
        raise ConfigError(
            f"{named}date_from is path, but no path has a date in it, such as {places[0].name!r}; "
            "put the files into folders like 2024-05, or set date_from to record"
        )
    if config.date_from == "warc" and ".warc" not in kinds:
        raise ConfigError(
            f"{named}date_from is warc, but {config.path} holds no .warc file; "
            "set date_from to record or path"
        )
    records = [place for place in places if _kind(place) in (*RECORDS, *TABLES)]
    if records and not kinds - {"", *RECORDS, *TABLES}:
        seen = tables.missing_text(config, records[:_PEEK])
        if seen:
            hint = nearest(config.fields.text, seen.split(", "))
            raise InputError(
                f"{named}no field {config.fields.text!r} in {records[0].name}{hint} "
                f"(fields: {seen}); set fields.text"
            )
    return one_unit(config, places, _read)


def _kind(place: Place) -> str:
    """The suffix that says how the file is read; empty for one that is not."""
    suffix = plain_suffix(place.name)
    if suffix in _ALSO_ARCHIVES:
        return ".warc"
    endings = _AS_THEY_LIE.get(suffix)
    if suffix not in KNOWN or (endings and not place.name.lower().endswith(endings)):
        return ""
    return suffix


def _read(config: FolderSource, place: Place) -> Iterator[Item]:
    origin = Origin(config, place)
    kind = _kind(place)
    if not kind:
        return iter([origin.reject(0, "no known kind of file")])
    if not place.is_regular:  # a pipe or a device would block for ever
        return iter([origin.reject(0, "unreadable", True, "not a regular file")])
    if kind in RECORDS:
        return tables.read_json_lines(config, place)
    if kind in TABLES:
        return tables.read_parquet(config, place)
    if kind == ".warc":
        return pages.read_archive(config, place)
    if kind == ".arc":
        return pages.read_old_archive(config, place)
    if kind in PAGES and config.content != "code":
        return pages.read_page(config, place)
    return read_plain(origin, config.content, language=config.language)
