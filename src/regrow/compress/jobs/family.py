"""A family of one model: shapes are searched under budgets, winners retrained by distillation.

Source: Minitron (arXiv 2407.14679), sections 2.3 and 4: enumerate, compare after a lightweight
retraining, retrain the winner; the largest first, each next one cut from the one before, all
distilled from the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.compress.budgets import memory_bytes
from regrow.compress.family_config import FamilyConfig
from regrow.compress.family_cost import ChildCost, child_cost, rung_sizes, total
from regrow.compress.family_price import Price, recorded_tokens
from regrow.compress.family_record import CANDIDATES, as_lines, mark_front
from regrow.compress.family_shapes import (
    ShortList,
    conditions_of,
    shape_name,
    short_list,
    sizes_of,
)
from regrow.compress.jobs import distill, importance
from regrow.compress.prune_config import ShapeTarget
from regrow.compress.source import source_model
from regrow.core import atomic
from regrow.core.errors import ConfigError, InputError
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.runs import resolve_model, resolve_shards
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shapes import parameters
from regrow.train.sketch import sketch
from regrow.train.sources import Sources
from regrow.train.stage import Stage, prepare, whole_tokens

TRIALS_LOG = "trials.jsonl"


@dataclass(frozen=True, slots=True)
class _Ready:
    """Models and text, checked against each other.

    Args:
        model: folder of the original; None for a preset, which can only be planned.
        shape: its shape.
        teacher: folder of the teacher; None likewise.
        teacher_shape: its shape.
        stage: the full retraining, as if of the original.
        score_tokens: held-out tokens of one scoring.
        scratch_tokens: that training from scratch takes; None where nobody says.
    """

    model: Path | None
    shape: ModelConfig
    teacher: Path | None
    teacher_shape: ModelConfig
    stage: Stage
    score_tokens: int
    scratch_tokens: int | None


def _prepare(config: FamilyConfig) -> _Ready:
    source = source_model(config.model)
    if source.place is None:
        return _prepare_preset(config, source.config)
    from regrow.model.folder import load_config

    model, shape = source.place, source.config
    teacher = resolve_model(config.teacher) if config.teacher is not None else model
    # Children have the original's vocabulary, tokenizer and positions: what stops it stops them.
    whole = config.distillation(model, teacher)
    distill.plan(whole)
    if _searched(config):
        distill.plan(config.distillation(model, teacher, config.trial.tokens))
    importance.plan(config.importance(model))
    sources = Sources.open(config.data, config.eval.split)
    stage = prepare(whole, shape, sources, whole.optim.resolve(whole_tokens(whole)), None)
    score_tokens = sum(
        min(config.trial.score_tokens, shard.num_tokens - 1) for shard in sources.held_out.values()
    )
    tokens = config.scratch_tokens or recorded_tokens(model)
    return _Ready(model, shape, teacher, load_config(teacher), stage, score_tokens, tokens)


def _prepare_preset(config: FamilyConfig, shape: ModelConfig) -> _Ready:
    """A published shape without its weights."""
    teacher = shape
    if config.teacher is not None:
        named = PRESETS.get(str(config.teacher))
        if named is None:
            raise ConfigError(
                f"teacher: model is the preset {config.model}, which can only be planned; name a "
                f"preset here too, not {config.teacher}"
            )
        teacher = named
    whole = config.distillation(config.model, config.teacher or config.model)
    schedule = whole.optim.resolve(whole_tokens(whole))
    if config.data.shards.exists():
        sources = Sources.open(config.data, config.eval.split)
        stage = prepare(whole, shape, sources, schedule, None)
    else:
        stage = sketch(whole, shape, schedule)
    count = len({name for phase in stage.phases for name in phase.weights})
    score_tokens = count * config.trial.score_tokens
    return _Ready(None, shape, None, teacher, stage, score_tokens, config.scratch_tokens)


def _searched(config: FamilyConfig) -> bool:
    """Whether there may be trials."""
    budgets = any(child.budget is not None for child in config.children.values())
    return budgets and config.candidates > 1


def plan_children(config: FamilyConfig, original: ModelConfig) -> dict[str, ShortList]:
    """The short list of each child, as if the most even shape of the one before had won.

    Raises:
        ConfigError: a budget that no shape meets, whichever shape of the child before it wins.
    """
    listed: dict[str, ShortList] = {}
    sources: tuple[ModelConfig, ...] = (original,)
    for name, child in config.children.items():
        try:
            found = [short_list(name, child, s, original, config.candidates) for s in sources]
        except ConfigError as error:
            if sources == (original,):
                raise
            hint = (
                "it is cut from the child before it: name children from the largest to the "
                "smallest, or set cut_from=original"
            )
            raise ConfigError(error.message, [*error.problems, hint]) from error
        listed[name] = found[0]
        if config.cut_from == "previous":
            sources = found[0].shapes
    return listed


def _check_candidate(config: FamilyConfig, ready: _Ready, child: str, shape: ModelConfig) -> None:
    """What would stop a candidate's cut or its training.

    Raises:
        ConfigError: hidden states of layers that it does not have.
        InputError: layers cannot be tried out.
    """
    from regrow.compress.sweep import sweep_problems

    try:
        distill.hidden_match(config, shape, ready.teacher_shape)
    except ConfigError as error:
        name = f"child {child} as {shape_name(shape)}"
        raise ConfigError(f"{name}: {error.message}", error.problems) from error
    if ready.model is None or shape.layers == ready.shape.layers:
        return
    # No scores are read for this; that there will be some is all that the settings ask.
    settings = config.pruning(ready.model, ready.model, ShapeTarget(**sizes_of(shape)), True)
    if settings.depth_metric == "bi":
        return
    problems = sweep_problems(settings, ready.model, ready.shape)
    if problems:
        raise InputError(f"child {child}: layers cannot be tried out", problems)


def _planned_cost(
    config: FamilyConfig, ready: _Ready, listed: dict[str, ShortList]
) -> dict[str, ChildCost]:
    costs = {}
    source = ready.shape
    for name, found in listed.items():
        # Which half will go is not known: the larger one is taken to stay.
        largest = sorted(found.shapes, key=parameters, reverse=True)
        sizes = rung_sizes(config, len(found.shapes))
        rungs = [largest[:size] for size in sizes]
        costs[name] = child_cost(
            config, ready.teacher_shape, source, rungs, largest[0], ready.stage.tokens,
            ready.score_tokens,
        )  # fmt: skip
        if config.cut_from == "previous":
            source = found.shapes[0]
    return costs


def _price(config: FamilyConfig, ready: _Ready, winners: list[ModelConfig]) -> Price | None:
    """None where nobody says how many tokens training from scratch takes."""
    tokens = ready.scratch_tokens
    return Price(config, ready.shape, winners, tokens) if tokens else None


def plan(config: FamilyConfig) -> Plan:
    """Shapes counted and listed, and what all of it takes.

    Raises:
        ConfigError, InputError: whatever would stop the run.
    """
    ready = _prepare(config)
    listed = plan_children(config, ready.shape)
    for name, found in listed.items():
        for shape in found.shapes:
            _check_candidate(config, ready, name, shape)
    costs = _planned_cost(config, ready, listed)
    sums = total(costs)
    winners = [found.shapes[0] for found in listed.values()]
    figures: dict[str, Any] = {
        "flops": sums["flops"],
        "search_flops": sums["search_flops"],
        "teacher_flops": sums["trial_teacher_flops"] + sums["teacher_flops"],
        "tokens": sums["tokens"] + sums["trial_tokens"],
        "parameters": parameters(ready.shape),
    }
    notes = [
        f"{name}: {found.counted:,} legal shapes, {len(found.shapes)} on the short list: "
        + ", ".join(f"{shape_name(s)} ({parameters(s):,})" for s in found.shapes)
        for name, found in listed.items()
    ]
    if len(listed) > 1 and config.cut_from == "previous":
        notes.append("children but the first are planned as if the first shape of each list won")
    if price := _price(config, ready, winners):
        figures |= price.as_json(sums["flops"])
        notes += price.notes(sums["flops"], published=ready.model is None)
    else:
        notes.append("no price against training from scratch: set scratch_tokens")
    figures["counted"] = {name: found.counted for name, found in listed.items()}
    figures["short_list"] = {
        name: [shape_name(shape) for shape in found.shapes] for name, found in listed.items()
    }
    figures["child_flops"] = {name: cost.flops for name, cost in costs.items()}
    title = (
        f"family of {len(listed)} from {parameters(ready.shape):,} parameters, "
        f"{sums['flops']:.3g} FLOPs"
    )
    return Plan(title, figures, tuple(notes), _missing(config, ready))


def _missing(config: FamilyConfig, ready: _Ready) -> tuple[str, ...]:
    missing = []
    if ready.model is None:
        missing.append(f"model: {config.model} is a preset; give a model's folder")
    if not ready.stage.sources.train:
        missing.append(
            f"data.shards: {config.data.shards} does not exist; name a run folder of tokenize"
        )
    return tuple(missing)


def run(config: FamilyConfig, run: Run) -> dict[str, Any]:
    """Search and retrain one child after the other; each lies in ``RUN/<child>/export``.

    Returns:
        ``children`` (name to shape, figures, costs, ranks), ``flops, search_flops, teacher_flops,
        tokens, trial_tokens`` of all, ``trials`` (candidates scored), ``step_equivalent`` and
        ``whole`` (the price against training from scratch, where the tokens of that are known),
        ``pareto`` (original and children).
    """
    import torch

    from regrow.compress.family_step import ChildStep
    from regrow.search.log import TrialLog
    from regrow.train.device import resolve_threads

    ready = _prepare(config)
    assert ready.model is not None  # execute() refuses plans with anything missing
    assert ready.teacher is not None
    run.input(ready.model, "model")
    if ready.teacher != ready.model:
        run.input(ready.teacher, "teacher")
    run.input(resolve_shards(config.data.shards), "shards")
    torch.set_num_threads(resolve_threads(config.train.threads))
    config = _settled(config, ready, run)
    log = TrialLog(run.path / TRIALS_LOG)
    made: dict[str, dict[str, Any]] = {}
    records: list[dict[str, Any]] = []
    winners: list[ModelConfig] = []
    source = ready.model
    for name in config.children:
        step = ChildStep(config, run, log, name, source, ready.shape, ready.teacher)
        made[name], found = step.run_all()
        winners.append(found.winner)
        records += found.records
        atomic.write_text(run.path / CANDIDATES, as_lines(records))
        if config.cut_from == "previous":
            source = run.path / name / "export"
    return _result(config, ready, made, winners, records)


def _settled(config: FamilyConfig, ready: _Ready, run: Run) -> FamilyConfig:
    """The config with the precision that all candidates and attempts have in common."""
    if config.train.precision != "auto":
        return config
    import torch

    from regrow.model.folder import load
    from regrow.train.device import faster_precision, resolve_device

    assert ready.teacher is not None  # a preset is planned only
    teacher = ready.teacher

    def choose() -> str:
        device = resolve_device(config.train.device)
        model = load(teacher, dtype=torch.float32)
        rows = config.train.micro_batch * config.data.sequence
        return faster_precision(model.to(device), rows, device)

    train = config.train.model_copy(update={"precision": run.decide("precision", choose)})
    return config.model_copy(update={"train": train})


def _result(
    config: FamilyConfig,
    ready: _Ready,
    made: dict[str, dict[str, Any]],
    winners: list[ModelConfig],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    keys = ChildCost().as_json()
    sums = {key: sum(child[key] for child in made.values()) for key in keys}
    price = _price(config, ready, winners)
    conditions = [child["conditions"] for child in made.values()]
    alike = all(other == conditions[0] for other in conditions)
    known = ("loss", "parameters", *(("memory_bytes", "latency_ms") if alike else ()))
    timed = all("latency_ms" in child for child in made.values())
    points = [_original(config, ready, timed)] + [
        {"name": name, **{key: child[key] for key in known if key in child}}
        for name, child in made.items()
    ]
    return {
        "children": made,
        "flops": sums["flops"],
        "search_flops": sums["search_flops"],
        "teacher_flops": sums["trial_teacher_flops"] + sums["teacher_flops"],
        "tokens": sums["tokens"] + sums["trial_tokens"],
        "trial_tokens": sums["trial_tokens"],
        "trials": len(records),
        **(price.as_json(sums["flops"]) if price else {}),
        "pareto": mark_front(points),
    }


def _original(config: FamilyConfig, ready: _Ready, latency: bool) -> dict[str, Any]:
    """The original as a Pareto point, under the conditions of the first child."""
    import torch

    from regrow.compress.divergence import divergence
    from regrow.model.folder import load
    from regrow.train.device import resolve_device

    assert ready.model is not None
    model = load(ready.model, dtype=torch.float32).to(resolve_device(config.train.device))
    (scored,) = divergence(
        [model],
        model,
        Sources.open(config.data, config.eval.split).held_out,
        config.data.sequence,
        config.train.micro_batch,
        config.eval.tokens,
        config.data.document_mask,
    )
    of = conditions_of(next(iter(config.children.values())))
    timed = {}
    if latency:
        from regrow.compress.latency import table_of

        timed = {"latency_ms": round(table_of(ready.shape, of).total_ms(ready.shape), 4)}
    return {
        "name": "original",
        "loss": scored.loss,
        "parameters": parameters(ready.shape),
        "memory_bytes": memory_bytes(ready.shape, of),
        **timed,
    }
