"""The ``regrow`` command."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import regrow
from regrow.cli import chat, curate, generate, plan, runs, settings
from regrow.cli.make import register
from regrow.cli.show import print_line, say, say_error
from regrow.core.engines import prepare_engines
from regrow.core.errors import RegrowError
from regrow.grow.verbs import VERBS

app = typer.Typer(
    name="regrow",
    help="Grow a family of models from one that you already have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(regrow.__version__)
        raise typer.Exit


@app.callback(epilog="Every verb has --help with an example. Docs: docs/")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Grow a family of models from one that you already have."""


for _verb in VERBS.values():
    if not _verb.hidden:
        register(app, _verb)
curate.register(app)
generate.register(app)
chat.register(app)
app.command("plan", epilog="Example: regrow plan preset=minitron-4b --json")(plan.plan)
app.command("tree", epilog="Example: regrow tree runs/family")(runs.tree)
app.add_typer(runs.runs, name="runs")
app.add_typer(settings.config, name="config")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script; exits with the codes of :mod:`regrow.core.errors`."""
    words = sys.argv[1:] if arguments is None else arguments
    literal: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, literal = words[:cut], words[cut + 1 :]
    prepare_engines()
    try:
        app(args=words, obj={"literal": literal})
    except RegrowError as error:
        say_error(error)
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        # A bug: one line for the user; the run's events.jsonl has the traceback where there is one.
        path = Path("regrow-error.log")
        path.write_text(traceback.format_exc(), encoding="utf-8")
        say(f"bug: {type(error).__name__}: {error} (traceback in {path.resolve()})")
        raise SystemExit(1) from error
