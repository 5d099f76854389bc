"""No engine that regrow uses may call home or fetch anything by itself."""

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
}


def stay_offline() -> None:
    """Tell every engine to stay offline, before it is imported; the user's own settings win."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
