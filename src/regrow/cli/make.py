"""The verbs that make something: one command built from each entry of ``grow.verbs``."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from regrow.cli.describe import command_class
from regrow.cli.show import plan_lines, print_json, print_line, say
from regrow.core.config import Config, is_override, load_config
from regrow.core.errors import ConfigError, InputError
from regrow.core.follower import process_rank
from regrow.core.plan import Plan
from regrow.core.registry import nearest
from regrow.core.yaml12 import Location, read_yaml
from regrow.grow.verbs import Verb

_PROBLEM_KEY = re.compile(r"^([a-z_][\w.\-]*):")


def register(app: typer.Typer, verb: Verb) -> None:
    """Add the command of ``verb`` to ``app``, or to its group."""
    bare = " ".join(name.upper() for name in verb.bare) if verb.name != "grow" else "RECIPE"
    metavar = f"{bare} [key.path=value ...]".strip()

    @group(app, verb.group).command(
        verb.name.split()[-1], help=verb.summary, cls=command_class(verb.config_class, verb.example)
    )
    def command(
        ctx: typer.Context,
        words: Annotated[
            list[str] | None, typer.Argument(metavar=metavar, show_default=False)
        ] = None,
        config: Annotated[
            list[Path] | None,
            typer.Option(help="YAML file with settings; several are merged in order."),
        ] = None,
        run: Annotated[
            Path | None,
            typer.Option(help="Run folder; by default runs/VERB-<hash of the settings>."),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the plan, write nothing.")
        ] = False,
        json: Annotated[
            bool, typer.Option("--json", help="Print the result object as the last line.")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Start the run folder anew.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No plan, no progress.")] = False,
        listed: Annotated[
            bool,
            typer.Option("--list", help="Print what there is to ask for.", hidden=not verb.listing),
        ] = False,
    ) -> None:
        if listed:
            lines, found = verb.list()
            print_json(found) if json else print_line("\n".join(lines))
            return
        make(
            verb, words or [], list((ctx.obj or {}).get("literal", ())), config or [], run,
            dry_run=dry_run, as_json=json, force=force, quiet=quiet,
        )  # fmt: skip


_GROUPS: dict[str, typer.Typer] = {}
_ABOUT = {"curate": "From raw files to documents: gather, clean, select, explain."}


def group(app: typer.Typer, name: str) -> typer.Typer:
    """The command that holds the verbs of a group; ``app`` itself where there is no group."""
    if not name:
        return app
    if name not in _GROUPS:
        _GROUPS[name] = typer.Typer(
            help=_ABOUT[name], cls=_VerbGroup, no_args_is_help=True, rich_markup_mode=None
        )
        app.add_typer(_GROUPS[name], name=name)
    return _GROUPS[name]


class _VerbGroup(TyperGroup):
    """A group that says what was probably meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does.

        Raises:
            ConfigError: the word is no verb of the group.
        """
        known = self.list_commands(ctx)
        if args and args[0] not in known:
            hint = nearest(args[0], known)
            if is_override(args[0]):
                hint = f", did you mean: regrow {self.name} run {args[0]}?"
            elif args[0].endswith((".yaml", ".yml")):
                hint = f", did you mean: regrow {self.name} run --config {args[0]}?"
            raise ConfigError(
                f"{self.name} has no verb {args[0]!r}{hint} (known: {', '.join(known)})"
            )
        return super().resolve_command(ctx, args)


def read_settings(
    verb: Verb, words: list[str], literal: list[str], files: list[Path]
) -> tuple[Config, list[Path]]:
    """The resolved settings of a command line.

    Raises:
        ConfigError: with every problem.
    """
    overrides = [word for word in words if is_override(word)]
    bare = [word for word in words if not is_override(word)] + literal
    if verb.name == "grow":
        if len(bare) != 1:
            raise ConfigError(f"grow takes one recipe, not {len(bare)}: {verb.example}")
        files, bare = [Path(bare[0]), *files], []
    if len(bare) > len(verb.bare):
        expected = " ".join(name.upper() for name in verb.bare) or "no bare argument"
        hint = "; a setting is written key=value"
        raise ConfigError(f"{verb.name} takes {expected}, but got {' '.join(bare)}{hint}")
    base = dict(zip(verb.bare, bare, strict=False))
    origin: dict[Location, str] = {(name,): word for name, word in base.items()}
    config = load_config(
        verb.config_class(), files, overrides, base=base, origin=origin, verb=verb.name
    )
    return config, files


def _locate(error: ConfigError, files: list[Path], words: list[str]) -> ConfigError:
    """The same error, each problem with the file and line, or the word, that its key came from."""
    lines: dict[str, str] = {}
    for path in files:
        _, found = read_yaml(path)
        lines |= {".".join(map(str, key)): f"{path}:{line}" for key, line in found.items()}
    lines |= {word.partition("=")[0]: word for word in words if is_override(word)}
    problems = []
    for problem in error.problems or (error.message,):
        match = _PROBLEM_KEY.match(problem)
        key = match.group(1) if match else ""
        while key and key not in lines:
            key = key.rpartition(".")[0]
        problems.append(f"{lines[key]}: {problem}" if key else problem)
    message = error.message if error.problems else "1 problem in the config"
    return ConfigError(message, problems)


def make(
    verb: Verb,
    words: list[str],
    literal: list[str],
    files: list[Path],
    folder: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Read the settings, then plan or do."""
    config, files = read_settings(verb, words, literal, files)
    try:
        if dry_run:
            plan = verb.plan(config)
            if as_json:
                print_json(plan.as_json())
            else:
                print_line("\n".join(plan_lines(plan)))
            return
        from regrow.grow.execute import execute

        def announce(text: str, plan: Plan | None) -> None:
            if not quiet:
                say(text)
                for line in plan_lines(plan) if plan else ():
                    say(f"  {line}")

        result = execute(verb, config, folder, force=force, quiet=quiet, announce=announce)
    except InputError:
        raise
    except ConfigError as error:
        raise _locate(error, files, words) from error
    if process_rank():
        return  # the first process tells
    if as_json:
        print_json(result)
    else:
        print_line(f"done in {result['seconds']:.1f} s: {result['run']}/report.html")
