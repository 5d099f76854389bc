"""A command's settings, in its ``--help``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand

from regrow.core.config import Config, describe_fields


def command_class(
    config: Callable[[], type[Config]],
    example: str,
    title: str = "Settings (in --config FILE, or as key.path=value):",
) -> type[TyperCommand]:
    """A command whose help ends with an example and with every setting.

    Args:
        config: gives the class of the settings; called for help only.
        example: a command that works as it stands, given its inputs.
        title: the line above the settings.
    """

    class Command(TyperCommand):
        """The command with its settings below its options."""

        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            formatter.write(f"\nExample:\n  {example}\n\n{_settings_text(config, title)}")

    return Command


def _settings_text(config: Callable[[], type[Config]], title: str) -> str:
    """Every setting with its type, default and meaning."""
    try:
        rows = describe_fields(config())
    except ImportError as error:
        return f"Settings need an extra that is not installed: {error}\n"
    width = min(max((len(key) for key, *_ in rows), default=0), 34)
    columns = max(60, min(110, shutil.get_terminal_size().columns))
    lines = [title]
    for key, kind, default, text in rows:
        about = f"{' '.join(text.split())} [{kind}; {default}]"
        body = textwrap.wrap(about, columns - width - 5) or [""]
        if len(key) > width:
            lines.append(f"  {key}")
            key = ""
        lines.append(f"  {key:<{width}}  {body[0]}")
        lines += [" " * (width + 4) + line for line in body[1:]]
    return "\n".join(lines) + "\n"
