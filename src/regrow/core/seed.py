"""One seed in a config, an independent stream for each use of it."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and on every name, the same on each machine.

    Args:
        seed: the seed of the config.
        names: what the stream is for, for example ``"init"`` or ``"sample", 17``.
    """
    text = "\x1f".join((str(seed), *map(str, names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
