"""``curate explain``: what became of one document; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.make import group
from regrow.cli.show import print_json, print_line


def register(app: typer.Typer) -> None:
    """Add the verbs of ``curate`` that only answer."""
    curate = group(app, "curate")
    curate.command("explain", epilog="Example: regrow curate explain runs/corpus 3f2a9c41")(explain)


def explain(
    run: Annotated[Path, typer.Argument(help="A finished run folder of curate run.")],
    document: Annotated[
        str, typer.Argument(help="A document's id, the first digits of it, or its file.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What became of one document: kept, dropped or a duplicate, by which rule, and its scores."""
    from regrow.data.explain import explain as find
    from regrow.data.explain import explained

    told = find(run, document)
    if json:
        print_json({"verb": "curate explain", "run": str(run), **told})
    else:
        print_line("\n".join(explained(told)))
