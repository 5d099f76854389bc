"""Held-out loss, speed, samples and tasks of several models, beside n-grams."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError, Interrupted, RegrowError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.data.shards import Shard, ShardSet
from regrow.eval.config import EvaluateConfig
from regrow.eval.listing import describe
from regrow.eval.task_stage import (
    model_problems,
    problems_of,
    record_inputs,
    run_tasks,
    table,
    tasks_of,
)
from regrow.io.runs import resolve_model, resolve_shards
from regrow.io.tokenizer import Tokenizer
from regrow.model.shapes import non_embedding_parameters, parameters
from regrow.train.stage import SCHEDULE_FILE, weights_sha256

if TYPE_CHECKING:
    from regrow.model.decoder import Decoder

Load = Callable[[], "Decoder"]

_FOLDER = "eval"
_BASELINES = "_baselines"  # no model can have this name


def plan(config: EvaluateConfig) -> Plan:
    """Models with their sizes, tokens to score, tasks; all that is wrong at once.

    Raises:
        ConfigError, InputError: a model, its tokenizer, the shards or the tasks' files do not fit
            together.
    """
    from regrow.model.folder import load_config

    named = config.task_names()
    problems = problems_of(config)
    held_out = _open_shards(config, config.split)
    sizes = {}
    for name, path in config.models.items():
        try:
            folder = resolve_model(path)
            shape = load_config(folder)
            sha = _tokenizer_sha(folder)
            for shard in held_out.values():
                shard.require(shape.vocab_size, sha)
        except RegrowError as error:
            problems.extend(f"models.{name}: {line}" for line in (error.message, *error.problems))
            continue
        sizes[name] = {
            "parameters": parameters(shape),
            "non_embedding_parameters": non_embedding_parameters(shape),
        }
        if named:
            found = model_problems(config, folder, shape.max_positions)
            problems += [f"models.{name}: {problem}" for problem in found]
        longest = max(config.sequence, config.decode.prompt_tokens + config.decode.new_tokens)
        if held_out and longest > shape.max_positions:
            problems.append(
                f"models.{name}: {longest} tokens are more than its max_positions "
                f"{shape.max_positions}; lower sequence or decode.new_tokens"
            )
    if config.baselines and config.baseline_run is not None:
        from regrow.eval.baselines import TrainingOrder

        try:
            TrainingOrder.of_run(config.baseline_run)
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError("the evaluation cannot start", problems)
    tokens = {n: min(config.max_tokens, max(0, s.num_tokens - 1)) for n, s in held_out.items()}
    if config.shards is not None and not sum(tokens.values()):
        raise InputError(f"the {config.split} split of {config.shards} has no token to predict")
    parts = []
    if config.shards is not None:
        parts.append(f"{sum(tokens.values()):,} {config.split} tokens")
    if named:
        parts.append(f"{len(named)} tasks")
    title = f"evaluate {len(sizes)} models on {' and '.join(parts)}"
    figures: dict[str, Any] = {"models": sizes}
    if config.shards is not None:
        figures["tokens"] = tokens
    return Plan(title, figures | ({"tasks": named} if named else {}))


def _open_shards(config: EvaluateConfig, split: str) -> ShardSet:
    """The shards of a split; none where the settings name none."""
    if config.shards is None:
        return ShardSet()
    return ShardSet.open(resolve_shards(config.shards), split)


def _tokenizer_sha(folder: Path) -> str | None:
    found = (folder / "tokenizer.json").is_file()
    return Tokenizer.load(folder).sha256 if found else None


def run(config: EvaluateConfig, run: Run) -> dict[str, Any]:
    """Score each model; ``eval/<name>.json`` and ``eval/<name>/<task>.json`` appear one by one.

    Returns:
        ``models`` (name to figures), ``threads``; with shards ``baselines``, ``split``, ``tokens``
        scored a model; with tasks ``tasks`` (model to task to figures) and ``about_tasks``.

    Raises:
        Interrupted: after Ctrl-C; finished models stay.
    """
    import torch

    from regrow.train.device import resolve_threads

    plan(config)
    threads = resolve_threads(config.threads)
    torch.set_num_threads(threads)
    folders = {n: run.input(resolve_model(path), "model") for n, path in config.models.items()}
    record_inputs(config, run)
    (run.path / _FOLDER).mkdir(exist_ok=True)
    atomic.remove_leftovers(run.path / _FOLDER)
    result = _scores(config, run, folders) | {"threads": threads}
    if config.task_names():
        about = {name: describe(task) for name, task in tasks_of(config).items()}
        run.announce(table(result["tasks"], about), None)
        result["about_tasks"] = about
    return result


def _scores(config: EvaluateConfig, run: Run, folders: dict[str, Path]) -> dict[str, Any]:
    """Figures of each model in turn: what needs the shards, then the tasks."""
    result: dict[str, Any] = {"models": {}, "baselines": {}}
    measure = _sizes
    if config.shards is not None:
        shards = run.input(resolve_shards(config.shards), "shards")
        if config.baseline_run is not None:
            run.input(config.baseline_run / SCHEDULE_FILE, "baseline")
        held_out = ShardSet.open(shards, config.split)
        tokenizer = _find_tokenizer(folders, shards)
        if config.baselines:
            counted = partial(_baselines, config, shards, held_out, tokenizer)
            result["baselines"] = _once(run, _BASELINES, counted)

        def measure(folder: Path, load: Load) -> dict[str, Any]:
            return _model(config, folder, held_out, tokenizer, load)

    tasks: dict[str, Any] = {}
    with run.progress("evaluate", len(folders), "model") as progress:
        for name, folder in folders.items():
            if run.stop_requested:
                raise Interrupted(f"stopped before {name}; the same command goes on in {run.path}")
            load = cache(partial(_load, folder))
            result["models"][name] = _once(run, name, partial(measure, folder, load))
            if config.task_names():
                tasks[name] = run_tasks(config, run, name, folder, load)
            progress.advance(1, **_shown(result["models"][name]))
    if config.shards is not None:
        tokens = next(iter(result["models"].values()))["tokens"]
        result |= {"split": config.split, "tokens": tokens}
    return result | ({"tasks": tasks} if tasks else {})


def _shown(figures: dict[str, Any]) -> dict[str, Any]:
    """What the progress line says of a finished model."""
    return {"loss": figures["loss"]} if "loss" in figures else {}


def _load(folder: Path) -> Decoder:
    from regrow.model.folder import load
    from regrow.train.device import resolve_device

    return load(folder).to(resolve_device("auto"))


def _sizes(folder: Path, load: Load) -> dict[str, Any]:
    """Bytes, parameters and the hash of the weights; the model is not loaded."""
    from regrow.model.folder import load_config

    shape = load_config(folder)
    return {
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "parameters": parameters(shape),
        "non_embedding_parameters": non_embedding_parameters(shape),
        "weights_sha256": weights_sha256(folder),
    }


def _once(run: Run, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures that an earlier attempt committed, or new ones, committed.

    Inputs that changed since make the whole run folder start anew, so what is there is current.
    """
    path = run.path / _FOLDER / f"{name}.json"
    if path.is_file():
        figures: dict[str, Any] = atomic.read_json(path)
        return figures
    figures = measure()
    atomic.write_json(path, figures)
    run.log("evaluated", name=name, loss=figures.get("loss"))
    return figures


def _find_tokenizer(folders: dict[str, Path], shards: Path) -> Tokenizer | None:
    """A model's own tokenizer, all being one, or that of the run that made the shards."""
    from regrow.train.config import DataConfig
    from regrow.train.sources import Sources

    for folder in folders.values():
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.load(folder)
    found = Sources.open(DataConfig(shards=shards), "train").find_tokenizer(None)
    return Tokenizer.load(found) if found is not None else None


def _windows(config: EvaluateConfig, shard: Shard) -> Iterable[Any]:
    from regrow.data.loader import evaluation_batches

    return evaluation_batches(
        shard, config.sequence, config.batch, config.max_tokens, config.document_mask
    )


def _model(
    config: EvaluateConfig,
    folder: Path,
    held_out: ShardSet,
    tokenizer: Tokenizer | None,
    load: Load,
) -> dict[str, Any]:
    from regrow.data.loader import evaluation_batches
    from regrow.eval.held_out import held_out as score
    from regrow.eval.samples import samples
    from regrow.eval.speed import decode_speed

    model = load()
    figures = score(
        model,
        held_out,
        tokenizer.token_bytes() if tokenizer is not None else None,
        config.sequence,
        config.batch,
        config.max_tokens,
        partial(evaluation_batches, document_mask=config.document_mask),
    )
    decode = config.decode
    if decode.repeats:
        speed = decode_speed(
            model, decode.prompt_tokens, decode.new_tokens, decode.repeats, config.seed
        )
        figures |= {name: round(rate, 1) for name, rate in speed.items()}
    figures |= _sizes(folder, load)
    if tokenizer is not None and config.samples.prompts:
        how = config.samples
        figures["samples"] = samples(
            model, tokenizer, how.prompts, how.new_tokens, how.temperature, how.top_p, config.seed
        )
    return figures


def _baselines(
    config: EvaluateConfig, shards: Path, held_out: ShardSet, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    from regrow.eval.baselines import TrainingOrder, score_baselines, training_pairs
    from regrow.eval.ngram import NGram

    train = ShardSet.open(shards, "train")
    if config.baseline_run is not None:
        order = TrainingOrder.of_run(config.baseline_run)
    else:
        order = TrainingOrder.of_split(train, config.sequence, config.seed, config.document_mask)
    contexts, targets = training_pairs(train, order, config.baseline_tokens)
    if len(targets) < 2:
        raise ConfigError(f"baselines: {len(targets)} training tokens are too few to count")
    vocab_size = next(iter(train.values())).vocab_size
    model = NGram.fit(contexts, targets, vocab_size)
    scores = score_baselines(
        model,
        {name: partial(_windows, config, shard) for name, shard in held_out.items()},
        tokenizer.token_bytes() if tokenizer is not None else None,
    )
    return {name: score | {"trained_tokens": len(targets)} for name, score in scores.items()}
