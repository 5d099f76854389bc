"""Prompts and conversations as the ids that a model was trained to read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from regrow.core.errors import InputError
from regrow.io import chat_render, hf
from regrow.io.tokenizer import Tokenizer

Message = Mapping[str, str]
"""``role`` (system, user or assistant) and ``content``."""

_SPECIAL = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_MAX_CHARACTERS = 1 << 22
_MAX_MEMORY = 1 << 30
_MAX_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja template that turns a conversation into a prompt.

    Args:
        source: its text.
        origin: the file that it came from.
        variables: special tokens by role, which the template may use.
    """

    source: str
    origin: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The template of a tokenizer's folder; None where there is none.

        ``chat_template.jinja`` goes before ``chat_template`` of ``tokenizer_config.json``; of
        several named ones there, ``default`` is taken.

        Raises:
            InputError: a file that cannot be read, or named templates without a ``default``.
        """
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).exists():
                settings |= hf.read_json_object(folder / name)
        origin, source = folder / "tokenizer_config.json", settings.get("chat_template")
        if isinstance(source, list):
            source = {entry.get("name"): entry.get("template") for entry in source}
        if isinstance(source, dict):
            names = ", ".join(map(str, source))
            source = source.get("default")
            if source is None:
                raise InputError(f"{origin}: has chat templates {names}, but none named default")
        if (folder / "chat_template.jinja").exists():
            origin = hf.check_regular(folder / "chat_template.jinja")
            try:
                source = origin.read_text(encoding="utf-8")
            except ValueError as error:
                raise InputError(f"{origin}: not UTF-8 text ({error})") from None
        if source is None:
            return None
        if not isinstance(source, str):
            raise InputError(f"{origin}: chat_template must be text, not {type(source).__name__}")
        return cls(source, origin, _special_tokens(settings))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation, in a process of its own (about 0.1 s).

        Args:
            messages: from the oldest to the newest.
            add_generation_prompt: whether the beginning of the assistant's answer is added.

        Raises:
            InputError: the template is broken, refuses the conversation, or takes too long, too
                much memory or too many characters.
        """
        request = {
            "template": self.source,
            "variables": {
                **self.variables,
                "messages": [dict(message) for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            },
            "characters": _MAX_CHARACTERS,
            "memory": _MAX_MEMORY,
            "seconds": _MAX_SECONDS,
        }
        # -P: nothing beside the script or in the current folder can be imported.
        command = [sys.executable, "-P", chat_render.__file__]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(request),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=4 * _MAX_SECONDS,
                check=False,
                start_new_session=True,  # Ctrl-C is for the chat, not for its template
            )
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            answer = {"error": f"it takes more than {_MAX_SECONDS} s"}
        if "error" in answer:
            raise InputError(f"{self.origin}: the chat template fails: {answer['error']}")
        text: str = answer["text"]
        return text


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in _SPECIAL:
        value = settings.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[name] = value
    return tokens


class PromptEncoder:
    """Ids of plain prompts and of conversations, as ``transformers``' tokenizers give them.

    Args:
        tokenizer: the model's.
        template: its chat template; without one, conversations are written as lines that begin
            with ``User:`` and ``Assistant:``.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        # Unlike the tokenizer itself, one that reads a template's markup as the special tokens
        # that it stands for, and that has its post-processor.
        self._markup = tokenizers.Tokenizer.from_buffer(dict(tokenizer.files())["tokenizer.json"])
        self._markup.no_truncation()
        self._markup.no_padding()
        self.opening = self._find_opening()

    @property
    def chat_stops(self) -> tuple[str, ...]:
        """What ends an answer beside the model's own end tokens."""
        return () if self.template is not None else ("\nUser:",)

    def encode(self, text: str) -> list[int]:
        """Ids of a prompt, behind the token that opens a text where the tokenizer has one."""
        return [*self.opening, *self.tokenizer.encode(text)]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where the assistant's answer begins.

        Raises:
            InputError: see :meth:`ChatTemplate.render`.
        """
        if self.template is None:
            return self.encode(plain_chat(messages))
        text = self.template.render(messages)
        return list(self._markup.encode(text, add_special_tokens=False).ids)

    def _find_opening(self) -> list[int]:
        """Ids that the tokenizer's post-processor puts before every text."""
        plain = self._markup.encode("a", add_special_tokens=False).ids
        whole = self._markup.encode("a", add_special_tokens=True).ids
        for start in range(len(whole)):
            if whole[start : start + len(plain)] == plain:
                return list(whole[:start])
        return []


def plain_chat(messages: Sequence[Message]) -> str:
    """A conversation as lines, for models that know no chat template.

    Example: ``[{"role": "user", "content": "Hi"}]`` becomes ``"User: Hi\\nAssistant:"``.
    """
    names = {"user": "User: ", "assistant": "Assistant: "}
    lines = [f"{names[m['role']]}{m['content']}\n" for m in messages if m["role"] in names]
    systems = [f"{m['content']}\n\n" for m in messages if m["role"] == "system"]
    return "".join([*systems, *lines, "Assistant:"])
