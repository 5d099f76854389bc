"""adapters: one small object for each Hugging Face family, between its folders and our decoder.

Lives here: ``<family>.py`` with an object ``ADAPTER`` (see :class:`~.base.Adapter`), and the table
of families; ``transformer.py`` and ``recurrent.py`` hold what several share. May touch:
``model.config``, ``model.shapes``, ``core``; no torch: an adapter maps names and settings, and
tensors pass through it as the same bytes both ways.
To add a family: its file, its line below, its row in ``model.config.LAYOUTS``, its test.
"""

from __future__ import annotations

from regrow.core.registry import Registry
from regrow.model.adapters.base import Adapter

__all__ = ["ADAPTERS", "Adapter"]

ADAPTERS: Registry[Adapter] = Registry(
    "model family",
    {
        "llama": "regrow.model.adapters.llama:ADAPTER",
        "nemotron": "regrow.model.adapters.nemotron:ADAPTER",
        "mistral": "regrow.model.adapters.mistral:ADAPTER",
        "qwen2": "regrow.model.adapters.qwen2:ADAPTER",
        "qwen3": "regrow.model.adapters.qwen3:ADAPTER",
        "nemotron_h": "regrow.model.adapters.nemotron_h:ADAPTER",
        "mamba2": "regrow.model.adapters.mamba2:ADAPTER",
    },
)
