"""What the document tables run on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regrow.core.config import Config


class EngineConfig(Config):
    """Daft's runner and its limits; they change how fast, never what comes out."""

    runner: Literal["native", "ray"] = "native"
    """``native``: in this process; ``ray``: on a Ray cluster, with the extra ``[cluster]``."""
    address: str = "auto"
    """Of the Ray cluster: ``auto``, ``local`` to start one here, or ``host:port``."""
    workers: int | None = Field(default=None, gt=0)
    """Processes for Python functions; null: as many as there are cores, here or on the cluster."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory to stay below; null: three quarters of the machine's."""
