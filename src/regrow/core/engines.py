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
    # OpenMP's threads wait for each other by spinning. Without a bound one training step stops
    # dead as soon as anything else wants a core; without spinning at all every small product pays
    # for a wake-up. Tokens/s on two cores, idle and beside two busy processes: default 9,400 and
    # 2,100; no spinning 3,700 and 2,800; this bound 8,000 and 3,800.
    "GOMP_SPINCOUNT": "50000",
}


def prepare_engines() -> None:
    """Set what every engine reads when it is first imported; the user's own settings win.

    Call before torch or Daft are imported.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
