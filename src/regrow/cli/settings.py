"""``config show``: the settings that a command would use, resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.make import read_settings
from regrow.cli.show import print_json, print_line
from regrow.grow.verbs import VERBS, get_verb

config = typer.Typer(help="Show settings.", no_args_is_help=True, rich_markup_mode=None)


@config.command(
    "show", epilog="Example: regrow config show pretrain data.shards=runs/shards train.tokens=1e6"
)
def show(
    verb: Annotated[
        str, typer.Argument(help="The verb whose settings to resolve, of one word or of two.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGUMENT ...] [key.path=value ...]")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--config", help="YAML file with settings.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """All settings of a verb after files and overrides, as YAML that can be run again."""
    words = list(words or ())
    if words and f"{verb} {words[0]}" in VERBS:
        verb = f"{verb} {words.pop(0)}"
    settings, _ = read_settings(get_verb(verb), words, [], files or [])
    if json:
        print_json(settings.as_json())
    else:
        print_line(settings.as_yaml().rstrip())
