"""A keyed permutation of 0 .. n-1 that needs no table: a Feistel network with cycle walking.

The network permutes the numbers of ``bits`` bits, 2^bits being less than 2n (4 at least); a result
of n or more is permuted again until it is below n, less than once on average (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002). This is for shuffling, not for secrecy.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 8
_MASK64 = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input moves half of the output's bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def _round_keys(key: int) -> list[np.uint64]:
    steps = [(key + (i + 1) * 0x9E3779B97F4A7C15) & _MASK64 for i in range(_ROUNDS)]
    return list(mix(np.array(steps, dtype=np.uint64)))


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a keyed shuffle of ``size`` things puts each index.

    Args:
        index: (count,), each in 0 .. size-1.
        size: number of things, at least 1.
        key: chooses the permutation.

    Returns:
        int64, (count,), each in 0 .. size-1; different indices give different results.
    """
    if size == 1:
        return np.zeros(len(index), dtype=np.int64)
    bits = max(2, (size - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    keys = _round_keys(key)
    values = index.astype(np.uint64)
    walking = np.ones(len(values), dtype=bool)
    while walking.any():
        current = values[walking]
        low, high = current & low_mask, current >> low_bits
        for number, round_key in enumerate(keys):
            if number % 2:
                low ^= mix(high + round_key) & low_mask
            else:
                high ^= mix(low + round_key) & high_mask
        values[walking] = (high << low_bits) | low
        walking = values >= np.uint64(size)
    return values.astype(np.int64)
