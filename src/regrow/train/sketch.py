"""What can be told of a training before there is any text: a plan, but no run."""

from __future__ import annotations

from regrow.core.errors import ConfigError
from regrow.data.shards import ShardSet
from regrow.model.config import ModelConfig
from regrow.train.config import StageConfig
from regrow.train.phases import resolve_phases
from regrow.train.schedule import Schedule
from regrow.train.sources import Sources
from regrow.train.stage import Stage


def sketch(config: StageConfig, model: ModelConfig, schedule: Schedule) -> Stage:
    """A stage whose shards do not exist; it plans all but the epochs, and cannot be run.

    Args:
        config: the verb's settings.
        model: a published shape.
        schedule: over the tokens of whole steps.

    Raises:
        ConfigError: no phases, or what :func:`regrow.train.stage.prepare` would say of the rest.
    """
    if not config.data.phases:
        raise ConfigError(
            f"data.phases: required to plan without shards ({config.data.shards} does not exist)"
        )
    if config.data.sequence > model.max_positions:
        raise ConfigError(
            f"data.sequence {config.data.sequence} is more than the model's max_positions "
            f"{model.max_positions}"
        )
    phases = resolve_phases(config.data.phases, schedule, config.train.batches())
    return Stage(
        config, model, Sources(config.data.shards, ShardSet(), ShardSet()), schedule, phases, None
    )
