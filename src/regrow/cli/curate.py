"""``curate plan``, ``explain`` and ``weights``: what would come out, what became of one, and how
often buckets would be read; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrow.cli.describe import command_class
from regrow.cli.generate import interruptible
from regrow.cli.make import group
from regrow.cli.show import bytes_text, print_json, print_line, say
from regrow.core.config import is_override, load_config
from regrow.core.errors import ConfigError
from regrow.core.progress import duration

if TYPE_CHECKING:
    from regrow.data.settings.plan import CuratePlanConfig
    from regrow.data.settings.sample import WeightsConfig

WEIGHTS_EXAMPLE = "regrow curate weights runs/shards method=unimax max_epochs=2 total_tokens=1e6"
PLAN_EXAMPLE = "regrow curate plan corpus.yaml sample=0.01"
_EXAMPLES = 2
_LINE = 100


def _plan_config() -> type[CuratePlanConfig]:
    from regrow.data.settings.plan import CuratePlanConfig

    return CuratePlanConfig


def _weights_config() -> type[WeightsConfig]:
    from regrow.data.settings.sample import WeightsConfig

    return WeightsConfig


def register(app: typer.Typer) -> None:
    """Add the verbs of ``curate`` that only answer."""
    curate = group(app, "curate")
    curate.command("plan", cls=command_class(_plan_config, PLAN_EXAMPLE))(plan)
    curate.command("explain", epilog="Example: regrow curate explain runs/corpus 3f2a9c41")(explain)
    curate.command("weights", cls=command_class(_weights_config, WEIGHTS_EXAMPLE))(weights)


def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [key.path=value ...]", show_default=False),
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--config", help="YAML file with settings.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What each step would leave, and what it would cost, from a sample; nothing is made."""
    bare = [word for word in words or () if not is_override(word)]
    for word in bare:
        if not word.endswith((".yaml", ".yml")):
            raise ConfigError(f"curate plan takes YAML files and key=value, not {word!r}")
    places = [*map(Path, bare), *(files or ())]
    overrides = [word for word in words or () if is_override(word)]
    config = load_config(_plan_config(), places, overrides, verb="curate run")
    from regrow.data.preview import preview

    with interruptible():
        told = preview(config, say)
    if json:
        print_json({"verb": "curate plan", "settings": config.as_json(), **told})
    else:
        print_line("\n".join(_plan_lines(told)))


def _plan_lines(told: dict[str, Any]) -> list[str]:
    sample = told["sample"]
    share = "all of them" if sample["share"] == 1 else f"a sample of {sample['documents']:,}"
    lines = [
        f"{told['documents']:,} documents, {bytes_text(told['bytes'])} of text; "
        f"the steps saw {share}",
        "",
        *_yields(told),
        "",
    ]
    if sample["share"] < 1:
        lines += ["all intervals hold together in 95 of 100 samples", ""]
    for stage in told["stages"]:
        lines.extend(_reasons(stage, told["examples"].get(stage["step"], {}), sample["share"]))
    for name, shown in told["exhibits"].items():
        for exhibit in shown:
            if exhibit["kind"] == "curve":
                lines.extend(_curve_lines(name, exhibit))
    return [*lines, *_cost_lines(told), *(f"note: {note}" for note in told["notes"])]


def _yields(told: dict[str, Any]) -> list[str]:
    """A table: steps down, sources across."""
    names = list(told["stages"][0]["sources"]) if told["stages"] else []
    head = ["after", "documents", *(names if len(names) > 1 else ())]
    rows = [head]
    for stage in told["stages"]:
        cells = [stage["out"], *(stage["sources"][name] for name in head[2:])]
        rows.append([stage["step"], *map(_interval, cells)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _interval(cell: dict[str, Any]) -> str:
    if cell["low"] == cell["high"]:
        return f"{cell['estimate']:,}"
    return f"{cell['estimate']:,} ({cell['low']:,} to {cell['high']:,})"


def _reasons(stage: dict[str, Any], examples: dict[str, Any], share: float) -> list[str]:
    lines = []
    for reason, count in stage["dropped"].items():
        about = "" if share == 1 else "about "
        lines.append(f"{stage['step']}: {reason}: {about}{count['estimate']:,} documents")
        for one in examples.get(reason, [])[:_EXAMPLES]:
            text = " ".join(one["text"].split())
            value = "" if one["value"] is None else f" ({one['value']:.4g})"
            line = f"    {one['file']}{value}: {text}"
            lines.append(line[:_LINE] + ("…" if len(line) > _LINE else ""))
    return [*lines, ""] if lines else []


def _curve_lines(step: str, exhibit: dict[str, Any]) -> list[str]:
    lines = [f"{step}: {exhibit['title']}"]
    for name, values in exhibit["lines"].items():
        points = [
            f"{x:g}: {y:.3f}"
            for x, y in zip(exhibit["x"], values, strict=True)
            if round(x * 100) in (50, 60, 70, 80, 90, 95)
        ]
        lines.append(f"    {name} at {', '.join(points)}")
    marks = ", ".join(f"{name} {place:.3g}" for name, place in exhibit["marks"].items())
    return [*lines, f"    {marks}", ""] if marks else [*lines, ""]


def _cost_lines(told: dict[str, Any]) -> list[str]:
    cost, text = told["cost"], told["text_bytes"]
    steps = ", ".join(f"{name} {duration(value)}" for name, value in cost["seconds"].items())
    kept = bytes_text(text["estimate"])
    if text["low"] < text["high"]:
        kept += f" ({bytes_text(text['low'])} to {bytes_text(text['high'])})"
    return [
        f"text that stays: {kept}",
        f"time on this machine: about {duration(cost['total_seconds'])} ({steps})",
        f"disk: documents {bytes_text(cost['documents_bytes'])}, at most "
        f"{bytes_text(cost['peak_disk_bytes'])} while it runs",
    ]


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


def weights(
    counts: Annotated[
        Path,
        typer.Argument(help="A .json or .yaml of counts, or a run of curate run or tokenize."),
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key.path=value ...]", show_default=False)
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--config", help="YAML file with settings.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How often each bucket would be read, from counts alone; nothing is made."""
    for word in words or ():
        if not is_override(word):
            raise ConfigError(
                f"curate weights takes one table or run, then key=value, not {word!r}"
            )
    config = load_config(_weights_config(), files or (), words or ())
    from regrow.data.mixture import described, mixture

    told = mixture(counts, config)
    if json:
        print_json({"verb": "curate weights", "counts": str(counts), **told})
    else:
        print_line("\n".join(described(told)))
