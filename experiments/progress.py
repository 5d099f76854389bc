"""What a long experiment says, and how it is held up."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def wait() -> None:
    """Hold on while the file that ``REGROW_PAUSE_FILE`` names exists."""
    name = os.environ.get("REGROW_PAUSE_FILE")
    if name and Path(name).exists():
        say(f"waiting for {name} to go")
        while Path(name).exists():
            time.sleep(2)
