"""One verb, once for each value of a setting; the best trial's result and export are kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from regrow.core import atomic
from regrow.core.config import Config, load_config
from regrow.core.errors import ConfigError
from regrow.core.lineage import TRIALS
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.grow.config import SweepConfig
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb


def trial_configs(config: SweepConfig) -> dict[str, Config]:
    """Folder name to the settings of each trial.

    Raises:
        ConfigError: a value or another setting is wrong for the verb.
    """
    cls = get_verb(config.of).config_class()
    made = {}
    for value in config.values:
        word = f"{config.key}={json.dumps(value)}"
        made[f"{config.key}={value}"] = load_config(cls, overrides=[word], base=config.config)
    return made


def plan(config: SweepConfig) -> Plan:
    """The first trial's plan, and what varies."""
    verb = get_verb(config.of)
    first = verb.plan(next(iter(trial_configs(config).values())))
    values = ", ".join(map(str, config.values))
    note = f"{config.of} for each {config.key} of {values}; the lowest {config.by} is kept"
    return Plan(first.title, first.figures, (*first.notes, note))


def run(config: SweepConfig, run: Run) -> dict[str, Any]:
    """Each trial in ``trials/<setting=value>``; the winner's files are linked into this run."""
    results: dict[str, dict[str, Any]] = {}
    for name, settings in trial_configs(config).items():
        folder = run.path / TRIALS / name
        results[name] = execute(
            config.of,
            settings,
            folder,
            redo_changed=True,
            quiet=run.quiet,
            announce=lambda text, plan: run.announce(text, None),
        )
        if config.by not in results[name]:
            raise ConfigError(f"by: {config.of} reports no {config.by!r} to choose by")
    best = min(results, key=lambda name: (results[name][config.by], name))
    winner = run.path / TRIALS / best
    if (winner / "inputs.json").exists():
        for record in atomic.read_json(winner / "inputs.json"):
            run.input(Path(record["path"]), record["role"])
    _link_export(winner / "export", run.export)
    for name in ("metrics.jsonl", "training_schedule.json"):
        if (winner / name).exists():
            atomic.write_bytes(run.path / name, (winner / name).read_bytes())
    trials = [
        {
            "value": value,
            "run": str(run.path / TRIALS / name),
            **{
                key: result[key]
                for key in (config.by, "tokens", "flops", "seconds")
                if key in result
            },
        }
        for value, (name, result) in zip(config.values, results.items(), strict=True)
    ]
    chosen = {
        key: value for key, value in results[best].items() if key not in ("verb", "run", "seconds")
    }
    return {
        **chosen,
        "sweep": {"verb": config.of, "key": config.key, "best": best, "trials": trials},
    }


def _link_export(source: Path, target: Path) -> None:
    """A folder with the same files, hard-linked where the file system can."""
    if not source.exists():
        return
    with atomic.staged_folder(target) as staging:
        for path in sorted(source.iterdir()):
            try:
                os.link(path, staging / path.name)
            except OSError:
                shutil.copy2(path, staging / path.name)
