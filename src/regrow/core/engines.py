"""How the engines that regrow stands on behave: they stay offline, and their threads yield."""

from __future__ import annotations

import os

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "SCARF_NO_ANALYTICS": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Threads that wait for each other by spinning stop a training step dead as soon as anything
    # else wants a core: 600 tokens/s instead of 2,900 beside two busy processes on two cores.
    "OMP_WAIT_POLICY": "passive",
}


def prepare_engines() -> None:
    """Set what every engine reads when it is first imported; the user's own settings win.

    Call before torch or Daft are imported.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
