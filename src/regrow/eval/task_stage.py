"""The tasks of ``evaluate``: what is wrong with them, their run over a model, their table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.core.errors import Interrupted, RegrowError
from regrow.core.run import Run
from regrow.eval.config import EvaluateConfig
from regrow.eval.harness import finished, run_task
from regrow.eval.listing import aligned
from regrow.eval.task import Task, TaskSettings
from regrow.eval.tasks import TASKS

if TYPE_CHECKING:
    from regrow.model.decoder import Decoder

DATA_VARIABLE = "REGROW_DATA"


def tasks_of(config: EvaluateConfig) -> dict[str, Task]:
    """Name to task, in the order of the settings."""
    return {name: TASKS.get(name)() for name in config.task_names()}


def data_folder(config: EvaluateConfig) -> Path | None:
    """The folder of the tasks' files, from the settings or the environment."""
    if config.data is not None:
        return config.data
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def settings_for(
    config: EvaluateConfig, task: Task, count_tokens: Callable[[str], int] | None = None
) -> TaskSettings:
    """The settings of one task."""
    shots = min(config.shots, task.max_shots) if config.shots is not None else None
    settings = TaskSettings(
        data=data_folder(config),
        shots=shots,
        limit=config.limit,
        seed=config.seed,
        lengths=config.lengths,
        samples=config.samples_per_length,
    )
    return settings if count_tokens is None else replace(settings, count_tokens=count_tokens)


def problems_of(config: EvaluateConfig) -> list[str]:
    """What is wrong with the tasks' files: each is read whole, so nothing comes up later."""
    problems = []
    for task in tasks_of(config).values():
        if not task.files:
            continue
        try:
            task.items(settings_for(config, task))
        except RegrowError as error:
            problems.append(f"tasks: {error.message}")
    return problems


def model_problems(config: EvaluateConfig, folder: Path, max_positions: int) -> list[str]:
    """What keeps a model from the tasks."""
    from regrow.eval.lm import token_counter
    from regrow.io.tokenizer import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return [f"{folder} has no tokenizer.json, and tasks are text"]
    drawn = {name: task for name, task in tasks_of(config).items() if not task.files}
    longest = max(config.lengths)
    if drawn and longest > max_positions:
        return [f"lengths: {longest} tokens are more than its max_positions {max_positions}"]
    problems = []
    for task in drawn.values():
        settings = settings_for(config, task, token_counter(Tokenizer.load(folder)))
        try:
            task.items(replace(settings, samples=1))
        except RegrowError as error:
            problems.append(error.message)
    return problems


def record_inputs(config: EvaluateConfig, run: Run) -> None:
    """The tasks' files, as inputs of the run."""
    folder = data_folder(config)
    for task in tasks_of(config).values():
        if task.files and folder is not None:
            run.input(folder / task.files, "data")


def run_tasks(
    config: EvaluateConfig, run: Run, name: str, folder: Path, load: Callable[[], Decoder]
) -> dict[str, dict[str, Any]]:
    """Figures of every task for one model; ``eval/NAME/`` keeps those that are finished.

    Args:
        config: names the tasks.
        run: its folder takes the files.
        name: of the model.
        folder: of the model, for its tokenizer.
        load: gives the model; called only if a task is left.

    Raises:
        Interrupted: after Ctrl-C; what has been asked stays.
    """
    from regrow.eval.lm import LanguageModel
    from regrow.io.tokenizer import Tokenizer

    into = run.path / "eval" / name
    tasks = tasks_of(config)
    model: LanguageModel | None = None
    found = {}
    with run.progress(f"tasks of {name}", float(len(tasks)), "task") as progress:
        for task_name, task in tasks.items():
            figures = finished(into, task_name)
            if figures is None:
                if model is None:
                    model = LanguageModel(load(), Tokenizer.load(folder))
                settings = settings_for(config, task, model.count_tokens)
                stop = partial(_stop, run, f"{task_name} of {name}")
                figures = run_task(model, task, settings, into, stop)
                run.log("evaluated", name=name, task=task_name, value=figures[task.metric])
            found[task_name] = figures
            progress.advance(1, **{task_name: figures[task.metric]})
    return found


def _stop(run: Run, what: str, asked: int, total: int) -> None:
    if run.stop_requested:
        raise Interrupted(
            f"stopped in {what} after {asked} of {total} items; the same command goes on in "
            f"{run.path}"
        )


def table(
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]], about: Mapping[str, Mapping[str, Any]]
) -> str:
    """Headlines as text: a row a task, a column a model, each with its standard error."""
    rows = [["task", "metric", "chance", "n", *tasks]]
    for name, told in about.items():
        cells = [models[name] for models in tasks.values()]
        counts = "/".join(sorted({str(cell["n"]) for cell in cells}))
        chance = f"{told['chance']:.3g}" if told["chance"] is not None else "-"
        figures = [written(cell, told["metric"]) for cell in cells]
        rows.append([name, told["metric"], chance, counts, *figures])
    return "\n".join(aligned(rows, figures=range(2, len(rows[0]))))


def written(figures: Mapping[str, Any], metric: str) -> str:
    """``0.254 ± 0.012``."""
    error = figures.get("stderr")
    return f"{figures[metric]:.3f}" + (f" ± {error:.3f}" if error is not None else "")
