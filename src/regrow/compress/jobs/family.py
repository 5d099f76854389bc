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
from regrow.compress.family_cost import (
    ChildCost,
    StepEquivalent,
    child_cost,
    rung_sizes,
    step_equivalent,
    total,
)
from regrow.compress.family_record import CANDIDATES, as_lines, mark_front
from regrow.compress.family_shapes import ShortList, conditions_of, shape_name, short_list
from regrow.compress.jobs import distill, importance
from regrow.compress.source import source_model
from regrow.core import atomic
from regrow.core.errors import ConfigError
from regrow.core.inputs import run_folder_of
from regrow.core.lineage import PARENT_ROLES
from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.runs import resolve_model, resolve_shards
from regrow.model.config import ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shapes import flops_per_token, parameters
from regrow.train.sketch import sketch
from regrow.train.sources import Sources
from regrow.train.stage import Stage, prepare, whole_tokens

TRIALS_LOG = "trials.jsonl"
#: Digits of a step's FLOPs in the method's paper.
_PUBLISHED_DIGITS = 2


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
    return any(child.budget is not None for child in config.children.values())


def recorded_tokens(model: Path) -> int | None:
    """Tokens that a model saw in all, by the lineage of the run that made it and of its parents.

    Args:
        model: its folder.

    Returns:
        None where no run made it, or one of them records none.
    """
    total_tokens = 0
    seen: set[Path] = set()
    folder = run_folder_of(model)
    while folder is not None and folder.resolve() not in seen:
        seen.add(folder.resolve())
        record = atomic.read_json(folder / "lineage.json")
        tokens = record.get("tokens", 0)  # a run that trains nothing has none
        if not isinstance(tokens, int):
            return None
        total_tokens += tokens
        parents = [p for p in record.get("parents", ()) if p["role"] in PARENT_ROLES]
        folder = Path(parents[0]["run"]) if parents and parents[0]["run"] else None
        if folder is not None and not (folder / "lineage.json").is_file():
            return None
    return total_tokens or None


def plan_children(config: FamilyConfig, original: ModelConfig) -> dict[str, ShortList]:
    """The short list of each child, as if the most even shape of the one before had won.

    Raises:
        ConfigError: a budget that no shape meets, whichever shape of the child before it wins.
    """
    listed: dict[str, ShortList] = {}
    sources: tuple[ModelConfig, ...] = (original,)
    for name, child in config.children.items():
        found = [short_list(name, child, s, original, config.candidates) for s in sources]
        listed[name] = found[0]
        if config.cut_from == "previous":
            sources = found[0].shapes
    return listed


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


def _price(
    config: FamilyConfig, ready: _Ready, winners: list[ModelConfig], digits: int = 0
) -> StepEquivalent | None:
    if not ready.scratch_tokens:
        return None
    sequence = config.data.sequence
    original, *children = (flops_per_token(s, sequence) for s in (ready.shape, *winners))
    ratio = ready.scratch_tokens / config.train.tokens
    return step_equivalent(original, children, config.train.batch_tokens, ratio, digits)


def _whole_price(
    config: FamilyConfig, ready: _Ready, winners: list[ModelConfig], flops: int
) -> dict[str, float] | None:
    """Everything that the family takes, against training each model from scratch."""
    tokens = ready.scratch_tokens
    if not tokens:
        return None
    each = [tokens * flops_per_token(s, config.data.sequence) for s in (ready.shape, *winners)]
    grown = each[0] + flops
    return {
        "scratch_tokens": tokens,
        "scratch_flops": sum(each),
        "family_flops": grown,
        "ratio": sum(each) / grown,
    }


def plan(config: FamilyConfig) -> Plan:
    """Shapes counted and listed, and what all of it takes.

    Raises:
        ConfigError, InputError: whatever would stop the run.
    """
    ready = _prepare(config)
    listed = plan_children(config, ready.shape)
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
        figures["step_equivalent"] = price.as_json()
        figures["whole"] = _whole_price(config, ready, winners, sums["flops"])
        notes += _price_notes(config, ready, winners, price, figures["whole"]["ratio"])
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


def _price_notes(
    config: FamilyConfig,
    ready: _Ready,
    winners: list[ModelConfig],
    price: StepEquivalent,
    whole: float,
) -> list[str]:
    made = [
        f"price of one step of every model: {_power(price.scratch)} FLOPs from scratch against "
        f"{_power(price.family)} as a family, {price.ratio:.2f}x (children see "
        f"{price.token_ratio:g}x fewer tokens; no search, no teacher)"
    ]
    if ready.model is None:
        rounded = _price(config, ready, winners, _PUBLISHED_DIGITS)
        assert rounded is not None  # the tokens are known
        made.append(
            f"the same with each step rounded to {_PUBLISHED_DIGITS} digits, as published: "
            f"{_power(rounded.scratch)} against {_power(rounded.family, 5)} FLOPs per "
            f"step-equivalent, {rounded.ratio:.2f}x"
        )
    made.append(f"with importance, search and the teacher's passes: {whole:.2f}x")
    return made


def _power(value: float, digits: int = 3) -> str:
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


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
        tokens, trial_tokens`` of all, ``step_equivalent`` and ``whole`` (the price against training
        from scratch, where the tokens of that are known), ``pareto`` (original and children),
        ``model_figures`` (of the original).
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

    def choose() -> str:
        device = resolve_device(config.train.device)
        model = load(ready.teacher or ready.shape.layout, dtype=torch.float32)
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
    whole = _whole_price(config, ready, winners, sums["flops"])
    known = ("loss", "parameters", "memory_bytes", "latency_ms")
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
        **({"step_equivalent": price.as_json()} if price else {}),
        **({"whole": whole} if whole else {}),
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
