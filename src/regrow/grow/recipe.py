"""Run the stages of a recipe in the order of their needs; finished ones are left alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from regrow.core.config import Config, load_config
from regrow.core.errors import ConfigError, InputError, Interrupted
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.core.yaml12 import read_yaml
from regrow.grow.config import RecipeConfig, StageConfig, SweepConfig
from regrow.grow.execute import UNCHANGED, execute, is_done
from regrow.grow.family import assemble
from regrow.grow.verbs import get_verb

_REFERENCE = re.compile(r"\$\{([\w.\-]+)\}")


def references(value: Any) -> set[str]:
    """Names of the stages that ``${name}`` marks in a stage's settings ask for."""
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def needs(stage: StageConfig) -> set[str]:
    """Stages that must be finished before this one."""
    return references(stage.config) | set(stage.after)


def order(config: RecipeConfig) -> list[str]:
    """Stage names, each after what it needs, otherwise as they stand in the recipe.

    Raises:
        ConfigError: an unknown stage is asked for, or stages wait for each other.
    """
    graph: dict[str, set[str]] = {}
    problems = []
    for name, stage in config.stages.items():
        graph[name] = needs(stage)
        problems += [
            f"stages.{name}: asks for stage {missing!r}, which the recipe does not have"
            for missing in sorted(graph[name] - set(config.stages))
        ]
    if problems:
        raise ConfigError("the recipe cannot be run", problems)
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigError(f"stages: these wait for each other: {circle}") from error
    done: list[str] = []
    while sorter.is_active():
        done.extend(sorted(ready := sorter.get_ready(), key=list(config.stages).index))
        sorter.done(*ready)
    return done


def _filled(value: Any, folders: Mapping[str, Path]) -> Any:
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: str(folders[match.group(1)]), value)
    if isinstance(value, Mapping):
        return {key: _filled(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, folders) for item in value]
    return value


def stage_config(stage: StageConfig, folders: Mapping[str, Path]) -> tuple[str, Config]:
    """The verb that runs a stage (its own, or ``sweep`` around it) and the resolved settings.

    Raises:
        ConfigError: with every problem.
    """
    settings = _filled(stage.config, folders)
    if not stage.sweep:
        return stage.verb, load_config(get_verb(stage.verb).config_class(), base=settings)
    from regrow.grow.sweep import trial_configs

    ((key, values),) = stage.sweep.items()
    sweep = SweepConfig(of=stage.verb, config=settings, key=key, values=values, by=stage.by)
    trial_configs(sweep)
    return "sweep", sweep


def check(config: RecipeConfig, root: Path) -> dict[str, tuple[str, Config]]:
    """Stage name to verb and settings, in the order of running.

    Raises:
        ConfigError: with every problem of every stage.
    """
    names = order(config)
    folders = {name: root / name for name in names}
    made: dict[str, tuple[str, Config]] = {}
    problems = []
    for name in names:
        try:
            made[name] = stage_config(config.stages[name], folders)
        except ConfigError as error:
            lines = error.problems or (error.message,)
            problems += [f"stages.{name}.config.{line}" for line in lines]
    if problems:
        raise ConfigError("the recipe has problems", problems)
    return made


def plan(config: RecipeConfig) -> Plan:
    """The stages, with the plan of each whose inputs exist already."""
    root = Path("RUN")
    stages = {}
    for name, (verb, settings) in check(config, root).items():
        wanted = sorted(needs(config.stages[name]))
        if wanted:
            shown = f"{config.stages[name].verb} (sweep)" if verb == "sweep" else verb
            stages[name] = f"{shown}, after {', '.join(wanted)}"
            continue
        try:
            stages[name] = get_verb(verb).plan(settings).title
        except InputError as error:
            stages[name] = f"{verb}: {error.message}"
    return Plan(f"grow {config.name}: {len(stages)} stages", {"stages": stages})


def stage_plans(config: RecipeConfig) -> dict[str, Plan]:
    """Stage name to the whole plan of the stage; where an input has yet to be made, only a title.

    Raises:
        ConfigError: with every problem of every stage.
    """
    plans = {}
    for name, (verb, settings) in check(config, Path("RUN")).items():
        wanted = sorted(needs(config.stages[name]))
        if wanted:
            plans[name] = Plan(f"{verb}, after {', '.join(wanted)}")
            continue
        try:
            plans[name] = get_verb(verb).plan(settings)
        except InputError as error:
            plans[name] = Plan(f"{verb}: {error.message}")
    return plans


def _differs(folder: Path, verb: str, settings: Config) -> bool:
    if not (folder / "config.yaml").exists():
        return False
    there, _ = read_yaml(folder / "config.yaml")
    there = dict(there or {})
    return there.pop("verb", verb) != verb or bool(settings.differences_from(there))


def run(config: RecipeConfig, run: Run) -> dict[str, Any]:
    """Every stage, then the figures of the family."""
    stages = check(config, run.path)
    was_done = is_done(run.path)
    results: dict[str, dict[str, Any]] = {}
    worked = False
    for number, (name, (verb, settings)) in enumerate(stages.items(), 1):
        if run.stop_requested:
            raise Interrupted(f"interrupted; the same command goes on in {run.path}")
        folder = run.path / name
        heading = f"[{number}/{len(stages)}] {name}: "

        def announce(text: str, plan: Plan | None, heading: str = heading) -> None:
            nonlocal worked
            worked = worked or plan is not None
            if plan is not None or not was_done:
                run.announce(heading + text, plan)

        results[name] = execute(
            verb,
            settings,
            folder,
            force=run.force and _differs(folder, verb, settings),
            redo_changed=True,
            quiet=run.quiet,
            announce=announce,
        )
    if was_done and not worked:
        return UNCHANGED
    made: dict[str, Any] = {
        "name": config.name,
        "stage_seconds": {name: result["seconds"] for name, result in results.items()},
    }
    if config.family is not None:
        made |= assemble(config, results, run.path)
    return made
