"""Reading the files of public sets: whole, of the public size, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.core.errors import InputError
from regrow.io.jsonl import read_jsonl


def require_count(path: Path, found: int, public: int, what: str = "items") -> None:
    """Refuse a file that is not the public set.

    Raises:
        InputError: another number than the public one.
    """
    if found != public:
        raise InputError(
            f"{path} has {found:,} {what}, the public set {public:,}: its scores could be compared "
            "with none; get the whole public file"
        )


def require_file(path: Path) -> Path:
    """``path``, if it is there.

    Raises:
        InputError: nothing there.
    """
    if not path.exists():
        raise InputError(f"{path} is missing; give the folder that holds it by data=FOLDER")
    return path


def json_rows(
    path: Path, public: int, keys: Mapping[str, type | tuple[type, ...]]
) -> list[dict[str, Any]]:
    """Every row of a JSON Lines file of ``public`` rows.

    Args:
        path: the file.
        public: rows of the public set.
        keys: what each row must hold, and of which type.

    Raises:
        InputError: missing, broken, or of another size.
    """
    rows = []
    for line in read_jsonl(require_file(path)):
        if line.value is None:
            raise InputError(f"{path}:{line.number}: {line.error}")
        for key, kind in keys.items():
            if not isinstance(line.value.get(key), kind):
                raise InputError(
                    f"{path}:{line.number}: {key!r} is missing or of another type than "
                    f"{kind if isinstance(kind, tuple) else kind.__name__}"
                )
        rows.append(line.value)
    require_count(path, len(rows), public)
    return rows


def require_options(path: Path, rows: Sequence[Mapping[str, Any]], key: str, public: int) -> None:
    """Refuse rows with another number of options than the public set, or an answer beyond them.

    Raises:
        InputError: names the row.
    """
    for index, row in enumerate(rows):
        found = len(row[key])
        if found != public:
            raise InputError(
                f"{path}: item {index} has {found} options, those of the public set {public}: an "
                "altered variant, whose scores cannot be compared with published ones"
            )
        if not all(isinstance(option, str) for option in row[key]):
            raise InputError(f"{path}: item {index} has an option that is no text")
        if not 0 <= row["gold"] < public:
            raise InputError(f"{path}: item {index} has the answer {row['gold']} of {public}")
