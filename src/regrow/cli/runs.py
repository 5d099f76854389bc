"""``runs list``, ``runs show``, ``tree``: what was made, read from the runs' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regrow.cli.show import figure, print_json, print_line
from regrow.core import lineage
from regrow.core.errors import InputError
from regrow.core.lineage import Node
from regrow.core.progress import duration
from regrow.core.run import require_run

runs = typer.Typer(help="List and show runs.", no_args_is_help=True, rich_markup_mode=None)
_HEADLINE = ("parameters", "tokens", "loss", "flops")


def _summary(node: Node) -> dict[str, Any]:
    figures = {
        key: node.result[key] for key in _HEADLINE if isinstance(node.result.get(key), (int, float))
    }
    return {
        "run": str(node.path),
        "verb": node.verb,
        "state": node.state,
        "seconds": node.result.get("seconds"),
        **figures,
    }


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"no folder {root}; name the one that holds your runs")
    return root


@runs.command("list", epilog="Example: regrow runs list runs/family")
def list_runs(
    root: Annotated[Path, typer.Argument(help="Folder that holds runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every run below a folder, with its state and main figures."""
    rows = [_summary(lineage.node(path)) for path in lineage.find_runs(_existing(root))]
    if json:
        print_json({"runs": rows})
        return
    width = max((len(row["run"]) for row in rows), default=0)
    for row in rows:
        took = duration(row["seconds"]) if row["seconds"] is not None else "-"
        figures = "  ".join(f"{key} {figure(key, row[key])}" for key in _HEADLINE if key in row)
        print_line(
            f"{row['run']:<{width}}  {row['verb']:<10} {row['state']:<11} {took:>7}  {figures}"
        )
    if not rows:
        print_line(f"no runs below {root}")


@runs.command("show", epilog="Example: regrow runs show runs/family/base")
def show_run(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """One run: its state, what it was made from, and its figures."""
    node = lineage.node(require_run(run))
    if json:
        print_json({**_summary(node), "lineage": node.lineage, "result": node.result})
        return
    print_line(f"{node.path}: {node.verb}, {node.state}")
    for parent in node.lineage.get("parents", ()):
        print_line(f"  from {parent['role']}: {parent['path']}  sha256 {parent['sha256'][:12]}")
    for key, value in node.result.items():
        if key not in ("verb", "run") and not isinstance(value, (dict, list)):
            print_line(f"  {key}: {figure(key, value)}")
    print_line(f"  page: {node.path / 'report.html'}")


def tree(
    root: Annotated[Path, typer.Argument(help="Folder that holds runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw which model came from which."""
    roots = lineage.tree(_existing(root))
    if json:
        print_json({"roots": [_branch(node) for node in roots]})
        return
    for node in roots:
        if _is_model(node):
            _draw(node, root, "", "")


def _branch(node: Node) -> dict[str, Any]:
    return {**_summary(node), "children": [_branch(child) for child in node.children]}


def _is_model(node: Node) -> bool:
    """Whether the run made a model, or is at it; what only measures one is no branch."""
    made = (node.path / "export" / "config.json").exists()
    return made or (node.state != "done" and (node.path / "checkpoints").exists())


def _draw(node: Node, root: Path, first: str, rest: str) -> None:
    figures = [
        f"{key} {figure(key, node.result[key])}"
        for key in ("parameters", "loss")
        if node.result.get(key)
    ]
    name = node.path.relative_to(root) if node.path != root else node.path
    print_line(f"{first}{name} ({node.verb}{', ' if figures else ''}{', '.join(figures)})")
    children = [child for child in node.children if _is_model(child)]
    for child in children:
        last = child is children[-1]
        _draw(child, root, rest + ("`-- " if last else "|-- "), rest + ("    " if last else "|   "))
