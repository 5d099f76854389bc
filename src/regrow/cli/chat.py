"""``chat``: a conversation with a model, one line a turn; nothing is written."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from regrow.cli.describe import command_class
from regrow.cli.generate import (
    TITLE,
    interruptible,
    load_writer,
    open_model,
    show,
    split_words,
    text_settings,
)
from regrow.cli.show import print_json, say
from regrow.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from regrow.model.generate_config import ChatConfig
    from regrow.model.writer import Completion

CHAT_EXAMPLE = 'regrow chat runs/base system="Answer in one sentence." temperature=0.7'


def _chat_config() -> type[ChatConfig]:
    from regrow.model.generate_config import ChatConfig

    return ChatConfig


def register(app: typer.Typer) -> None:
    """Add ``chat`` to ``app``."""
    app.command("chat", cls=command_class(_chat_config, CHAT_EXAMPLE, TITLE))(chat)


def chat(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL [key=value ...]", show_default=False)
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the conversation as one object; answers go to stderr."),
    ] = False,
) -> None:
    """Talk with a model, one line a turn."""
    bare, overrides = split_words(ctx, words)
    if len(bare) > 1:
        raise ConfigError(f"chat takes MODEL, but got {' '.join(bare)}; a setting is key=value")
    config = text_settings(_chat_config(), {"model": bare}, overrides, "a model's name")
    with interruptible():
        conversation = _Conversation(config, sys.stderr if json else sys.stdout)
        try:
            conversation.run()
        finally:
            if json:
                print_json(conversation.result())


class _Conversation:
    """Turns of a chat; the oldest are forgotten when they no longer fit."""

    def __init__(self, config: ChatConfig, stream: TextIO) -> None:
        self.config = config
        self.stream = stream
        self.system = [{"role": "system", "content": config.system}] if config.system else []
        self.turns: list[dict[str, str]] = []
        self.answers: list[dict[str, Any]] = []
        self.folder, self.encoder, self.shape, self.trained = open_model(config)
        self.warned = False
        self._require_room()
        self.writer = load_writer(config, self.folder, self.encoder)

    def run(self) -> None:
        """Answer each line of stdin until it ends.

        Raises:
            KeyboardInterrupt: Ctrl-C while no answer was being written.
        """
        if self.encoder.template is None:
            say(
                f"{self.folder}: no chat template; turns are written as User: and Assistant:, "
                "which a model not trained on conversations may not follow"
            )
        say("one line a turn; Ctrl-C ends an answer, Ctrl-C or Ctrl-D here ends the chat")
        with suppress(AttributeError):
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        while (line := _ask()) is not None:
            if line.strip():
                self.turns.append({"role": "user", "content": line})
                try:
                    ids = self._prompt()
                except InputError as error:
                    self.turns.pop()
                    say(f"not sent: {error}")
                    continue
                self._answer(ids)

    def _require_room(self) -> None:
        """Refuse a template or a system text that leaves no room for a conversation."""
        from regrow.model.generate_config import check_ids, check_lengths

        ids = self.encoder.encode_chat([*self.system, {"role": "user", "content": "?"}])
        check_ids(self.shape, [ids])
        check_lengths(self.shape, [len(ids)], 0)

    def _prompt(self) -> list[int]:
        """Ids of as many of the last turns as fit."""
        from regrow.model.generate_config import check_lengths

        limit = self.shape.max_positions if "*" in self.shape.pattern else None
        ids = self.encoder.encode_chat([*self.system, *self.turns])
        before = len(self.turns)
        while limit is not None and len(ids) >= limit and len(self.turns) > 2:
            del self.turns[:2]
            ids = self.encoder.encode_chat([*self.system, *self.turns])
        if len(self.turns) < before:
            say(f"the oldest {before - len(self.turns)} messages no longer fit and are forgotten")
        warning = check_lengths(self.shape, [len(ids)], 1, self.trained)
        if warning and not self.warned:
            say(warning)
            self.warned = True
        return ids

    def _answer(self, ids: list[int]) -> None:
        from regrow.core.seed import derive

        config, pieces = self.config, [""]
        room = config.max_new_tokens
        if "*" in self.shape.pattern:
            room = max(1, min(room, self.shape.max_positions - len(ids)))
        plain = self.encoder.template is None

        def give(_: int, text: str) -> None:
            text = text.lstrip() if plain and not "".join(pieces) else text
            pieces.append(text)
            show(text, self.stream)

        ended: dict[str, Any] = {"reason": "interrupted"}
        try:
            completion: Completion = self.writer.complete(
                [ids],
                room,
                config.temperature,
                config.top_k,
                config.top_p,
                [*config.stop, *self.encoder.chat_stops],
                derive(config.seed, "chat", len(self.answers)),
                on_text=give,
            )[0]
        except KeyboardInterrupt:
            pass
        else:
            ended = asdict(completion)
            del ended["text"]
        content = "".join(pieces).rstrip() if plain else "".join(pieces)
        self.turns.append({"role": "assistant", "content": content})
        self.answers.append(ended)
        show("\n", self.stream)
        if ended["reason"] == "interrupted":
            say("(stopped)")

    def result(self) -> dict[str, Any]:
        """The conversation as one object."""
        return {
            "verb": "chat",
            "model": str(self.folder),
            "settings": self.config.as_json(),
            "chat_template": str(self.encoder.template.origin) if self.encoder.template else None,
            "messages": [*self.system, *self.turns],
            "answers": self.answers,
        }


def _ask() -> str | None:
    """The next line of stdin; None at its end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None
    with suppress(ImportError):
        import readline  # noqa: F401 (input() then edits lines and remembers them)
    try:
        return input("> ")
    except EOFError:
        return None
