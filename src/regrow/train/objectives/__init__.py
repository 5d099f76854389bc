"""Objectives by name; see :mod:`regrow.train` for how to add one."""

from __future__ import annotations

from typing import Any

from regrow.core.registry import Registry

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    {
        "next_token": "regrow.train.objectives.next_token:NextToken",
        "distillation": "regrow.train.objectives.distillation:Distillation",
    },
)
