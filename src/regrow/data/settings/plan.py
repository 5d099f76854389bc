"""Settings of ``curate plan``: those of ``curate run``, and how much to look at."""

from __future__ import annotations

from pydantic import Field

from regrow.data.config import CurateConfig


class CuratePlanConfig(CurateConfig):
    """What a curation would leave and cost, from a sample of its documents."""

    sample: float = Field(default=5000, gt=0)
    """Documents to run the steps on: below 1 a share of all, from 1 on their number."""
