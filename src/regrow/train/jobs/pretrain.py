"""Train a model from random weights."""

from __future__ import annotations

from typing import Any

from regrow.core.plan import Plan
from regrow.core.run import Run
from regrow.io.runs import resolve_model
from regrow.io.tokenizer import Tokenizer
from regrow.model.presets import PRESETS
from regrow.train.config import PretrainConfig
from regrow.train.sketch import sketch
from regrow.train.sources import Sources
from regrow.train.stage import Stage, prepare, record_inputs, run_stage, whole_tokens


def _stage(config: PretrainConfig) -> Stage:
    schedule = config.optim.resolve(whole_tokens(config))
    if config.model.preset is not None and not config.data.shards.exists():
        vocabulary = PRESETS[config.model.preset].vocab_size
        return sketch(config, config.model.resolve(vocabulary, config.data.sequence), schedule)
    sources = Sources.open(config.data, config.eval.split)
    path = sources.find_tokenizer(config.tokenizer)
    tokenizer = Tokenizer.load(path) if path is not None else None
    model = config.model.resolve(
        sources.vocab_size,
        config.data.sequence,
        tokenizer.bos_id if tokenizer else None,
        tokenizer.eos_id if tokenizer else None,
    )
    return prepare(config, model, sources, schedule, path)


def plan(config: PretrainConfig) -> Plan:
    """Tokens, steps, parameters, FLOPs, phases, bytes.

    A published shape can be planned before there are shards.

    Raises:
        ConfigError, InputError: whatever would stop the run before its first step.
    """
    return _stage(config).plan("pretrain")


def run(config: PretrainConfig, run: Run) -> dict[str, Any]:
    """Train from the seed's weights to the end of the budget; the model lies in ``export/``."""
    import torch

    from regrow.core.seed import derive
    from regrow.model.decoder import Decoder
    from regrow.train.device import resolve_device
    from regrow.train.objectives.next_token import NextToken
    from regrow.train.parallel import spread

    stage = _stage(config)
    record_inputs(stage, run)
    if config.model.like is not None:
        run.input(resolve_model(config.model.like) / "config.json", "shape")
    model = Decoder(stage.model)
    model.initialise(torch.Generator().manual_seed(derive(config.seed, "weights")))
    sharding = spread(model, config.parallel.tp, resolve_device(config.train.device))
    return run_stage(stage, NextToken(model), run, "pretrain", sharding=sharding)
