"""Where documents come from: the settings of each kind of source."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from regrow.core.config import Config

PythonDomain = Literal["code", "docstrings", "reference", "packages"]
PYTHON_DOMAINS: tuple[PythonDomain, ...] = ("code", "docstrings", "reference", "packages")
Extractor = Literal["resiliparse", "trafilatura"]


class PythonSource(Config):
    """The interpreter's own library and the documents of installed packages."""

    kind: Literal["python"] = "python"
    """The kind of source."""
    domains: tuple[PythonDomain, ...] = PYTHON_DOMAINS
    """Which of its texts; each becomes a source of this name."""
    max_bytes: dict[PythonDomain, Annotated[int, Field(gt=0)]] = {}
    """UTF-8 bytes to take at most, by domain; a domain that is not named is taken whole."""
    tests: bool = False
    """Whether the library's own tests (two thirds of its code, where they are installed) count."""


class Fields(Config):
    """Which field of a record holds what; ``meta.url`` is the field ``url`` inside ``meta``."""

    text: str = Field(default="text", min_length=1)
    """The text."""
    id: str | None = "id"
    """What identifies the record wherever it lies; null: records go by file and number."""
    date: str | None = "date"
    """When it was written or fetched; null for none, as below."""
    url: str | None = "url"
    """Where it was found."""
    language: str | None = "language"
    """Its language."""
    licence: str | None = "licence"
    """Its licence."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _encoding(value: str | None) -> str | None:
    if value is not None:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"{value!r} is no encoding that Python knows") from None
    return value


def _written(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Place = Annotated[str, BeforeValidator(_written), Field(min_length=1)]
Encoding = Annotated[str | None, AfterValidator(_encoding)]


class FolderSource(Config):
    """Files of text, records or pages: a folder, one file, a glob, or a URL of any of them."""

    kind: Literal["folder"] = "folder"
    """The kind of source."""
    name: Name
    """What the source is called: in weights, in shard names, in every table."""
    path: Place
    """A folder (searched recursively), a file, a glob, ``s3://...`` or ``hf://datasets/...``."""
    fields: Fields = Fields()
    """Names of the fields of ``.jsonl`` and ``.parquet``."""
    content: Literal["prose", "web", "code", "reference", "legal"] = "prose"
    """The kind of text; what is ``code`` is never taken for a page to extract text from."""
    extractor: Extractor = "resiliparse"
    """What takes the main text out of HTML; ``trafilatura`` needs the extra ``[extract]``."""
    encoding: Encoding = None
    """Of plain text, and of pages that declare none; null: UTF-8, and detected for pages."""
    date_from: Literal["record", "warc", "path"] = "record"
    """``record``: the date of a record or of its capture; ``warc``: of captures only; ``path``: the
    first that stands in the path of its file, such as 2024-18 in ``CC-MAIN-2024-18``."""
    language: str = ""
    """Language of all its documents, where records name none."""
    licence: str = "unknown"
    """Licence of all its documents, where records name none."""
    max_bytes: int | None = Field(default=None, gt=0)
    """UTF-8 bytes of text to take at most, chosen by id; null for all. All of it is read."""

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, data: Any) -> Any:
        """``text_column`` is what ``fields.text`` was called."""
        if isinstance(data, dict) and "text_column" in data:
            data = dict(data)
            named = data.pop("text_column")
            fields = data.get("fields", {})
            if not isinstance(fields, dict) or "text" in fields:
                raise ValueError("text_column and fields.text say the same; keep fields.text")
            data["fields"] = {**fields, "text": named}
        return data


class CheckoutSource(Config):
    """Code: a git checkout, or a folder of them; every file of text in it."""

    kind: Literal["checkout"] = "checkout"
    """The kind of source."""
    name: Name
    """What the source is called: in weights, in shard names, in every table."""
    path: Place
    """The folder; ``.git``, hidden folders, links and binary files are left."""
    encoding: Encoding = None
    """Of its files; null: UTF-8."""
    licence: str = "unknown"
    """Licence of all its files."""
    max_bytes: int | None = Field(default=None, gt=0)
    """UTF-8 bytes of text to take at most, chosen by id; null for all."""


SourceConfig = Annotated[PythonSource | FolderSource | CheckoutSource, Field(discriminator="kind")]
