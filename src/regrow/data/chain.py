"""The steps of a curation in a row: each must find the columns that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.data.document import GATHERED
from regrow.data.settings.attributes import columns_without_classifier
from regrow.data.steps import STEPS, Choosing, Step

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig


def chained(config: CurateConfig) -> list[Step]:
    """Make the steps, in their order; nothing is read but what their settings name.

    Raises:
        ConfigError: settings that a step cannot work with, a column that no step before it makes,
            or a condition that compares one with a value of another kind.
        InputError: files that a step needs do not exist, or are broken.
    """
    steps: list[Step] = []
    columns = GATHERED
    for name in config.steps:
        step = STEPS.get(name)(config)
        for column in step.reads():
            if column not in columns.names:
                raise ConfigError(
                    f"the step {name} reads the column {column!r}, which no step before it makes"
                    f"{nearest(column, columns.names)} (columns: {', '.join(columns.names)})",
                    columns_without_classifier([column], config.attributes),
                )
        if isinstance(step, Choosing) and step.condition:
            step.condition.check(columns)
        columns = pa.schema([*columns, *step.makes()])
        steps.append(step)
    return steps
