"""What a chat model wrote: kept on disk by the hash of its request, and read as an object."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from regrow.io.hf import printable
from regrow.io.jsonl import open_to_add, read_jsonl

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote.

    Args:
        text: its message.
        prompt_tokens: read, as the server counts; 0 where it does not say.
        completion_tokens: written.
        finish: why it ended (``stop``, ``length``), as the server says.
        cached: whether it was found on disk.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    cached: bool = False


class ReplyCache:
    """Replies by the hash of their request, in a file that only grows."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Reply] = {}
        self._file = None
        if path is None:
            return
        self._file = open_to_add(path)
        for line in read_jsonl(path):
            self._take(line.value)

    def _take(self, value: dict[str, Any] | None) -> None:
        try:
            fields = dict(value or {})
            key = fields.pop("request")
            self._kept[str(key)] = Reply(**fields, cached=True)
        except (KeyError, TypeError):
            return

    def get(self, key: str) -> Reply | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: str, reply: Reply) -> None:
        record = {"request": key, **asdict(reply)}
        del record["cached"]
        with self._lock:
            self._kept[key] = reply
            if self._file is not None:
                self._file.write(json.dumps(record).encode() + b"\n")
                self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def parse_reply(text: str, schema: type[S]) -> S:
    """The object in a reply: the whole of it, or what a fence of it holds.

    Raises:
        ValueError: not JSON, or not as the schema says; one line.
    """
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        return schema.model_validate_json(fenced.group(1) if fenced else text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(printable(f"{where}: {first['msg']}" if where else first["msg"])) from None
